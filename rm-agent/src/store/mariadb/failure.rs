//! What the database's errors mean for a local transaction.

use sqlx::mysql::MySqlDatabaseError;

/// MariaDB's number of an error; `None` if it comes from somewhere else.
pub(super) fn error_number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    let mysql = database.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(mysql.number())
}

/// Whether a statement that failed like this took back what it did, and nothing else: the
/// transaction can go on without it.
pub(super) fn fails_alone(error: &sqlx::Error) -> bool {
    match error_number(error) {
        // Locks, a full table of locks, an older snapshot: the database rolls back
        // everything, or may do so.
        Some(1020 | 1205 | 1206 | 1213) => false,
        Some(_) => !connection_is_lost(error),
        None => false,
    }
}

pub(super) fn connection_is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // The server stops, or ended the session.
        error => matches!(error_number(error), Some(1053 | 1927 | 4031)),
    }
}
