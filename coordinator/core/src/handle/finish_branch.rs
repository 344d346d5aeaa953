//! What came of an order.

use alloc::boxed::Box;

use super::size;
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    backoff,
    command::{FinishBranch, Outcome, Problem},
    deadline::Timer,
    effect::Effect,
    handle::Context,
    id::{BranchId, Xid},
    limits::{MAX_PROBLEM_BYTES, MAX_RETRY_AFTER_MS, RETRY_BUDGET},
    reply::{Rejection, Reply},
    status::{BranchEvent, BranchStatus, Event},
};

impl Context<'_> {
    pub(crate) fn finish_branch(&mut self, command: &FinishBranch) -> Reply {
        match self.try_finish(command) {
            // Late news of something that is over changes nothing.
            Ok(()) | Err(Rejection::Forgotten) => Reply::Ok,
            Err(rejection) => Reply::Refused(rejection),
        }
    }

    fn try_finish(&mut self, command: &FinishBranch) -> Result<(), Rejection> {
        let (xid, id) = (command.xid, command.branch);
        let epoch = self.state.epoch;
        let transaction = self.known(xid)?;
        let branch = transaction.branch(id).ok_or(Rejection::BranchUnknown)?;
        if branch.status.is_over() {
            return Ok(());
        }
        if let Some(news) = self.news_of_kept_open(command) {
            return news;
        }
        if let Some(news) = self.news_of_step(command) {
            return news;
        }
        let transaction = self.indexed(xid);
        let branch = transaction.branch(id).ok_or(Rejection::BranchUnknown)?;
        if matches!(branch.status, BranchStatus::Registered | BranchStatus::Done) {
            return Err(Rejection::BranchState("it was never ordered to finish"));
        }
        // Failures of older attempts and former leaders' orders say nothing about the newest one.
        let current =
            branch.is_ordered() && branch.attempt == command.attempt && epoch == command.epoch;
        #[cfg(feature = "planted-bugs")]
        let current = current || (branch.is_ordered() && planted::is(Bug::LateOutcomeCounts));
        match &command.outcome {
            Outcome::Finished => {
                self.effects.push(Effect::DropOrder { xid, branch: id });
                self.branch_is_finished(xid, id);
            }
            Outcome::PreCommitted => self.branch_is_pre_committed(xid, id),
            Outcome::Failed(problem) if current => self.attempt_failed(xid, id, problem, 0),
            Outcome::Later(problem, ms) if current => self.attempt_failed(xid, id, problem, *ms),
            Outcome::Unavailable(problem) if current => self.database_is_down(xid, id, problem),
            Outcome::Stuck(problem) | Outcome::Refused(problem) if current => {
                self.attempt_is_stuck(xid, id, problem);
            }
            Outcome::Failed(_)
            | Outcome::Later(..)
            | Outcome::Unavailable(_)
            | Outcome::Stuck(_)
            // Of steps that are not done any more.
            | Outcome::Ran(_)
            // Of a branch that shall be finished by now.
            | Outcome::Prepared
            | Outcome::Refused(_) => {}
        }
        Ok(())
    }

    fn attempt_failed(&mut self, xid: Xid, id: BranchId, problem: &Problem, after_ms: u32) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        let failures = branch.count_failure();
        if failures >= RETRY_BUDGET {
            self.branch_is_stuck(xid, id, problem);
        } else {
            self.try_again(xid, id, failures, problem, after_ms);
        }
    }

    /// Counted apart: an outage is nobody's fault and ends by itself.
    pub(super) fn database_is_down(&mut self, xid: Xid, id: BranchId, problem: &Problem) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.outages = branch.outages.saturating_add(1);
        let outages = branch.outages;
        self.try_again(xid, id, outages, problem, 0);
    }

    /// The next attempt: when its time has come, and `after_ms` have passed.
    pub(super) fn try_again(
        &mut self,
        xid: Xid,
        id: BranchId,
        failures: u32,
        problem: &Problem,
        after_ms: u32,
    ) {
        let wished = u64::from(after_ms.min(MAX_RETRY_AFTER_MS));
        let delay = backoff::delay_ms(xid, id, failures).max(wished);
        let at = self.now().plus(delay);
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.problem = Some(Box::new(cut(problem)));
        branch.next_attempt_at = Some(at);
        self.state.deadlines.arm(at, Timer::Attempt(xid, id));
    }

    fn attempt_is_stuck(&mut self, xid: Xid, id: BranchId, problem: &Problem) {
        if self.pre_commit_failed_for_good(xid, id, problem) {
            return;
        }
        self.branch_is_stuck(xid, id, problem);
    }

    fn branch_is_stuck(&mut self, xid: Xid, id: BranchId, problem: &Problem) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.problem = Some(Box::new(cut(problem)));
        branch.turn(BranchEvent::GetStuck);
        // Whoever may still have to hear of the commit does so by the order to commit.
        self.end_pre_commit(xid);
        self.turn(xid, Event::GetStuck);
        self.effects.push(Effect::Stuck { xid, branch: id });
    }
}

pub(super) fn cut(problem: &Problem) -> Problem {
    Problem {
        reason: size::cut(&problem.reason, MAX_PROBLEM_BYTES),
        difference: size::cut(&problem.difference, MAX_PROBLEM_BYTES),
        repair_statement: size::cut(&problem.repair_statement, MAX_PROBLEM_BYTES),
    }
}
