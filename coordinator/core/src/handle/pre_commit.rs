//! Between the decision to commit and the orders to commit, branches of 3PC hear of the decision.
//!
//! Nothing hangs on it: the commit is decided, logged and irrevocable before. Whoever has heard of
//! it needs nobody any more. So one that is away holds up the others for a while only, and one that
//! says it cannot is simply ordered to commit.

use alloc::{boxed::Box, vec::Vec};

use super::finish_branch::cut;
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::Problem,
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    id::{BranchId, Xid},
    limits::PRE_COMMIT_WAIT_MS,
    status::{BranchEvent, BranchStatus, Event, Status},
    transaction::Branch,
};

impl Context<'_> {
    /// The transaction has just become pre-committed.
    pub(super) fn begin_pre_commit(&mut self, xid: Xid) {
        let until = self.now().plus(PRE_COMMIT_WAIT_MS);
        self.indexed(xid).pre_commit_until = Some(until);
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::PreCommitWaitsForEver) {
            return;
        }
        self.state.deadlines.arm(until, Timer::PreCommit(xid));
    }

    /// Tells one branch that the commit is decided.
    pub(super) fn order_pre_commit(&mut self, xid: Xid, id: BranchId) {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::PreCommitSkipped) {
            return self.order_as(xid, id, Action::Commit);
        }
        self.order_as(xid, id, Action::PreCommit);
    }

    /// A branch has heard of the commit; true of any attempt, whoever ordered it.
    pub(super) fn branch_is_pre_committed(&mut self, xid: Xid, id: BranchId) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        // Late: it was ordered to commit meanwhile.
        if !must_hear(branch) {
            return;
        }
        branch.turn(BranchEvent::PreCommit);
        branch.problem = None;
        branch.failures = 0;
        branch.outages = 0;
        if let Some(at) = branch.next_attempt_at.take() {
            self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
        }
        self.effects.push(Effect::DropOrder { xid, branch: id });
        self.commit_if_pre_committed(xid);
    }

    /// An attempt to pre-commit says that it will never work: the orders to commit go out, and
    /// show whether that works. False if the attempt was for something else.
    pub(super) fn pre_commit_failed_for_good(
        &mut self,
        xid: Xid,
        id: BranchId,
        problem: &Problem,
    ) -> bool {
        match self.indexed(xid).branch_mut(id) {
            Some(branch) if must_hear(branch) => branch.problem = Some(Box::new(cut(problem))),
            _ => return false,
        }
        self.end_pre_commit(xid);
        true
    }

    /// Goes on to the orders to commit once nobody must hear of the commit any more.
    pub(super) fn commit_if_pre_committed(&mut self, xid: Xid) {
        let transaction = self.indexed(xid);
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::PreCommitNotAwaited) {
            return self.end_pre_commit(xid);
        }
        if !transaction.branches.iter().any(must_hear) {
            self.end_pre_commit(xid);
        }
    }

    /// Those who have not answered had their time; their timer is not armed any more.
    pub(super) fn pre_commit_wait_is_over(&mut self, xid: Xid) {
        if let Some(until) = self.indexed(xid).pre_commit_until {
            self.state.deadlines.arm(until, Timer::PreCommit(xid));
        }
        self.end_pre_commit(xid);
    }

    /// The same, noticed by an attempt of this branch that is due, whose timer is not armed any
    /// more: it is made as an attempt of what comes next.
    pub(super) fn end_pre_commit_by(&mut self, xid: Xid, id: BranchId) {
        let action = self.indexed(xid).branch_mut(id).map(|branch| {
            branch.next_attempt_at = None;
            branch.action
        });
        self.end_pre_commit(xid);
        match action {
            Some(Action::PreCommit) | None => {}
            Some(other) => self.order_as(xid, id, other),
        }
    }

    /// Orders every branch of 3PC to commit, if the transaction is pre-committed.
    pub(super) fn end_pre_commit(&mut self, xid: Xid) {
        let transaction = self.indexed(xid);
        if transaction.status != Status::PreCommitted {
            return;
        }
        let until = transaction.pre_commit_until.take();
        let owed = |branch: &&Branch| {
            branch.mode.is_pre_committed() && !branch.status.is_over() && branch.was_done
        };
        let owed: Vec<BranchId> = transaction
            .branches
            .iter()
            .filter(owed)
            .map(|b| b.id)
            .collect();
        self.turn(xid, Event::PreCommitIsOver);
        if let Some(until) = until {
            #[cfg(feature = "planted-bugs")]
            if planted::is(Bug::PreCommitWaitsForEver) {
                self.state.deadlines.arm(until, Timer::PreCommit(xid));
            }
            self.state.deadlines.disarm(until, Timer::PreCommit(xid));
        }
        for id in owed {
            let Some(branch) = self.indexed(xid).branch_mut(id) else {
                continue;
            };
            branch.failures = 0;
            branch.outages = 0;
            if let Some(at) = branch.next_attempt_at.take() {
                self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
            }
            self.order_as(xid, id, Action::Commit);
        }
    }
}

/// An order to pre-commit is out, or owed.
fn must_hear(branch: &Branch) -> bool {
    branch.status == BranchStatus::Finishing && branch.action == Action::PreCommit
}
