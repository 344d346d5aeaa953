//! The effects: what must happen outside.

use accede_core::{BranchId, Decision, Effect, RollBackReason, Xid};

use super::Driver;

impl Driver {
    /// Carries one effect out; never waits. It may have been carried out before.
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Order(order) if order.step.as_ref().is_some_and(|step| step.callback) => {
                self.hub.callbacks.open(&self.hub, order);
            }
            Effect::Order(order) => self.hub.orders.open(order),
            Effect::DropOrder { xid, branch } => {
                self.hub.orders.drop_order(xid, branch);
                self.hub.callbacks.drop_order(xid, branch);
            }
            Effect::Answer { waiter, reply } => self.waiters.answer(waiter, &reply),
            Effect::Decided { xid, decision } => self.decided(xid, decision),
            Effect::Ended { xid, decision } => {
                tracing::debug!(%xid, ?decision, "transaction ended");
                if let Some(archive) = &self.hub.archive {
                    archive.ended(xid);
                }
            }
            Effect::StepOver { xid, branch, how } => {
                self.hub.metrics.step_over(how);
                tracing::debug!(%xid, branch = branch.0, how = how.as_str(), "an attempt at a step");
            }
            Effect::Stuck { xid, branch } => self.stuck(xid, branch),
        }
    }

    fn decided(&self, xid: Xid, decision: Decision) {
        match decision {
            Decision::Commit => {
                self.hub.metrics.decided(decision, None);
                tracing::debug!(%xid, "decided to commit");
            }
            Decision::RollBack => {
                let state = self.hub.state.read();
                let why = state
                    .transaction(xid)
                    .and_then(|transaction| transaction.reason());
                self.hub.metrics.decided(decision, why);
                if let Some(RollBackReason::Requested(_)) = why {
                    tracing::debug!(%xid, "decided to roll back, as asked");
                } else {
                    tracing::info!(%xid, ?why, "decided to roll back");
                }
            }
        }
    }

    fn stuck(&self, xid: Xid, branch: BranchId) {
        self.hub.metrics.stuck.increment(1);
        let state = self.hub.state.read();
        let branch_record = state
            .transaction(xid)
            .and_then(|transaction| transaction.branches().iter().find(|b| b.id() == branch));
        let resource = branch_record.map_or("", |branch| branch.resource());
        let reason = branch_record
            .and_then(|branch| branch.problem())
            .map_or("", |problem| problem.reason.as_str());
        tracing::warn!(
            %xid,
            branch = branch.0,
            resource,
            reason,
            "a branch is stuck and needs a person: see `accede tx why {xid}`"
        );
    }
}
