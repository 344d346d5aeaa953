//! What a row lock allows others to do meanwhile.

use alloc::{sync::Arc, vec::Vec};

use crate::id::LockKey;

/// One row and the mode in which a branch wants or holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowLock {
    /// Which row.
    pub key: LockKey,
    /// Who else may hold it.
    pub mode: LockMode,
}

impl From<LockKey> for RowLock {
    /// The exclusive lock on a row.
    fn from(key: LockKey) -> Self {
        let mode = LockMode::Exclusive;
        Self { key, mode }
    }
}

/// Who else may hold a row at the same time. A transaction never stands in its own way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Nobody: the branch changed the row.
    Exclusive,
    /// Others that hold it shared: the branch read the row and relies on it.
    Shared,
    /// Others in escrow: the branch only added to or took from some columns, and undoes that by
    /// the inverse. Granted if each column stays in its bounds whichever of the undecided
    /// transactions roll back. Rule after O'Neil, "The Escrow Transactional Method", 1986.
    Escrow(Arc<Vec<ColumnDelta>>),
}

/// What a branch did to one number. All numbers are whole multiples of the column's smallest step,
/// which its agents agree on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnDelta {
    /// Which column of the row.
    pub column: Arc<str>,
    /// What was added; negative if taken.
    pub delta: i64,
    /// What the column holds after that. The branch's local lock keeps it so.
    pub value: i64,
    /// The least that it may ever hold.
    pub lower: i64,
    /// The most that it may ever hold.
    pub upper: i64,
}
