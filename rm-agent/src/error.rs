//! The one error type of this crate.

use std::{sync::Arc, time::Duration};

use accede_proto::Xid;

use crate::registrar::Refused;

/// What can go wrong between a statement and the end of its branch.
///
/// Through sqlx's interfaces it travels inside [`sqlx::Error`];
/// [`Error::from_sqlx`] finds it there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The coordinator refused the branch; it is rolled back locally.
    #[error(transparent)]
    Refused(#[from] Refused),

    /// The statement cannot be undone exactly and was not run. The transaction
    /// can go on without it; the application must say it differently.
    #[error("this statement cannot run inside a global transaction: {part}; {advice}")]
    Statement {
        /// The part of the statement that is in the way.
        part: String,
        /// What to do instead.
        advice: String,
    },

    /// The table cannot be undone exactly; the statement was not run.
    #[error("table {table} cannot be written inside a global transaction: {part}; {advice}")]
    Table {
        /// The table, with its schema.
        table: String,
        /// The property of the table that is in the way.
        part: String,
        /// What to do instead.
        advice: String,
    },

    /// This works in a global transaction only, and the task works for none: begin one, or
    /// accept the caller's.
    #[error(
        "{what} needs a global transaction, and the task works for none: begin one first, or take over the caller's with the layer of accede_rm_agent::propagate"
    )]
    NoTransaction {
        /// What was asked for.
        what: String,
    },

    /// A statement would open, end or prepare the local transaction, which is this library's
    /// business. It was not run; the transaction can go on without it.
    #[error(
        "{command} is not for a statement of an XA transaction: end it with its methods commit or \
         rollback"
    )]
    TransactionControl {
        /// The command.
        command: String,
    },

    /// The database prepares no transactions, so there is no XA; nothing was done. A person must
    /// act.
    #[error(
        "prepared transactions are switched off in the database of {resource} \
         (max_prepared_transactions = 0): set max_prepared_transactions in postgresql.conf to at \
         least the number of branches that may be open at once, max_connections for example, and \
         restart the server"
    )]
    PreparedOff {
        /// The operator's name for the database.
        resource: Arc<str>,
    },

    /// All places for prepared transactions are taken; the branch is rolled back. Running it again
    /// helps once others have ended.
    #[error(
        "the database of {resource} has no place for another prepared transaction: {source}; end \
         those in pg_prepared_xacts that nobody will, or raise max_prepared_transactions and \
         restart the server"
    )]
    PreparedFull {
        /// The operator's name for the database.
        resource: Arc<str>,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },

    /// A limit of this crate; the branch is rolled back. Split the work.
    #[error("{what} is above the limit of {limit}; split the work into several transactions")]
    TooLarge {
        /// What is too large, with its size.
        what: String,
        /// The limit, in the unit that `what` names.
        limit: usize,
    },

    /// The table changed its columns while the statement was on its way; run
    /// the local transaction again.
    #[error("table {table} changed its columns meanwhile; run the local transaction again")]
    TableChanged {
        /// The table.
        table: String,
    },

    /// A row changed in a way that cannot be undone; the branch is rolled back.
    #[error("a row of {table} cannot be undone: {reason}")]
    Row {
        /// The table.
        table: String,
        /// What happened to the row.
        reason: String,
    },

    /// Rows came or went between two steps of a statement, so that its effect is not
    /// known exactly; the branch is rolled back. Run the local transaction again. It
    /// does not help where rows of one statement meet each other.
    #[error(
        "rows of {table} came or went while a statement ran ({what}); run the local transaction again"
    )]
    RowsMoved {
        /// The table.
        table: String,
        /// What does not fit.
        what: String,
    },

    /// A column in escrow would leave its bounds; the branch is rolled back. The
    /// application has to want less, or to wait until others gave something back.
    #[error("{table}.{column} would become {value}, but may only be {lower} to {upper}")]
    OutOfBounds {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What it would hold.
        value: i64,
        /// The least that it may hold.
        lower: i64,
        /// The most that it may hold.
        upper: i64,
    },

    /// Another local transaction kept a row of the database locked for longer
    /// than the branch waits (or `NOWAIT` met a lock); the branch can only roll
    /// back. Running it again may help once that transaction has ended.
    #[error("a row is locked in the database by another local transaction: {source}")]
    LocalLockTimedOut {
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },

    /// No connection to the database within the pool's patience; nothing was done.
    /// Try again once the reason is gone.
    #[error("no connection to the database of {resource} within {waited:?}: {reason}")]
    NoConnection {
        /// The operator's name for the database.
        resource: Arc<str>,
        /// How long the caller waited.
        waited: Duration,
        /// Why there is none, and what helps.
        reason: String,
    },

    /// An earlier statement failed or was cancelled, so the local transaction
    /// can only roll back.
    #[error("the local transaction can only roll back: {reason}")]
    Broken {
        /// What happened before.
        reason: String,
    },

    /// The local commit came too late: the coordinator no longer waits for it.
    /// The branch is rolled back; the whole transaction will be.
    #[error("the branch of transaction {xid} came after its give-up time and was rolled back")]
    GaveUp {
        /// The transaction.
        xid: Xid,
    },

    /// The transaction was rolled back in this database before the branch
    /// committed; the branch is rolled back too.
    #[error("transaction {xid} was rolled back here before its branch could commit")]
    RolledBackMeanwhile {
        /// The transaction.
        xid: Xid,
    },

    /// Whether the local commit happened is unknown; the coordinator was told
    /// and rolls the transaction back.
    #[error(
        "whether the local commit in transaction {xid} happened is unknown: {reason}; the transaction will roll back"
    )]
    CommitUnknown {
        /// The transaction.
        xid: Xid,
        /// What the connection said.
        reason: String,
    },

    /// The database is not prepared for this library.
    #[error(
        "{reason}; run `accede schema create URL` against this database, or apply the shipped migration"
    )]
    Schema {
        /// What is missing or different.
        reason: String,
    },

    /// The database belongs to another cluster.
    #[error(
        "this database belongs to cluster {found}, not to {expected}; connect the agent to the \
         coordinator of {found}, or move the database by clearing accede_meta.cluster_id once \
         none of its transactions is open"
    )]
    OtherCluster {
        /// The cluster that the database names.
        found: uuid::Uuid,
        /// The cluster that the agent is connected to.
        expected: uuid::Uuid,
    },

    /// A setting of the builder is missing or wrong.
    #[error("{0}")]
    Configuration(String),

    /// The database or the connection to it.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What sqlx said.
        #[source]
        source: sqlx::Error,
    },
}

