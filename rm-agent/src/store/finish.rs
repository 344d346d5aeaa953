//! What finishing branches is about, whatever the database.

use std::time::Duration;

use accede_proto::Xid;
use uuid::Uuid;

/// The status of a row that something is still owed to, in each of the tables.
pub(super) const LIVE: i16 = 0;
/// The status of a fence that has heard of a commit, which is still owed to it.
pub(super) const PRE_COMMITTED: i16 = 4;
/// `log_status` of a record that can be undone.
pub(super) const UNDOABLE: i16 = LIVE;
/// `log_status` of a record that was undone.
pub(super) const UNDONE: i16 = 1;
/// `log_status` of a row that keeps a branch from committing late.
pub(super) const DEFENCE: i16 = 2;

/// Names a branch in the undo log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BranchKey {
    pub(crate) xid: Xid,
    pub(crate) branch: u32,
}

impl BranchKey {
    pub(super) fn xid_column(self) -> i64 {
        i64::try_from(self.xid.as_u64()).expect("the top bit of an XID is never set")
    }

    pub(super) fn branch_column(self) -> i32 {
        // Branch numbers are small; the coordinator bounds them far below this.
        i32::try_from(self.branch).unwrap_or(i32::MAX)
    }
}

/// How to undo rows that are not as the branch left them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndoPolicy {
    /// Do not: report them.
    Check,
    /// Bring them to their state before the branch all the same; an operator said so.
    Forced,
    /// Keep all rows as they are and drop the record; an operator said so.
    AcceptCurrent,
}

/// Why a branch was not finished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PhaseTwoError {
    /// The database cannot be reached; nobody's fault, try again.
    #[error("the database cannot be reached: {reason}")]
    Unavailable {
        /// What the connection said.
        reason: String,
    },
    /// May work later.
    #[error("{reason}")]
    Failed {
        /// What was in the way.
        reason: String,
    },
    /// Will not work by itself; a person must look.
    #[error("{reason}")]
    Stuck {
        /// What is in the way and what can be done.
        reason: String,
        /// Per row and column: before, after, now. Empty if that is not the problem.
        difference: String,
        /// SQL that brings the rows to their state before the branch, if known.
        repair_statement: String,
    },
}

impl PhaseTwoError {
    pub(crate) fn stuck(reason: impl Into<String>) -> Self {
        Self::Stuck {
            reason: reason.into(),
            difference: String::new(),
            repair_statement: String::new(),
        }
    }
}

/// A table with a row for each branch, in which leftovers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(super) table: &'static str,
    /// The column that is [`LIVE`] as long as something is owed.
    pub(super) status: &'static str,
    /// The column with the row's time.
    pub(super) time: &'static str,
}

impl Ledger {
    /// Undo records.
    pub(crate) const UNDO: Self = Self {
        table: "undo_log",
        status: "log_status",
        time: "log_created",
    };
    /// Fences.
    pub(crate) const FENCES: Self = Self {
        table: "accede_fence",
        status: "status",
        time: "created",
    };
}

/// What a row of a ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftoverKind {
    /// A record that something is still owed to: it can be undone, or was tried.
    Undo,
    /// A marker or defence row, which holds nothing to undo.
    Marker,
}

impl LeftoverKind {
    pub(super) const fn of(status: i16) -> Self {
        match status {
            LIVE | PRE_COMMITTED => Self::Undo,
            _ => Self::Marker,
        }
    }
}

/// A row of a ledger that is older than it should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) key: BranchKey,
    pub(crate) kind: LeftoverKind,
    /// By the database's clock.
    pub(crate) age: Duration,
}

/// The prepared transactions of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PreparedOnes {
    /// The oldest of this cluster, of those that are older than they should get.
    pub(crate) old: Vec<PreparedOne>,
    /// All of this cluster in this database.
    pub(crate) ours: u64,
    /// How old the oldest of these is.
    pub(crate) oldest: Duration,
    /// All of the server, whoever's.
    pub(crate) used: u64,
    /// How many the server takes; 0: it takes none, or knows no such limit.
    pub(crate) most: u64,
}

/// A prepared transaction of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreparedOne {
    pub(crate) xid: Xid,
    /// Its number, where the name tells it.
    pub(crate) branch: Option<u32>,
    /// The database's name for it.
    pub(crate) name: String,
    /// By the database's clock, or since it was seen first.
    pub(crate) age: Duration,
}

/// Whose database this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Made when the tables were created.
    pub(crate) database_id: Uuid,
    /// The cluster that it belongs to, once an agent has connected.
    pub(crate) cluster_id: Option<Uuid>,
}
