//! tm
#[doc(hidden)]
#[path = "macros.rs"]
pub mod __macros;
mod ask;
mod begins;
mod client;
mod clock;
mod error;
pub mod limits;
mod options;
mod outcome;
mod propagation;
mod renewal;
mod transaction;
mod worker;
mod xid_maker;

pub use accede_link::{
    context::{self, current_xid, spawn_in_transaction},
    propagate,
    session::{ClusterId, ConnectProblem, SessionLimits, SessionStatus},
};
pub use accede_proto::{Xid, v1::refusal::Code as RefusalCode};
pub use accede_tm_macros::global_transaction;
pub use client::{TransactionClient, TransactionClientBuilder};
pub use error::{CommitError, Error, HoldsTransactionError, Refusal, RollBackError};
pub use options::Options;
pub use outcome::{Committed, Outcome, PhaseTwo, RollBackCause, RolledBack};
pub use propagation::Propagation;
pub use transaction::GlobalTransaction;
pub use xid_maker::NoXid;
