//! Looking up the transaction that a command names.

use crate::{
    handle::Context,
    id::Xid,
    reply::{Rejection, Whereabouts},
    state::status_slot,
    status::{BranchStatus, Event, Status},
    transaction::Transaction,
};

impl Context<'_> {
    /// The transaction, or exactly why there is none.
    pub(super) fn known(&mut self, xid: Xid) -> Result<&mut Transaction, Rejection> {
        match self.state.whereabouts(xid) {
            Whereabouts::Known => Ok(self.indexed(xid)),
            Whereabouts::NotBegun => Err(Rejection::NotBegun),
            Whereabouts::Forgotten => Err(Rejection::Forgotten),
        }
    }

    /// The transaction, which must exist because an index of the state names it.
    pub(super) fn indexed(&mut self, xid: Xid) -> &mut Transaction {
        self.state
            .transactions
            .get_mut(xid)
            .expect("an index of the state names only known transactions")
    }

    /// Changes a transaction's status and the counts with it.
    pub(super) fn turn(&mut self, xid: Xid, event: Event) -> Status {
        let transaction = self.indexed(xid);
        let before = transaction.status;
        transaction.turn(event);
        let after = transaction.status;
        self.state.by_status[status_slot(before)] -= 1;
        self.state.by_status[status_slot(after)] += 1;
        after
    }

    /// A stuck transaction none of whose branches is stuck any more goes on.
    pub(super) fn unstick(&mut self, xid: Xid) {
        let transaction = self.indexed(xid);
        let stuck = transaction
            .branches
            .iter()
            .any(|b| b.status == BranchStatus::Stuck);
        if matches!(transaction.status, Status::Stuck(_)) && !stuck {
            self.turn(xid, Event::Repaired);
        }
    }
}
