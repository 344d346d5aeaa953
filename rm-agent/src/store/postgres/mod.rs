//! AT on PostgreSQL.

mod branch;
mod builder;
mod catalog;
mod connection;
mod executor;
mod fence;
mod locking;
pub(crate) mod phase_two;
mod plan;
mod pool;
mod run;
mod savepoint;
#[cfg(feature = "schema")]
pub(crate) mod schema;
mod start_check;
mod transaction;
mod values;
mod xa;

pub use builder::AtPoolBuilder;
pub use fence::FencedTransaction;
pub use pool::AtPool;
pub use savepoint::AtSavepoint;
pub use transaction::AtTransaction;
pub use xa::{XaPool, XaTransaction};

#[cfg(test)]
mod tests;
