//! The coordinator daemon as a library: the state machine behind a durable log, and the doors
//! through which transaction managers, resource managers and operators reach it.
//!
//! ```no_run
//! # use accede_server::{Server, ServerConfig};
//! # async fn run() -> Result<(), accede_server::Error> {
//! let server = Server::start(ServerConfig::new("/var/lib/accede")).await?;
//! println!("listening on {}", server.addr());
//! tokio::select! {
//!     error = server.failed() => return Err(error),
//!     _ = tokio::signal::ctrl_c() => {}
//! }
//! server.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The way of a request: a door checks it and queues a command; the driver puts everything that
//! is queued into one log entry; when the entry is durable and applied, the driver hands out the
//! answers and carries out the effects, in log order.

mod archive;
mod callbacks;
mod clock;
pub mod config;
mod convert;
mod doors;
mod driver;
mod error;
mod http;
mod hub;
mod intake;
pub mod limits;
mod listen;
mod machine;
mod metrics;
mod orders;
mod output;
mod refusal;
mod reply_to;
mod row_locks;
mod server;
mod sessions;
mod settings;
mod trouble;

pub use error::Error;
pub use metrics::{Kind as MetricKind, Metric, TABLE as METRICS};
pub use refusal::REFUSAL_KEY;
pub use server::{Left, Server};
pub use settings::{DEFAULT_PORT, ServerConfig};
