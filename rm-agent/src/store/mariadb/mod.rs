//! AT on MariaDB.

mod branch;
mod builder;
mod catalog;
mod connection;
mod executor;
mod images;
mod insert;
mod locking;
pub(crate) mod phase_two;
mod plan;
mod pool;
mod run;
#[cfg(feature = "schema")]
pub(crate) mod schema;
mod session;
mod start_check;
mod transaction;

pub use builder::AtPoolBuilder;
pub use pool::AtPool;
pub use transaction::AtTransaction;

use sqlx::mysql::MySqlDatabaseError;

/// MariaDB's number of an error; `None` if it comes from somewhere else.
fn error_number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    let mysql = database.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(mysql.number())
}

#[cfg(test)]
mod tests;
