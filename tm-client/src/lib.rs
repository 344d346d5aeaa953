//! Starts global transactions: everything that is done inside one, in any number
//! of services and databases, commits everywhere or nowhere.
//!
//! One attribute makes an async function a transaction. The services it calls
//! learn of it by themselves, as long as their clients carry the header
//! ([`propagate`]):
//!
//! ```no_run
//! use accede_tm_client::{TransactionClient, global_transaction, propagate::OutgoingXid};
//! # use accede_proto::v1 as api;
//! # use api::{transactions_client::TransactionsClient as StockClient, GetOutcomeRequest as Deduct};
//! use tonic::transport::Channel;
//!
//! struct Shop {
//!     transactions: TransactionClient,
//!     stock: StockClient<OutgoingXid<Channel>>,
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! enum ShopError {
//!     #[error("a service refused: {0}")]
//!     Service(#[from] tonic::Status),
//!     #[error(transparent)]
//!     Transaction(#[from] accede_tm_client::Error),
//! }
//!
//! #[global_transaction(client = shop.transactions, name = "place-order", timeout = "30s")]
//! async fn place_order(shop: &Shop, order: u64) -> Result<(), ShopError> {
//!     let mut stock = shop.stock.clone();
//!     stock.get_outcome(Deduct { xid: order }).await?; // any call of any service
//!     Ok(()) // commits; an `Err` rolls everything back, everywhere
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let transactions = TransactionClient::builder("http://127.0.0.1:7700")
//!     .name("front")
//!     .build()?;
//! let channel = Channel::from_static("http://127.0.0.1:8001").connect_lazy();
//! let shop = Shop {
//!     transactions,
//!     stock: StockClient::new(OutgoingXid::new(channel)),
//! };
//! place_order(&shop, 17).await?;
//! shop.transactions.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! The same without the attribute, and with each outcome told apart:
//!
//! ```no_run
//! use accede_tm_client::{CommitError, Options, TransactionClient};
//!
//! # async fn work() -> Result<(), String> { Ok(()) }
//! # async fn example(transactions: TransactionClient) -> Result<(), accede_tm_client::Error> {
//! let transaction = transactions.begin(Options::new("place-order")).await?;
//! if let Err(reason) = transaction.scope(work()).await {
//!     transaction.roll_back(reason).await?;
//!     return Ok(());
//! }
//! match transaction.commit().await {
//!     Ok(committed) => println!("{} is committed", committed.xid),
//!     Err(CommitError::RolledBack(back)) => println!("{back}"),
//!     Err(CommitError::Unknown { xid, .. }) => {
//!         // Not failed: nobody knows yet. Ask again until somebody does.
//!         println!("{:?}", transactions.outcome(xid).await?);
//!     }
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok(()) }
//! ```
//!
//! # What to know
//! - **Beginning costs no round trip**: the process makes transaction ids under a
//!   lease and announces each begin on its one stream. Committing costs one.
//! - **Not known is not failed.** A commit that got no answer is asked for again
//!   for [`limits::DECISION_PATIENCE`]; after that it is [`CommitError::Unknown`],
//!   never an ordinary failure.
//! - **The transaction follows the task**, not `tokio::spawn`: use
//!   [`spawn_in_transaction`], or [`context::carry`] for other executors.
//! - **Only who begins a transaction ends it**; [`Propagation`] says who joins.
//! - **Around a transaction**: [`TransactionClient::before_commit`] for what may still prevent it,
//!   [`TransactionClient::after_end`] for what depends on how it ended.
//! - When this process dies, its undecided transactions are rolled back as soon
//!   as its lease ends.
//!
//! A service that only takes part needs no client of this kind, just
//! [`propagate::IncomingXidLayer`] on its server and the agent beside its data.
//!
//! # Features
//! `reqwest`: `propagate::OutgoingXidMiddleware` for reqwest clients.

#[doc(hidden)]
#[path = "macros.rs"]
pub mod __macros;
mod ask;
mod begins;
mod client;
mod clock;
mod error;
mod hooks;
pub mod limits;
mod options;
mod outcome;
mod propagation;
mod renewal;
mod saga;
mod transaction;
mod worker;
mod xid_maker;

pub use accede_link::{
    context::{self, NoTransaction, TransactionContext, current_xid, spawn_in_transaction},
    propagate,
    session::{ClusterId, ConnectProblem, SessionError, SessionLimits, SessionStatus},
};
pub use accede_proto::{Xid, v1::refusal::Code as RefusalCode};
pub use accede_tm_macros::global_transaction;
pub use client::{TransactionClient, TransactionClientBuilder};
pub use error::{CommitError, Error, HoldsTransactionError, Refusal, RollBackError};
pub use hooks::{Ended, HookError};
pub use options::Options;
pub use outcome::{Committed, Outcome, PhaseTwo, RollBackCause, RolledBack};
pub use propagation::Propagation;
pub use saga::{Saga, SagaBuilder, SagaError, SagaOutcome, Step};
pub use transaction::GlobalTransaction;
pub use xid_maker::NoXid;
