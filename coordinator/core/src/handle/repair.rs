//! An operator resolves what cannot finish by itself. Nothing reverses a decision.

use alloc::vec::Vec;

use super::size;
use crate::{
    command::{Repair, RepairVerb},
    deadline::Timer,
    effect::{Action, Effect},
    handle::Context,
    id::{BranchId, Xid},
    limits::MAX_REPAIRS,
    reply::{Decision, Rejection, Reply},
    status::{BranchEvent, BranchStatus},
    transaction::{Branch, RepairRecord},
};

impl Context<'_> {
    pub(crate) fn repair(&mut self, command: &Repair) -> Reply {
        let branches = match self.branches_to_repair(command) {
            Ok(branches) => branches,
            Err(rejection) => return Reply::Refused(rejection),
        };
        for id in &branches {
            self.record(command, *id);
            self.resolve(command.xid, *id, command.verb);
        }
        Reply::Repaired(branches)
    }

    fn branches_to_repair(&mut self, command: &Repair) -> Result<Vec<BranchId>, Rejection> {
        size::name("the name of who repairs", &command.by)?;
        if command.by.trim().is_empty() || command.reason.trim().is_empty() {
            return Err(Rejection::Malformed(
                "a repair must say who does it and why",
            ));
        }
        let transaction = self.known(command.xid)?;
        let repairable = |branch: &Branch| {
            // An attempt that only waits for its time can be brought forward.
            branch.status == BranchStatus::Stuck
                || (command.verb == RepairVerb::Retry && branch.next_attempt_at.is_some())
        };
        let branches: Vec<BranchId> = match command.branch {
            Some(id) => {
                let branch = transaction.branch(id).ok_or(Rejection::BranchUnknown)?;
                repairable(branch).then_some(id).into_iter().collect()
            }
            None => transaction
                .branches
                .iter()
                .filter(|b| repairable(b))
                .map(|b| b.id)
                .collect(),
        };
        if branches.is_empty() {
            return Err(Rejection::NotStuck);
        }
        let needs_rollback = matches!(command.verb, RepairVerb::Apply | RepairVerb::Accept);
        if needs_rollback && transaction.decision() == Some(Decision::Commit) {
            return Err(Rejection::BranchState(
                "it is committing, so there is nothing to undo: use retry or skip",
            ));
        }
        Ok(branches)
    }

    fn record(&mut self, command: &Repair, branch: BranchId) {
        let record = RepairRecord {
            branch,
            verb: command.verb,
            by: command.by.clone(),
            reason: size::text(&command.reason),
            wall: self.wall,
        };
        let repairs = &mut self.indexed(command.xid).repairs;
        if repairs.len() >= MAX_REPAIRS {
            repairs.remove(0);
        }
        repairs.push(record);
    }

    fn resolve(&mut self, xid: Xid, id: BranchId, verb: RepairVerb) {
        let Some(branch) = self.indexed(xid).branch_mut(id) else {
            return;
        };
        branch.failures = 0;
        branch.outages = 0;
        let decided = branch.action;
        if let Some(at) = branch.next_attempt_at.take() {
            self.state.deadlines.disarm(at, Timer::Attempt(xid, id));
        }
        let action = match verb {
            RepairVerb::Skip => {
                self.effects.push(Effect::DropOrder { xid, branch: id });
                return self.close_branch(xid, id, BranchEvent::Skip);
            }
            RepairVerb::Apply => Action::RollBackForced,
            RepairVerb::Accept => Action::Accept,
            RepairVerb::Retry
                if matches!(
                    decided,
                    Action::Commit
                        | Action::PreCommit
                        | Action::Run
                        | Action::Prepare
                        | Action::CommitOnePhase
                ) =>
            {
                decided
            }
            // Not what an operator wished before: that did not work.
            RepairVerb::Retry => Action::RollBack,
        };
        self.order_as(xid, id, action);
        self.unstick(xid);
    }
}
