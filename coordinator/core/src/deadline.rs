//! What happens by itself when time passes.

use alloc::collections::BTreeSet;

use crate::{
    id::{BranchId, Timestamp, WorkerId, Xid},
    row_lock::TicketId,
};

/// One thing that is due at some time. Each has exactly one place where it is armed and disarmed
/// with the record that says when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// An undecided transaction's deadline.
    Deadline(Xid),
    /// A commit has waited long enough for its branches.
    CommitWait(Xid),
    /// The next attempt to finish a branch.
    Attempt(Xid, BranchId),
    /// An attempt to do a step of a saga has had time enough to answer.
    StepAnswer(Xid, BranchId),
    /// A request has waited long enough for its locks.
    LockWait(TicketId),
    /// Requests have waited long enough for their transaction to begin.
    Parked(Xid),
    /// A worker's lease ends.
    Lease(WorkerId),
    /// Branches of 3PC had the time to hear of a commit.
    PreCommit(Xid),
}

/// All armed timers in order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadlines(BTreeSet<(Timestamp, Timer)>);

impl Deadlines {
    pub(crate) fn arm(&mut self, at: Timestamp, timer: Timer) {
        let fresh = self.0.insert((at, timer));
        debug_assert!(fresh, "{timer:?} is armed twice");
    }

    /// Arms a timer out of a snapshot; false if it is armed.
    #[must_use]
    pub(crate) fn restore(&mut self, at: Timestamp, timer: Timer) -> bool {
        self.0.insert((at, timer))
    }

    pub(crate) fn disarm(&mut self, at: Timestamp, timer: Timer) {
        let armed = self.0.remove(&(at, timer));
        debug_assert!(armed, "{timer:?} was not armed");
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        (self.0.first()?.0 <= now).then(|| self.0.pop_first().map(|(_, timer)| timer))?
    }
}
