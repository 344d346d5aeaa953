//! The one moment at which a transaction becomes committing or rolling back.

use alloc::{collections::BTreeSet, vec::Vec};

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    deadline::Timer,
    effect::Effect,
    handle::Context,
    id::{BranchId, Xid},
    reply::{Decision, Rejection, Reply, RollBackReason, Waiter},
    row_lock::TicketId,
    status::{BranchEvent, BranchStatus, Event, Status},
    transaction::Branch,
};

impl Context<'_> {
    /// Decides to commit: frees the row locks and orders every branch to finish.
    pub(super) fn decide_commit(&mut self, xid: Xid) -> Reply {
        let reply = Reply::Decided(Decision::Commit, None);
        let done = |branch: &&Branch| branch.status == BranchStatus::Done;
        let branches = self.indexed(xid).branches.iter().filter(done);
        let done: Vec<(BranchId, bool)> = branches
            .map(|branch| (branch.id, branch.mode.is_pre_committed()))
            .collect();
        if done.iter().any(|(_, pre_commits)| *pre_commits) {
            self.decided(xid, Event::DecidePreCommit, Decision::Commit, &reply);
            self.begin_pre_commit(xid);
        } else {
            self.decided(
                xid,
                Event::Decide(Decision::Commit),
                Decision::Commit,
                &reply,
            );
        }
        let mut freed = BTreeSet::new();
        for (id, pre_commits) in done {
            freed.extend(self.take_locks_of(xid, id));
            let is_step = self.indexed(xid).is_step(id);
            match pre_commits {
                true => self.order_pre_commit(xid, id),
                // It was done for good.
                false if is_step => self.close_branch(xid, id, BranchEvent::Finish),
                false => self.order(xid, id),
            }
        }
        self.serve(freed);
        self.end_if_over(xid);
        reply
    }

    /// Decides to roll back: undoes each resource's branches, the last one first.
    pub(super) fn decide_roll_back(&mut self, xid: Xid, reason: RollBackReason) -> Reply {
        let reply = Reply::Decided(Decision::RollBack, Some(reason.clone()));
        self.indexed(xid).reason = Some(reason);
        let event = Event::Decide(Decision::RollBack);
        self.decided(xid, event, Decision::RollBack, &reply);
        let queued: BTreeSet<TicketId> = self.state.locks.tickets_of(xid).collect();
        for ticket in queued {
            self.refuse_ticket(ticket, Rejection::AlreadyDecided(Decision::RollBack));
        }
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::LocksReleasedTooEarly) {
            for branch in &self.indexed(xid).branches.clone() {
                self.release_branch(xid, branch.id);
            }
        }
        for branch in &self.indexed(xid).branches.clone() {
            self.refuse_waiters_with_local_locks(xid, &branch.resource, &branch.locks);
        }
        self.go_on(xid);
        reply
    }

    pub(super) fn decided(&mut self, xid: Xid, event: Event, decision: Decision, reply: &Reply) {
        let transaction = self.indexed(xid);
        let asked = transaction.commit_asked();
        let active = transaction.status == Status::Active;
        #[cfg(feature = "planted-bugs")]
        let active = active || planted::is(Bug::DelegatedTimesOut);
        if active {
            self.leave_active(xid);
        }
        self.turn(xid, event);
        if asked {
            let waiter = Waiter::Commit(xid);
            self.effects.push(Effect::Answer {
                waiter,
                reply: reply.clone(),
            });
        }
        self.effects.push(Effect::Decided { xid, decision });
        self.end_plan(xid, reply);
        self.stop_preparing(xid);
    }

    /// From now on neither its deadline nor its worker's lease ends the transaction.
    pub(super) fn leave_active(&mut self, xid: Xid) {
        let transaction = self.indexed(xid);
        let (deadline, parent) = (transaction.deadline, transaction.parent);
        let commit_until = transaction.commit_until.take();
        self.state.deadlines.disarm(deadline, Timer::Deadline(xid));
        if let Some(until) = commit_until {
            self.state.deadlines.disarm(until, Timer::CommitWait(xid));
        }
        if let Some(worker) = self.state.workers.get_mut(&xid.worker()) {
            worker.undecided.remove(&xid);
        }
        if let Some(parent) = parent
            && let Some(nested) = self.state.nested.get_mut(&parent)
        {
            nested.remove(&xid);
            if nested.is_empty() {
                self.state.nested.remove(&parent);
            }
        }
    }

    /// The timer of a transaction's deadline went off: put it back, the decision disarms it.
    pub(super) fn deadline_fired(&mut self, xid: Xid) {
        let deadline = self.indexed(xid).deadline;
        self.state.deadlines.arm(deadline, Timer::Deadline(xid));
    }

    /// The same for a commit's wait.
    pub(super) fn commit_wait_fired(&mut self, xid: Xid) {
        if let Some(until) = self.indexed(xid).commit_until {
            self.state.deadlines.arm(until, Timer::CommitWait(xid));
        }
    }
}
