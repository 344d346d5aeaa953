//! A branch's local commit is durable: from now on it counts.

use crate::{
    command::BranchDone,
    handle::Context,
    reply::{Rejection, Reply},
    status::{BranchEvent, BranchStatus, Status},
};
#[cfg(feature = "planted-bugs")]
use crate::{
    effect::{Action, Effect},
    id::Attempt,
    planted::{self, Bug},
};

impl Context<'_> {
    pub(crate) fn branch_done(&mut self, command: &BranchDone) -> Reply {
        match self.try_done(command) {
            // Late news of something that is over changes nothing.
            Ok(()) | Err(Rejection::Forgotten) => Reply::Ok,
            Err(rejection) => Reply::Refused(rejection),
        }
    }

    fn try_done(&mut self, command: &BranchDone) -> Result<(), Rejection> {
        #[cfg(feature = "planted-bugs")]
        let epoch = self.state.epoch;
        let transaction = self.known(command.xid)?;
        let active = transaction.status == Status::Active;
        if transaction.is_step(command.branch) {
            return Err(Rejection::BranchState(
                "it is a step of a saga: what came of its order tells how it went",
            ));
        }
        let branch = transaction
            .branch_mut(command.branch)
            .ok_or(Rejection::BranchUnknown)?;
        match branch.status {
            // It was prepared without an order: it would not wait any longer.
            BranchStatus::KeptOpen => {
                self.branch_is_prepared(command.xid, command.branch);
                Ok(())
            }
            BranchStatus::Registered => {
                branch.was_done = true;
                branch.turn(BranchEvent::Done);
                #[cfg(feature = "planted-bugs")]
                if branch.mode.is_pre_committed() && planted::is(Bug::PreCommitBeforeDecision) {
                    let branch = branch.clone();
                    let mut order = transaction.order(&branch, epoch);
                    (order.action, order.attempt) = (Action::PreCommit, Attempt(1));
                    self.effects.push(Effect::Order(order));
                }
                if active {
                    self.commit_if_complete(command.xid);
                }
                Ok(())
            }
            BranchStatus::Withdrawn => Err(Rejection::BranchState(
                "it was withdrawn, so its local transaction cannot have committed",
            )),
            // The rollback overtook this message; the next attempt shall know.
            BranchStatus::Finishing | BranchStatus::Stuck => {
                branch.was_done = true;
                Ok(())
            }
            BranchStatus::Done
            | BranchStatus::Finished
            | BranchStatus::Accepted
            | BranchStatus::Skipped
            | BranchStatus::PreCommitted => Ok(()),
        }
    }
}
