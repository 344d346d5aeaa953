//! Fences: rows in the application's database that let each step of a branch take effect once and
//! none come too late, whatever the mode. What differs between databases is behind [`Fences`].

#[macro_use]
mod transaction;

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::{
    finish::{BranchKey, PhaseTwoError},
    watch::Watched,
};
use crate::{agent::Pools, error::Error};

/// How far a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Phase one took effect.
    Tried,
    /// Phase two took effect, as a commit.
    Confirmed,
    /// Phase two took effect, as a rollback.
    Cancelled,
    /// Rolled back before phase one took effect, which it never can from now on.
    Barred,
    /// Of 3PC: it has heard that the commit is decided.
    PreCommitted,
    /// A step of a saga that is being done. Never committed: only who does it sees it.
    Running,
}

impl Status {
    /// As the table keeps it.
    pub(super) const fn column(self) -> i16 {
        match self {
            Self::Tried => super::finish::LIVE,
            Self::Confirmed => 1,
            Self::Cancelled => 2,
            Self::Barred => 3,
            Self::PreCommitted => super::finish::PRE_COMMITTED,
            Self::Running => 5,
        }
    }

    pub(super) fn read(column: i16) -> Result<Self, PhaseTwoError> {
        let known = [
            Self::Tried,
            Self::Confirmed,
            Self::Cancelled,
            Self::Barred,
            Self::PreCommitted,
            Self::Running,
        ];
        known
            .into_iter()
            .find(|status| status.column() == column)
            .ok_or_else(|| {
                PhaseTwoError::stuck(format!(
                    "accede_fence has the status {column}, which this library does not know: \
                     update the service, then repair with retry"
                ))
            })
    }

    /// For people.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tried => "tried",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Barred => "cancelled before it was tried",
            Self::PreCommitted => "pre-committed",
            Self::Running => "under way",
        }
    }
}

/// A local transaction in the hands of the application, by which its database is known.
pub(crate) trait Kept: Sized + Send + 'static {
    /// Where its fences are.
    type Fences: Fences<Transaction = Self>;

    /// The database of this name among the agent's.
    fn fences(pools: &Pools, database: &str) -> Result<Self::Fences, Error>;
}

/// A branch that is being tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried<'a> {
    pub(crate) key: BranchKey,
    pub(crate) resource: &'a str,
    /// When it was registered.
    pub(crate) sent: Instant,
    /// How long after that the local commit may happen.
    pub(crate) give_up: Duration,
    /// Kept in the row, for later steps.
    pub(crate) payload: Option<&'a [u8]>,
}

/// A branch of 3PC that was promised, and neither committed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) key: BranchKey,
    pub(crate) is_pre_committed: bool,
    /// Since its last step, by the database's clock.
    pub(crate) age: Duration,
    /// What it was called with.
    pub(crate) payload: Vec<u8>,
}

impl Promise {
    /// Reads a row: XID, branch, status, age in milliseconds, payload.
    pub(super) fn read(
        (xid, branch, status, age_ms, payload): (i64, i32, i16, i64, Option<Vec<u8>>),
    ) -> Option<Self> {
        let xid = u64::try_from(xid)
            .ok()
            .and_then(accede_proto::Xid::from_u64)?;
        Some(Self {
            key: BranchKey {
                xid,
                branch: u32::try_from(branch).ok()?,
            },
            is_pre_committed: status == Status::PreCommitted.column(),
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()),
            payload: payload.unwrap_or_default(),
        })
    }
}

/// Why a try's commit did not succeed.
#[derive(Debug)]
pub(crate) struct NotCommitted {
    pub(crate) error: Error,
    /// The local transaction certainly rolled back.
    pub(crate) certain: bool,
}

/// A local transaction with its fence's row locked in it.
pub(crate) type Opened<T> = Result<(T, Status), PhaseTwoError>;

/// A database that keeps fences.
pub(crate) trait Fences: Watched + 'static {
    /// A local transaction, in the hands of the application.
    type Transaction: Send + 'static;

    /// Opens the local transaction of a try, whose waits for locks end with `patience`.
    fn begin(&self, patience: Duration) -> BoxFuture<'_, Result<Self::Transaction, Error>>;

    /// The same for a step of a saga, on a connection of those that are kept for steps.
    fn begin_step(&self, patience: Duration) -> BoxFuture<'_, Result<Self::Transaction, Error>>;

    /// The local transaction belongs to this branch.
    fn join(transaction: &mut Self::Transaction, key: BranchKey);

    /// The session that runs it, if known.
    fn backend(transaction: &Self::Transaction) -> Option<i64>;

    /// Writes the fence's row and commits, durably, unless the branch was barred or its time is
    /// over on the database's own clock.
    fn commit_tried<'t>(
        &'t self,
        transaction: &'t mut Self::Transaction,
        tried: Tried<'t>,
    ) -> BoxFuture<'t, Result<(), NotCommitted>>;

    /// Opens a local transaction of phase two and locks the branch's row in it, which is written
    /// as barred if it is not there. Never looks for a row that may be absent before it writes
    /// one: databases that lock the gap would let two of us wait for each other.
    fn open<'t>(
        &'t self,
        key: BranchKey,
        resource: &'t str,
    ) -> BoxFuture<'t, Opened<Self::Transaction>>;

    /// The same in the local transaction of a step, which began as such; the row is written as
    /// [`Status::Running`] if it is not there.
    fn claim<'t>(
        &'t self,
        transaction: &'t mut Self::Transaction,
        key: BranchKey,
        resource: &'t str,
    ) -> BoxFuture<'t, Result<Status, PhaseTwoError>>;

    /// What the branch's row, which this local transaction has locked, keeps.
    fn payload<'t>(
        &'t self,
        transaction: &'t mut Self::Transaction,
        key: BranchKey,
    ) -> BoxFuture<'t, Result<Option<Vec<u8>>, PhaseTwoError>>;

    /// Sets the status and what the row keeps, if they are others, and commits, durably.
    fn close<'t>(
        &'t self,
        transaction: &'t mut Self::Transaction,
        key: BranchKey,
        status: Option<Status>,
        payload: Option<&'t [u8]>,
    ) -> BoxFuture<'t, Result<(), PhaseTwoError>>;

    /// Branches of an action that are promised or pre-committed and were not touched for so long,
    /// the oldest first.
    fn promises<'t>(
        &'t self,
        resource: &'t str,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'t, Result<Vec<Promise>, PhaseTwoError>>;

    /// Rolls back; a connection on which that fails is closed.
    fn roll_back(transaction: &mut Self::Transaction) -> BoxFuture<'_, ()>;

    /// What the database said in a handler, as phase two takes it. Never stuck: only the handler
    /// knows what is definite.
    fn failure(error: &sqlx::Error) -> PhaseTwoError;
}

/// Bytes in a message, whatever they are.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            digits.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    digits
}

/// Nothing that a handler runs into is definite by itself.
pub(super) fn not_definite(error: PhaseTwoError, said: &sqlx::Error) -> PhaseTwoError {
    match error {
        PhaseTwoError::Stuck { .. } => PhaseTwoError::Failed {
            reason: said.to_string(),
        },
        other => other,
    }
}
