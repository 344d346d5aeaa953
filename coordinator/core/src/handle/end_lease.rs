//! The end of a lease: nobody is left to decide the worker's transactions, so they roll back.

use crate::{
    command::EndLease,
    deadline::Timer,
    handle::Context,
    id::WorkerId,
    reply::{Rejection, Reply},
};

impl Context<'_> {
    pub(crate) fn end_lease(&mut self, command: &EndLease) -> Reply {
        if self.state.leased.get(&command.process) != Some(&command.worker) {
            return Reply::Refused(Rejection::LeaseEnded);
        }
        let worker = self.state.workers.get(&command.worker);
        let holder = worker
            .and_then(|w| w.lease.as_ref())
            .expect("a leased worker has a holder");
        self.state
            .deadlines
            .disarm(holder.until, Timer::Lease(command.worker));
        self.lease_is_over(command.worker);
        Reply::Ok
    }

    /// The timer of the lease is not armed any more.
    pub(super) fn lease_is_over(&mut self, id: WorkerId) {
        let worker = self
            .state
            .workers
            .get_mut(&id)
            .expect("a lease names a known worker");
        let holder = worker.lease.take().expect("a leased worker has a holder");
        let undecided = worker.undecided.clone();
        self.state.leased.remove(&holder.process);
        self.state.free_workers.insert(id);
        // There may be very many: each becomes due now, and `Expire` takes them in portions.
        let now = self.state.now;
        for xid in undecided {
            let transaction = self.indexed(xid);
            // Its plan lies here: only its own deadline ends it.
            if transaction.commits_by_itself() {
                continue;
            }
            let deadline = core::mem::replace(&mut transaction.deadline, now);
            transaction.lease_ended = true;
            self.state.deadlines.disarm(deadline, Timer::Deadline(xid));
            self.state.deadlines.arm(now, Timer::Deadline(xid));
        }
    }
}
