//! AT and XA on MariaDB.

mod branch;
mod builder;
mod catalog;
mod change;
mod connection;
mod executor;
mod failure;
mod fence;
mod images;
mod insert;
mod keys;
mod locking;
pub(crate) mod phase_two;
mod plan;
mod pool;
mod run;
mod savepoint;
#[cfg(feature = "schema")]
pub(crate) mod schema;
mod session;
mod start_check;
mod transaction;
mod xa;

pub use builder::AtPoolBuilder;
pub use fence::FencedTransaction;
pub use pool::AtPool;
pub use savepoint::AtSavepoint;
pub use transaction::AtTransaction;
pub use xa::{XaPool, XaTransaction};

use failure::error_number;

#[cfg(test)]
mod tests;
