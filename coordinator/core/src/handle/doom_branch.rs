//! An agent cannot tell whether its local commit happened: only a rollback is safe, which undoes
//! what is there and bars what might still come.

use super::size;
use crate::{
    command::DoomBranch,
    handle::Context,
    reply::{Decision, Rejection, Reply, RollBackReason, Whereabouts},
    status::{BranchStatus, Status},
};

impl Context<'_> {
    pub(crate) fn doom_branch(&mut self, command: &DoomBranch) -> Reply {
        if self.state.whereabouts(command.xid) == Whereabouts::Forgotten {
            return Reply::Ok;
        }
        let transaction = match self.known(command.xid) {
            Ok(transaction) => transaction,
            Err(rejection) => return Reply::Refused(rejection),
        };
        let Some(branch) = transaction.branch(command.branch) else {
            return Reply::Refused(Rejection::BranchUnknown);
        };
        match transaction.decision() {
            // A commit is decided only when the branch reported its local commit: it is known now.
            Some(Decision::Commit) if !branch.was_done => {
                Reply::Refused(Rejection::AlreadyDecided(Decision::Commit))
            }
            Some(_) => Reply::Ok,
            // Its order's answer, from whoever gets it, tells.
            None if transaction.status == Status::Delegated => Reply::Ok,
            None => {
                let detail = size::text(&command.detail);
                let reason = match branch.status {
                    BranchStatus::KeptOpen => RollBackReason::BranchFailed(command.branch, detail),
                    _ => RollBackReason::LocalCommitUnknown(command.branch, detail),
                };
                self.decide_roll_back(command.xid, reason);
                Reply::Ok
            }
        }
    }
}
