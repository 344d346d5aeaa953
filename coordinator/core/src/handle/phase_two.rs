//! Finishing branches after the decision.

use alloc::{collections::BTreeSet, vec::Vec};

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    id::{Attempt, BranchId, Resource, Xid},
    mode::{Mode, Undoing},
    reply::Decision,
    row_lock::TicketId,
    saga::Saga,
    state::status_slot,
    status::{BranchEvent, BranchStatus, Event},
    transaction::Branch,
};

/// Branches that are undone one after the other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Line<'a> {
    On(&'a Resource),
    Of(Mode),
}

impl<'a> Line<'a> {
    /// Where a branch stands; `None` if it waits for no other.
    fn of(branch: &'a Branch) -> Option<Self> {
        match branch.mode.undoing() {
            Undoing::LastOfResourceFirst => Some(Self::On(&branch.resource)),
            Undoing::LastOfModeFirst => Some(Self::Of(branch.mode)),
            Undoing::AtOnce => None,
        }
    }
}

impl Context<'_> {
    /// Sends the first order for a branch, as the transaction was decided.
    pub(super) fn order(&mut self, xid: Xid, id: BranchId) {
        let transaction = self.indexed(xid);
        let action = match transaction
            .decision()
            .expect("only decided transactions are finished")
        {
            Decision::Commit => Action::Commit,
            Decision::RollBack => Action::RollBack,
        };
        #[cfg(feature = "planted-bugs")]
        let action = match transaction.branch(id) {
            Some(branch)
                if branch.mode == Mode::Tcc && planted::is(Bug::TryConfirmedInRollback) =>
            {
                Action::Commit
            }
            _ => action,
        };
        self.order_as(xid, id, action);
    }

    /// Sends an order for a new attempt with this action.
    pub(super) fn order_as(&mut self, xid: Xid, id: BranchId, action: Action) {
        let epoch = self.state.epoch;
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        let before_decision = matches!(action, Action::Run | Action::Prepare);
        if branch.status != BranchStatus::Finishing && !before_decision {
            branch.turn(BranchEvent::Order);
        }
        branch.action = action;
        let before = branch.attempt;
        branch.attempt = Attempt(before.0 + 1);
        #[cfg(feature = "planted-bugs")]
        if before.0 > 0 && planted::is(Bug::AttemptReused) {
            branch.attempt = before;
        }
        branch.next_attempt_at = None;
        if action == Action::Run {
            self.expect_answer(xid, id);
        }
        let transaction = self.indexed(xid);
        if let Some(branch) = transaction.branch(id) {
            let order = transaction.order(branch, epoch);
            self.effects.push(Effect::Order(order));
        }
    }

    /// Does what is next after a branch is over: in a rollback those are undone that wait for no
    /// other; a transaction without unfinished branches ends.
    pub(super) fn go_on(&mut self, xid: Xid) {
        let transaction = self.indexed(xid);
        if transaction.status.decision() == Some(Decision::RollBack) {
            let mut seen = BTreeSet::new();
            let mut next = Vec::new();
            #[cfg(feature = "planted-bugs")]
            let mut forgotten = Vec::new();
            let unfinished = transaction.branches.iter().filter(|b| !b.status.is_over());
            let last_first = unfinished.rev();
            #[cfg(feature = "planted-bugs")]
            let last_first = {
                let mut branches: Vec<_> = last_first.collect();
                let forward = branches.iter().any(|b| b.mode == Mode::Saga)
                    && planted::is(Bug::CompensatedInStartOrder);
                if planted::is(Bug::UndoneInWrongOrder) || forward {
                    branches.reverse();
                }
                branches
            };
            for branch in last_first {
                let first_in_line = Line::of(branch).is_none_or(|line| seen.insert(line));
                let waits = matches!(
                    branch.status,
                    BranchStatus::Registered | BranchStatus::KeptOpen | BranchStatus::Done
                );
                #[cfg(feature = "planted-bugs")]
                if waits && !branch.was_done && planted::forgets(branch.mode) {
                    forgotten.push(branch.id);
                    continue;
                }
                if first_in_line && waits {
                    next.push(branch.id);
                }
            }
            for id in next {
                self.order(xid, id);
            }
            #[cfg(feature = "planted-bugs")]
            for id in forgotten {
                if self
                    .indexed(xid)
                    .branch(id)
                    .is_some_and(|b| b.status.is_over())
                {
                    continue;
                }
                self.order(xid, id);
                self.effects.pop();
                self.branch_is_finished(xid, id);
            }
        }
        self.end_if_over(xid);
    }

    /// A branch is durably finished, by whatever attempt.
    pub(super) fn branch_is_finished(&mut self, xid: Xid, id: BranchId) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        let event = match (branch.status, branch.action) {
            (BranchStatus::Finishing, Action::Accept) => BranchEvent::Accept,
            _ => BranchEvent::Finish,
        };
        self.close_branch(xid, id, event);
    }

    /// Nothing is owed to a branch any more.
    pub(super) fn close_branch(&mut self, xid: Xid, id: BranchId, event: BranchEvent) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.turn(event);
        branch.problem = branch
            .problem
            .take()
            .filter(|_| event != BranchEvent::Finish);
        if let Some(at) = branch.next_attempt_at.take() {
            self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
        }
        self.drop_payload(xid, id);
        self.unstick(xid);
        self.release_branch(xid, id);
        self.commit_if_pre_committed(xid);
        self.go_on(xid);
    }

    /// No order will need it: ended transactions stay known for long.
    pub(super) fn drop_payload(&mut self, xid: Xid, id: BranchId) {
        if let Some(branch) = self.indexed(xid).branch_mut(id) {
            let payload = core::mem::take(&mut branch.payload);
            self.state.payload_bytes -= payload.len() as u64;
        }
    }

    /// Frees the row locks of one branch and serves those who wait.
    pub(super) fn release_branch(&mut self, xid: Xid, id: BranchId) {
        let heads = self.take_locks_of(xid, id);
        self.serve(heads);
    }

    pub(super) fn take_locks_of(&mut self, xid: Xid, id: BranchId) -> BTreeSet<TicketId> {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return BTreeSet::new();
        };
        let locks = core::mem::take(&mut branch.locks);
        let resource = branch.resource.clone();
        self.state.locks.release(xid, id, &resource, &locks)
    }

    pub(super) fn end_if_over(&mut self, xid: Xid) {
        let now = self.state.now;
        let transaction = self.indexed(xid);
        let over = transaction.branches.iter().all(|b| b.status.is_over());
        let Some(decision) = transaction.decision() else {
            return;
        };
        if !over || transaction.status.has_ended() {
            return;
        }
        transaction.ended_at = Some(now);
        self.turn(xid, Event::End);
        self.state.ended.insert((now, xid));
        self.effects.push(Effect::Ended { xid, decision });
        // Those that are too many for a new setting go in portions, as time passes.
        if self.state.too_many_ended() {
            self.forget_oldest();
        }
    }

    /// Drops the transaction that ended first if its retention is over or there are too many;
    /// false if there is none.
    pub(super) fn forget_if_due(&mut self) -> bool {
        let due = self
            .state
            .next_forgotten()
            .is_some_and(|at| at <= self.state.now);
        if due {
            self.forget_oldest();
        }
        due
    }

    fn forget_oldest(&mut self) {
        let oldest = self.state.ended.pop_first();
        if let Some(transaction) = oldest.and_then(|(_, xid)| self.state.transactions.remove(xid)) {
            self.state.by_status[status_slot(transaction.status)] -= 1;
            self.state.payload_bytes -= transaction.saga().map_or(0, Saga::payload_bytes);
        }
    }
}
