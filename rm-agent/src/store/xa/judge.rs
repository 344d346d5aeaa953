//! What a branch's row in `accede_fence` means for an order about what was prepared.

use super::{BARRED, COMMITTED};
use crate::store::finish::{BranchKey, PhaseTwoError, UndoPolicy};

/// There is no prepared transaction to commit. `status`: of the branch's row, if there is one.
///
/// # Errors
/// Stuck, unless the row says that it was committed.
pub(in crate::store) fn commit_without(
    key: BranchKey,
    name: &str,
    status: Option<i16>,
) -> Result<(), PhaseTwoError> {
    let BranchKey { xid, branch } = key;
    match status {
        Some(COMMITTED) => Ok(()),
        Some(other) => Err(PhaseTwoError::stuck(format!(
            "branch {branch} of transaction {xid} shall commit, but its row in accede_fence has \
             the status {other}: it was rolled back here before; redo its changes by hand, then \
             repair with skip"
        ))),
        None => Err(PhaseTwoError::stuck(format!(
            "branch {branch} of transaction {xid} shall commit, but there is neither a prepared \
             transaction {name} nor the row in accede_fence that it would have left: somebody \
             rolled it back by hand, or the database went back in time; redo its changes by hand, \
             then repair with skip"
        ))),
    }
}

/// There is no prepared transaction to roll back, and this is the status of the branch's row, which
/// was barred if there was none. `by_hand`: how somebody may have committed it.
///
/// # Errors
/// Stuck, unless the branch was barred or an operator says that it may stay.
pub(in crate::store) fn roll_back_without(
    key: BranchKey,
    status: i16,
    policy: UndoPolicy,
    by_hand: &str,
) -> Result<(), PhaseTwoError> {
    let BranchKey { xid, branch } = key;
    match status {
        BARRED => Ok(()),
        // There is nothing to undo it with.
        COMMITTED if policy == UndoPolicy::AcceptCurrent => Ok(()),
        COMMITTED => Err(PhaseTwoError::stuck(format!(
            "branch {branch} of transaction {xid} shall roll back, but was committed here: \
             somebody ran {by_hand} by hand; undo its changes by hand, then repair with accept"
        ))),
        other => Err(PhaseTwoError::stuck(format!(
            "accede_fence has the status {other} for branch {branch} of transaction {xid}, which \
             is none of XA: update the service, then repair with retry"
        ))),
    }
}
