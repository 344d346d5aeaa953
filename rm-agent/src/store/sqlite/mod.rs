//! AT on SQLite.
//!
//! One file, one writer at a time: a branch takes the database's write lock with its
//! first statement and so sees nobody else's changes until it ends. Which rows change
//! is not read from the statement: temporary triggers of this library's connections
//! note every row as it was, whoever changes it: the statement, other triggers, foreign
//! keys. What they write and where is read from the program that SQLite makes of the
//! statement (`EXPLAIN`), so nothing that writes runs unseen.

mod branch;
mod builder;
mod capture;
mod catalog;
mod changes;
mod connection;
mod executor;
mod fence;
pub(crate) mod phase_two;
mod plan;
mod pool;
mod rows;
mod savepoint;
#[cfg(feature = "schema")]
pub(crate) mod schema;
mod session;
mod start_check;
mod transaction;
mod turns;

pub use builder::AtPoolBuilder;
pub use fence::FencedTransaction;
pub use pool::AtPool;
pub use transaction::AtTransaction;

use sqlx_sqlite::SqliteError;

/// SQLite's extended number of an error; `None` if it comes from somewhere else.
pub(crate) fn error_number(error: &sqlx::Error) -> Option<i32> {
    let database = error.as_database_error()?;
    database
        .try_downcast_ref::<SqliteError>()
        .and_then(|error| sqlx::error::DatabaseError::code(error)?.parse().ok())
}

/// Whether somebody else has the database's write lock.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(error_number(error).map(|number| number & 0xff), Some(5 | 6))
}

/// `SQLITE_CONSTRAINT_NOTNULL`.
const NOT_NULL: i32 = 1299;
/// `SQLITE_CONSTRAINT_PRIMARYKEY`, `…_UNIQUE`, `…_ROWID`.
const NOT_UNIQUE: [i32; 3] = [1555, 2067, 2579];
/// `SQLITE_CONSTRAINT_FOREIGNKEY`.
const FOREIGN_KEY: i32 = 787;
/// `SQLITE_CONSTRAINT_CHECK`.
const CHECK: i32 = 275;
/// The low byte of all errors of constraints.
const CONSTRAINT: i32 = 19;

#[cfg(test)]
mod tests;