impl Error {
    /// This crate's error inside sqlx's, if there is one.
    #[must_use]
    pub fn from_sqlx(error: &sqlx::Error) -> Option<&Self> {
        match error {
            sqlx::Error::AnyDriverError(inner) => inner.downcast_ref(),
            _ => None,
        }
    }

    /// Whether the same local transaction, rolled back and run again, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refused) => refused.is_retryable(),
            Self::TableChanged { .. } | Self::RowsMoved { .. } | Self::PreparedFull { .. } => true,
            Self::Database { source, .. } => is_retryable(source),
            _ => false,
        }
    }

    pub(crate) fn database(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

impl From<Error> for sqlx::Error {
    fn from(error: Error) -> Self {
        match error {
            // What sqlx said stays what sqlx said, so that callers can match on it.
            Error::Database { source, .. } => source,
            other => sqlx::Error::AnyDriverError(Box::new(other)),
        }
    }
}

/// Whether a local transaction that ended in this error, rolled back and run
/// again, may succeed: a passing refusal of the coordinator, a serialization
/// failure or a deadlock inside the database, somebody else's write lock in SQLite.
#[must_use]
pub fn is_retryable(error: &sqlx::Error) -> bool {
    if let Some(own) = Error::from_sqlx(error) {
        return own.is_retryable();
    }
    // 26000: a pooler between the agent and PostgreSQL lent another session.
    matches!(
        sql_state(error).as_deref(),
        Some("40001" | "40P01" | "26000")
    ) || crate::store::sqlite::is_busy(error)
}

pub(crate) fn sql_state(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
