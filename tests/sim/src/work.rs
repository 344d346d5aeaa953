//! What transactions do in databases.

use accede_core::LockKey;

/// What happens to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(i64),
    Insert(i64),
    Delete,
}

/// One branch to be: its statements, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) database: usize,
    /// Rows, each with its change. For a locking read the changes count for nothing.
    pub(crate) rows: Vec<(usize, Change)>,
    /// SELECT … FOR UPDATE: only checks the row locks.
    pub(crate) only_reads: bool,
    /// Registers before it takes local locks. Nobody is told to, but then a mixed deadlock, one lock
    /// here and one there, must end by the local lock time-out.
    pub(crate) registers_first: bool,
    /// Milliseconds to wait in the lock queues.
    pub(crate) wait_limit_ms: u32,
    /// Milliseconds between the answer to the registration and the local commit.
    pub(crate) pause_ms: u64,
}

impl Work {
    /// The row locks: sorted, none twice.
    pub(crate) fn keys(&self) -> Vec<LockKey> {
        let mut keys: Vec<LockKey> = self.rows.iter().map(|(row, _)| key_of(*row)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// The lock key of a row.
pub(crate) fn key_of(row: usize) -> LockKey {
    LockKey::from(format!("row {row}").as_bytes())
}

/// Why a part of a transaction was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkError {
    /// The database could not be reached.
    DatabaseDown,
    /// A row was not as the statement needs it.
    WrongRow,
    /// The database's own lock time-out.
    LocalLockTimeout,
    /// The coordinator refused to register the branch.
    Refused,
    /// The coordinator did not answer in time; the request was withdrawn.
    NoAnswer,
    /// The local commit came too late.
    TooLate,
    /// Whether the local commit happened is unknown; the transaction is doomed.
    Unknown,
}
