//! Asking for the decision to roll back.

use super::size;
use crate::{
    command::RollBack,
    handle::Context,
    reply::{Reply, RollBackReason, Waiter},
    status::Status,
};

impl Context<'_> {
    pub(crate) fn roll_back(&mut self, command: &RollBack) -> Reply {
        let transaction = match self.known(command.xid) {
            Ok(transaction) => transaction,
            Err(rejection) => return Reply::Refused(rejection),
        };
        if let Some(decision) = transaction.decision() {
            return Reply::Decided(decision, transaction.reason.clone());
        }
        if transaction.status == Status::Delegated {
            // It ends by itself, and is told like a commit that was asked for.
            return Reply::Waiting(Waiter::Commit(command.xid));
        }
        let reason = RollBackReason::Requested(size::text(&command.detail));
        self.decide_roll_back(command.xid, reason)
    }
}
