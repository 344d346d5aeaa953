//! What the agent needs of a participant's database to finish branches.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::orders::Ended;

pub(super) use crate::store::finish::{
    BranchKey, Ledger, Leftover, LeftoverKind, Meta, PhaseTwoError, PreparedOnes, UndoPolicy,
};

/// A participant's database, as phase two and the sweeper use it. All methods
/// may be repeated.
pub(super) trait Database: Send + Sync + 'static {
    /// Checks that the database can be reached and is prepared for this library,
    /// and reads who it is.
    fn check(&self) -> BoxFuture<'_, Result<Meta, CheckError>>;

    /// Ties the database to a cluster; a no-op when it is tied to that one already.
    fn claim(&self, cluster: [u8; 16]) -> BoxFuture<'_, Result<(), CheckError>>;

    /// Durably deletes the undo records of committed branches.
    fn delete_undo<'a>(
        &'a self,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>>;

    /// Durably undoes one branch.
    fn roll_back(
        &self,
        branch: BranchKey,
        was_done: bool,
        policy: UndoPolicy,
    ) -> BoxFuture<'_, Result<(), PhaseTwoError>>;

    /// Durably undoes those of these branches that need neither patience nor explanations, in one
    /// local transaction, and says which. The others are [rolled back](Self::roll_back) one by
    /// one, as are all of them after an error.
    fn roll_back_together<'a>(
        &'a self,
        _: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<Vec<BranchKey>, PhaseTwoError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Checks that the database can keep fences.
    fn check_fences(&self) -> BoxFuture<'_, Result<(), CheckError>>;

    /// Rows of a ledger at least `older_than` old, in the order of their keys,
    /// beginning after `after`, at most `limit`.
    fn leftovers(
        &self,
        ledger: Ledger,
        older_than: Duration,
        after: Option<BranchKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, PhaseTwoError>>;

    /// Deletes markers of branches whose transactions have ended.
    fn purge_markers<'a>(
        &'a self,
        ledger: Ledger,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>>;

    /// Durably commits the prepared transaction of an XA branch, which was registered with this
    /// payload.
    fn commit_prepared<'a>(
        &'a self,
        _: BranchKey,
        _payload: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        no_xa()
    }

    /// Durably rolls the prepared transaction of an XA branch back, or bars it from being
    /// prepared.
    fn roll_back_prepared<'a>(
        &'a self,
        _: BranchKey,
        _payload: &'a [u8],
        _: UndoPolicy,
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        no_xa()
    }

    /// Prepares an XA branch that was kept open, or bars it where it is gone. Durable, as a refusal
    /// is.
    fn prepare_open<'a>(
        &'a self,
        _: BranchKey,
        _payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        none_open()
    }

    /// Commits an XA branch that was kept open in one phase, or bars it where it is gone. Durable,
    /// as a refusal is.
    fn commit_open<'a>(
        &'a self,
        _: BranchKey,
        _payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        none_open()
    }

    /// What there is of prepared transactions: at most `limit` of ours that are older than
    /// `older_than`.
    fn prepared(
        &self,
        _older_than: Duration,
        _limit: usize,
    ) -> BoxFuture<'_, Result<PreparedOnes, PhaseTwoError>> {
        Box::pin(async { Ok(PreparedOnes::default()) })
    }
}

fn none_open<'a>() -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
    Box::pin(async {
        Err(PhaseTwoError::Failed {
            reason: "this agent keeps no branches open in this kind of database; update the agent"
                .to_owned(),
        })
    })
}

fn no_xa<'a>() -> BoxFuture<'a, Result<(), PhaseTwoError>> {
    Box::pin(async {
        Err(PhaseTwoError::Failed {
            reason: "this agent has no XA for this kind of database; update the agent".to_owned(),
        })
    })
}

/// Why a database cannot be used now.
#[derive(Debug)]
pub(super) enum CheckError {
    /// It cannot be reached; it may come back by itself.
    Unavailable(String),
    /// It is there but not prepared, or belongs elsewhere: a person must act.
    Wrong(crate::Error),
}

/// What the database said for itself may pass; what this library found wrong
/// with it needs a person.
pub(super) fn sort(error: crate::Error) -> CheckError {
    match error {
        crate::Error::Database { .. } => CheckError::Unavailable(error.to_string()),
        other => CheckError::Wrong(other),
    }
}
