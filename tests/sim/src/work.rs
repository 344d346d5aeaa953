//! What transactions do in databases.

use accede_core::{LockKey, LockMode, Mode, RowLock};

/// What happens to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(i64),
    /// The same, but undone by its inverse, so that others may add meanwhile.
    Escrow(i64),
    /// SELECT … FOR SHARE in a branch that keeps the row locks until its transaction is decided.
    Read,
    Insert(i64),
    Delete,
}

/// One branch to be: its statements, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) database: usize,
    /// Rows, each with its change. For a locking read the changes count for nothing.
    pub(crate) rows: Vec<(usize, Change)>,
    /// Touches no rows, but promises something that the decision keeps or takes back: by 3PC, by the
    /// try of TCC, or as a transaction that the database prepares for XA.
    pub(crate) promises: Option<Mode>,
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
    /// The row locks of a branch that does not know yet what it will find.
    pub(crate) fn row_locks(&self) -> Vec<RowLock> {
        let keys = self.keys().into_iter();
        let locks = keys.map(|key| {
            let mut of_row = self.rows.iter().filter(|(row, _)| key_of(*row) == key);
            let mode = if of_row.all(|(_, change)| *change == Change::Read) {
                LockMode::Shared
            } else {
                LockMode::Exclusive
            };
            RowLock { key, mode }
        });
        locks.collect()
    }

    /// The rows: sorted, none twice.
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
