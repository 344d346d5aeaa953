//! Leasing a worker id: the right to make XIDs in a range that no one else ever had.

use alloc::sync::Arc;

use super::size;
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::LeaseWorker,
    deadline::Timer,
    handle::Context,
    id::WorkerId,
    limits::{LEASE_RANGE_MS, LEASE_TTL_MS},
    reply::{Lease, Rejection, Reply},
    worker::{Holder, Worker},
};

impl Context<'_> {
    pub(crate) fn lease_worker(&mut self, command: &LeaseWorker) -> Reply {
        match self.try_lease(command) {
            Ok(lease) => Reply::Leased(lease),
            Err(rejection) => Reply::Refused(rejection),
        }
    }

    fn try_lease(&mut self, command: &LeaseWorker) -> Result<Lease, Rejection> {
        size::name("a client's name", &command.name)?;
        match (
            self.state.leased.get(&command.process).copied(),
            command.worker,
        ) {
            // A repeat of the first request finds the lease that it made.
            (Some(worker), None) => Ok(self.renew(worker)),
            (Some(worker), Some(asked)) if worker == asked => Ok(self.renew(worker)),
            // It believes in a lease that has ended: its ids must not be taken up again.
            (_, Some(_)) => Err(Rejection::LeaseEnded),
            (None, None) => self.grant_lease(command),
        }
    }

    fn renew(&mut self, id: WorkerId) -> Lease {
        let until = self.state.now.plus(u64::from(LEASE_TTL_MS));
        let worker = self
            .state
            .workers
            .get_mut(&id)
            .expect("a lease names a known worker");
        let holder = worker.lease.as_mut().expect("a leased worker has a holder");
        self.state.deadlines.disarm(holder.until, Timer::Lease(id));
        let until_before = core::mem::replace(&mut holder.until, until);
        self.state.deadlines.arm(until, Timer::Lease(id));
        let reach = self.wall.since_xid_epoch() + LEASE_RANGE_MS;
        // Where the wall clock was set back, the range still grows as fast as time passes.
        worker.ceiling_ms = reach.max(worker.ceiling_ms + until.since(until_before));
        lease(id, worker)
    }

    fn grant_lease(&mut self, command: &LeaseWorker) -> Result<Lease, Rejection> {
        let id = match self.state.free_workers.pop_first() {
            Some(id) => id,
            None => u16::try_from(self.state.workers.len())
                .map(WorkerId)
                .ok()
                .filter(|id| *id <= WorkerId::MAX)
                .ok_or(Rejection::NoWorkerLeft)?,
        };
        let until = self.state.now.plus(u64::from(LEASE_TTL_MS));
        let worker = self.state.workers.entry(id).or_default();
        // Never below what an earlier holder could have used, whatever the clocks say.
        worker.floor_ms = worker.ceiling_ms.max(self.wall.since_xid_epoch()).max(1);
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::LeaseFollowsTheClock) {
            worker.floor_ms = self.wall.since_xid_epoch().max(1);
        }
        worker.ceiling_ms = worker.floor_ms + LEASE_RANGE_MS;
        worker.lease = Some(Holder {
            process: command.process,
            name: Arc::from(command.name.as_str()),
            until,
        });
        let lease = lease(id, worker);
        self.state.deadlines.arm(until, Timer::Lease(id));
        self.state.leased.insert(command.process, id);
        Ok(lease)
    }
}

fn lease(id: WorkerId, worker: &Worker) -> Lease {
    Lease {
        worker: id,
        floor_ms: worker.floor_ms,
        ceiling_ms: worker.ceiling_ms,
        ttl_ms: LEASE_TTL_MS,
        begun_through: worker.begun_through,
    }
}
