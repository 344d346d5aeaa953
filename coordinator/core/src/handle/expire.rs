//! Time has passed: what is due happens, in portions.

use crate::{
    deadline::Timer,
    handle::Context,
    id::{BranchId, Xid},
    limits::EXPIRE_BATCH,
    reply::{Reply, RollBackReason},
};

impl Context<'_> {
    pub(crate) fn expire(&mut self) -> Reply {
        let now = self.now();
        if now < self.state.grace_until {
            return Reply::Ok;
        }
        for _ in 0..EXPIRE_BATCH {
            let Some(timer) = self.state.deadlines.pop_due(now) else {
                if self.forget_if_due() {
                    continue;
                }
                return Reply::Ok;
            };
            match timer {
                Timer::Deadline(xid) => self.deadline_is_over(xid),
                Timer::CommitWait(xid) => self.commit_wait_is_over(xid),
                Timer::Attempt(xid, branch) => self.next_attempt(xid, branch),
                Timer::StepAnswer(xid, branch) => self.answer_is_late(xid, branch),
                Timer::LockWait(ticket) => self.lock_wait_is_over(ticket),
                Timer::Parked(xid) => self.parking_is_over(xid),
                Timer::Lease(worker) => self.lease_is_over(worker),
                Timer::PreCommit(xid) => self.pre_commit_wait_is_over(xid),
            }
        }
        match self.state.next_deadline() {
            Some(at) if at <= now => Reply::MoreIsDue,
            _ => Reply::Ok,
        }
    }

    fn deadline_is_over(&mut self, xid: Xid) {
        let transaction = self.indexed(xid);
        #[cfg(not(feature = "planted-bugs"))]
        assert_eq!(
            transaction.status,
            crate::status::Status::Active,
            "what is decided or delegated has no deadline"
        );
        let reason = if transaction.lease_ended {
            RollBackReason::LeaseEnded
        } else {
            RollBackReason::TimedOut
        };
        self.deadline_fired(xid);
        self.decide_roll_back(xid, reason);
    }

    fn next_attempt(&mut self, xid: Xid, id: BranchId) {
        let now = self.now();
        let until = self.indexed(xid).pre_commit_until;
        if until.is_some_and(|until| until <= now) {
            return self.end_pre_commit_by(xid, id);
        }
        let action = self.indexed(xid).branch(id).map(|b| b.action);
        if let Some(action) = action {
            self.order_as(xid, id, action);
        }
    }
}
