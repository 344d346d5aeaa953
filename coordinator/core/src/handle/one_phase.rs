//! A transaction's first branch of XA may be kept open: its statements are done, its local
//! transaction waits in its agent. If another branch joins, it is ordered to prepare, and its vote
//! is awaited by the commit alone. If none does, the commit is delegated: that branch commits in
//! one phase, and its answer is the decision.
//!
//! Delegated is logged before the order goes out, and nothing but the branch decides from then on:
//! neither deadline nor lease, no rollback and no operator. Whoever gets the order finds out in the
//! database how it ended, and makes it end if it has not.

use alloc::{boxed::Box, vec::Vec};

use super::{finish_branch::cut, size};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::{FinishBranch, Outcome, Problem},
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    id::{BranchId, Xid},
    mode::Mode,
    reply::{Decision, Rejection, Reply, RollBackReason, Waiter},
    status::{BranchEvent, BranchStatus, Event, Status},
    transaction::Branch,
};

impl Context<'_> {
    /// The local transaction of a branch that has just joined stays open.
    pub(super) fn keep_open(&mut self, xid: Xid, id: BranchId) {
        if let Some(branch) = self.indexed(xid).branch_mut(id) {
            branch.turn(BranchEvent::KeepOpen);
        }
    }

    /// Another branch has joined: the one that is kept open must be able to wait for it.
    pub(super) fn prepare_what_is_open(&mut self, xid: Xid) {
        let open = self.indexed(xid).branches.iter();
        let open = open.filter(|b| b.is_kept_open()).map(|b| b.id).next();
        if let Some(id) = open {
            self.order_as(xid, id, Action::Prepare);
            #[cfg(feature = "planted-bugs")]
            if planted::is(Bug::VoteNotAwaited) {
                self.branch_is_prepared(xid, id);
            }
        }
    }

    /// The branch that could decide this transaction, if there is nothing else to wait for.
    pub(super) fn may_decide_alone(&self, xid: Xid) -> Option<BranchId> {
        let transaction = self.state.transactions.get(xid)?;
        let waits = self.state.locks.tickets_of(xid).next().is_some();
        if waits || transaction.status != Status::Active || !transaction.plan_is_done() {
            return None;
        }
        transaction.only_kept_open()
    }

    /// From now on this branch decides.
    pub(super) fn delegate(&mut self, xid: Xid, id: BranchId) -> Reply {
        #[cfg(feature = "planted-bugs")]
        let deadline = self.indexed(xid).deadline;
        self.leave_active(xid);
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::DelegatedTimesOut) {
            self.state.deadlines.arm(deadline, Timer::Deadline(xid));
        }
        self.turn(xid, Event::Delegate);
        self.order_as(xid, id, Action::CommitOnePhase);
        Reply::Waiting(Waiter::Commit(xid))
    }

    /// What came of an order, if it is about a branch that was kept open and not decided before;
    /// `None` if it is about another.
    pub(super) fn news_of_kept_open(
        &mut self,
        command: &FinishBranch,
    ) -> Option<Result<(), Rejection>> {
        let (xid, id) = (command.xid, command.branch);
        let epoch = self.state.epoch;
        let transaction = self.indexed(xid);
        let delegated = transaction.status == Status::Delegated;
        let branch = transaction.branch_mut(id)?;
        let kept_open = branch.status == BranchStatus::KeptOpen;
        if !kept_open && !delegated {
            return late_vote(branch, &command.outcome);
        }
        if kept_open && !branch.is_preparing() {
            return Some(Err(Rejection::BranchState("it was not ordered to prepare")));
        }
        let current =
            branch.is_ordered() && branch.attempt == command.attempt && epoch == command.epoch;
        match &command.outcome {
            Outcome::Prepared if kept_open => self.branch_is_prepared(xid, id),
            Outcome::Finished if delegated => self.delegate_committed(xid, id),
            // As durable as a success, whichever attempt found it.
            Outcome::Refused(problem) if kept_open => self.vote_is_no(xid, id, problem),
            Outcome::Refused(problem) => self.delegate_refused(xid, id, &problem.reason),
            Outcome::Finished | Outcome::PreCommitted | Outcome::Ran(_) => {
                return Some(Err(Rejection::BranchState(
                    "it was ordered to prepare or to commit in one phase, and to nothing else",
                )));
            }
            // The order to commit in one phase finds it.
            Outcome::Prepared => {}
            _ if !current => {}
            // Its rollback shows whether that works.
            Outcome::Stuck(problem) if kept_open => {
                let reason = RollBackReason::BranchFailed(id, size::text(&problem.reason));
                self.decide_roll_back(xid, reason);
            }
            // There is nothing that a person could decide, so it is never stuck.
            Outcome::Stuck(problem) | Outcome::Failed(problem) => {
                self.try_to_end_again(xid, id, problem, 0);
            }
            Outcome::Later(problem, ms) => self.try_to_end_again(xid, id, problem, *ms),
            Outcome::Unavailable(problem) => self.database_is_down(xid, id, problem),
        }
        Some(Ok(()))
    }

    fn try_to_end_again(&mut self, xid: Xid, id: BranchId, problem: &Problem, after_ms: u32) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        let failures = branch.count_failure();
        self.try_again(xid, id, failures, problem, after_ms);
    }

    /// A branch that was kept open is prepared, because it was ordered to or could not wait.
    pub(super) fn branch_is_prepared(&mut self, xid: Xid, id: BranchId) {
        self.expect_no_vote(xid, id);
        if let Some(branch) = self.indexed(xid).branch_mut(id) {
            branch.was_done = true;
            branch.problem = None;
            branch.action = Action::Commit;
            branch.turn(BranchEvent::Done);
        }
        self.commit_if_complete(xid);
    }

    /// A branch that was kept open is rolled back: so is the transaction, whose application was
    /// told that the branch is done.
    fn vote_is_no(&mut self, xid: Xid, id: BranchId, problem: &Problem) {
        self.expect_no_vote(xid, id);
        if let Some(branch) = self.indexed(xid).branch_mut(id) {
            branch.problem = Some(Box::new(cut(problem)));
            branch.action = Action::RollBack;
            branch.turn(BranchEvent::Withdraw);
        }
        self.drop_payload(xid, id);
        self.release_branch(xid, id);
        let reason = RollBackReason::BranchFailed(id, size::text(&problem.reason));
        self.decide_roll_back(xid, reason);
    }

    /// The branch that was to decide has committed.
    fn delegate_committed(&mut self, xid: Xid, id: BranchId) {
        let reply = Reply::Decided(Decision::Commit, None);
        let event = Event::Decide(Decision::Commit);
        if let Some(branch) = self.indexed(xid).branch_mut(id) {
            branch.was_done = true;
        }
        self.effects.push(Effect::DropOrder { xid, branch: id });
        self.decided(xid, event, Decision::Commit, &reply);
        self.branch_is_finished(xid, id);
    }

    /// The branch that was to decide is rolled back, and will never commit.
    pub(super) fn delegate_refused(&mut self, xid: Xid, id: BranchId, why: &str) {
        self.effects.push(Effect::DropOrder { xid, branch: id });
        self.release_branch(xid, id);
        self.decide_roll_back(xid, RollBackReason::BranchFailed(id, size::text(why)));
        self.branch_is_finished(xid, id);
    }

    /// The transaction is decided to roll back: a branch that is preparing is told so instead.
    pub(super) fn stop_preparing(&mut self, xid: Xid) {
        let preparing = self.indexed(xid).branches.iter();
        let preparing: Vec<BranchId> = preparing
            .filter(|b| b.is_preparing())
            .map(|b| b.id)
            .collect();
        for id in preparing {
            self.expect_no_vote(xid, id);
            if let Some(branch) = self.indexed(xid).branch_mut(id) {
                branch.action = Action::RollBack;
            }
        }
    }

    /// No answer to an order to prepare is awaited any more, and none will be given again.
    pub(super) fn expect_no_vote(&mut self, xid: Xid, id: BranchId) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.failures = 0;
        branch.outages = 0;
        let (preparing, next) = (branch.is_preparing(), branch.next_attempt_at.take());
        if let Some(at) = next {
            self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
        }
        if preparing {
            self.effects.push(Effect::DropOrder { xid, branch: id });
        }
    }
}

/// The rollback overtook this vote, or it comes twice.
fn late_vote(branch: &mut Branch, outcome: &Outcome) -> Option<Result<(), Rejection>> {
    let voted = branch.mode == Mode::Xa && branch.status != BranchStatus::Registered;
    match outcome {
        Outcome::Prepared if !voted => {
            let why = "it was not ordered to prepare";
            return Some(Err(Rejection::BranchState(why)));
        }
        // The next attempt to roll it back shall know.
        Outcome::Prepared => branch.was_done = true,
        Outcome::Refused(_) if voted => {}
        _ => return None,
    }
    Some(Ok(()))
}
