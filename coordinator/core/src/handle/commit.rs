//! Asking for the decision to commit.

use crate::{
    command::Commit,
    deadline::Timer,
    handle::Context,
    id::BranchId,
    id::Xid,
    limits::DONE_WAIT_MS,
    reply::{Reply, RollBackReason, Waiter},
    transaction::Transaction,
};
#[cfg(feature = "planted-bugs")]
use crate::{
    effect::Effect,
    planted::{self, Bug},
    reply::Decision,
    state::status_slot,
    status::Status,
};

impl Context<'_> {
    pub(crate) fn commit(&mut self, command: &Commit) -> Reply {
        let xid = command.xid;
        let transaction = match self.known(xid) {
            Ok(transaction) => transaction,
            Err(rejection) => return Reply::Refused(rejection),
        };
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::DecidedTwice)
            && transaction.reason == Some(RollBackReason::TimedOut)
            && transaction.status == Status::RollingBack
        {
            return self.decide_again(xid);
        }
        if let Some(decision) = transaction.decision() {
            return Reply::Decided(decision, transaction.reason.clone());
        }
        if transaction.commit_asked() {
            return Reply::Waiting(Waiter::Commit(xid));
        }
        if self.is_complete(xid) {
            return self.decide_commit(xid);
        }
        if let Some(branch) = self.may_decide_alone(xid) {
            return self.delegate(xid, branch);
        }
        let now = self.now();
        let transaction = self.indexed(xid);
        let until = match transaction.plan_is_done() && !transaction.awaits_vote() {
            // "Done" travels on another stream than this: give it time to arrive.
            true => now.plus(DONE_WAIT_MS),
            false => transaction.deadline,
        };
        transaction.commit_until = Some(until);
        self.state.deadlines.arm(until, Timer::CommitWait(xid));
        Reply::Waiting(Waiter::Commit(xid))
    }

    #[cfg(feature = "planted-bugs")]
    fn decide_again(&mut self, xid: Xid) -> Reply {
        let decision = Decision::Commit;
        self.indexed(xid).status = Status::Committing;
        self.state.by_status[status_slot(Status::RollingBack)] -= 1;
        self.state.by_status[status_slot(Status::Committing)] += 1;
        self.effects.push(Effect::Decided { xid, decision });
        Reply::Decided(decision, None)
    }

    /// Every branch is done or withdrawn, no register waits and no step is left to do.
    pub(super) fn is_complete(&self, xid: Xid) -> bool {
        let transaction = self.state.transactions.get(xid);
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::CommitWithoutDone) {
            return true;
        }
        transaction.is_some_and(|t| t.unfinished_branch().is_none() && t.plan_is_done())
            && self.state.locks.tickets_of(xid).next().is_none()
    }

    /// Decides a commit that waited for what has just happened.
    pub(super) fn commit_if_complete(&mut self, xid: Xid) {
        let transaction = self.state.transactions.get(xid);
        let wanted = |t: &Transaction| t.commit_asked() || t.commits_by_itself();
        let asked = transaction.is_some_and(|t| t.decision().is_none() && wanted(t));
        if asked && self.is_complete(xid) {
            self.decide_commit(xid);
        } else if asked && let Some(branch) = self.may_decide_alone(xid) {
            self.delegate(xid, branch);
        }
    }

    /// A commit has waited long enough; its timer is not armed any more.
    pub(super) fn commit_wait_is_over(&mut self, xid: Xid) {
        let unfinished = self.indexed(xid).unfinished_branch();
        // Without a registered branch it was a queued request that kept it from being complete.
        let next = BranchId(self.indexed(xid).branches.len() as u32 + 1);
        let reason = RollBackReason::BranchUnfinished(unfinished.unwrap_or(next));
        self.commit_wait_fired(xid);
        self.decide_roll_back(xid, reason);
    }
}
