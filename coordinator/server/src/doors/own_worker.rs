//! The daemon as a worker of its own: makes the XIDs of transactions that are begun by a unary
//! call.

use std::{pin::Pin, sync::Arc, time::Duration};

use accede_core::{
    Command, Lease, LeaseWorker, ProcessId, Reply, WallTime, Xid, limits::LEASE_TTL_MS,
};
use accede_proto::v1::{BeginRequest, Refusal};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::{clock, convert, hub::Hub, intake::Job, refusal, reply_to::ReplyTo, trouble::Trouble};

/// A lease is renewed when this part of its life has passed.
const RENEW_AFTER: Duration = Duration::from_millis(LEASE_TTL_MS as u64 / 3);
/// A lease is not used in the last part of its life: its begins must arrive before it ends.
const USABLE: Duration = Duration::from_millis(LEASE_TTL_MS as u64 * 2 / 3);

/// The lease and the last id made under it. The process number is new with each start: the lease
/// of a former start ends by itself.
pub(crate) struct OwnWorker {
    hub: Arc<Hub>,
    process: ProcessId,
    held: Mutex<Held>,
    /// One renewal at a time.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    lease: Option<(Lease, Instant)>,
    maker: Maker,
    kept_alive: bool,
}

impl OwnWorker {
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            hub,
            process: ProcessId(rand::random::<u64>() | 1),
            held: Mutex::default(),
            renewing: tokio::sync::Mutex::new(()),
        })
    }

    /// Begins a transaction and waits until that is logged.
    pub(crate) async fn begin(self: &Arc<Self>, wire: BeginRequest) -> Result<Xid, Box<Refusal>> {
        let (xid, answer) = match self.queue(&wire)? {
            Some(queued) => queued,
            None => {
                self.renew().await?;
                self.queue(&wire)?
                    .ok_or_else(|| Box::new(refusal::of_trouble(&Trouble::Overloaded)))?
            }
        };
        let answer = answer
            .await
            .unwrap_or_else(|_| Err(Trouble::Unknown("the daemon ended".to_owned())));
        match answer {
            Ok(Reply::Ok) => {
                self.hub.metrics.begun.increment(1);
                Ok(xid)
            }
            other => {
                let refusal = refusal::of_answer(other, Some(xid), None);
                self.hub.metrics.refused(refusal.code());
                Err(Box::new(refusal))
            }
        }
    }

    /// Makes an id and queues its begin in one step: begins stand in the order of their ids.
    /// `None`: a lease is needed first.
    fn queue(
        &self,
        wire: &BeginRequest,
    ) -> Result<Option<(Xid, oneshot::Receiver<crate::trouble::Answer>)>, Box<Refusal>> {
        let now = clock::now();
        let wall = clock::wall();
        let mut held = self.held.lock();
        let Some((lease, since)) = held.lease.clone() else {
            return Ok(None);
        };
        if now.duration_since(since) >= USABLE {
            return Ok(None);
        }
        let Some(xid) = held.maker.make(&lease, wall) else {
            return Ok(None);
        };
        let begin = convert::begin_parts(
            xid,
            wire.name.clone(),
            wire.timeout_ms,
            wire.parent,
            self.process,
        )?;
        let (once, answer) = oneshot::channel();
        let job = Job::Command(Command::Begin(begin), ReplyTo::Once(once));
        self.hub.intake.submit([job]);
        drop(held);
        Ok(Some((xid, answer)))
    }

    /// Takes a lease or renews it.
    async fn renew(self: &Arc<Self>) -> Result<(), Box<Refusal>> {
        let _one = self.renewing.lock().await;
        let asked = clock::now();
        let worker = {
            let held = self.held.lock();
            let live = |since: &Instant| asked.duration_since(*since) < Duration::from_millis(50);
            if held.lease.as_ref().is_some_and(|(_, since)| live(since)) {
                // Another call has just renewed it.
                return Ok(());
            }
            held.lease.as_ref().map(|(lease, _)| lease.worker)
        };
        let command = Command::LeaseWorker(LeaseWorker {
            process: self.process,
            name: format!("unary calls of {}", self.hub.config.name),
            worker,
        });
        let take = |reply| match reply {
            Reply::Leased(lease) => Ok(lease),
            other => Err(other),
        };
        let leased = self.hub.ask_for(command, (None, None), take).await;
        let mut held = self.held.lock();
        match leased {
            Ok(lease) => {
                held.lease = Some((lease, asked));
                if !std::mem::replace(&mut held.kept_alive, true) {
                    tokio::spawn(Arc::clone(self).keep_alive());
                }
                Ok(())
            }
            Err(refusal) => {
                if refusal.code() == accede_proto::v1::refusal::Code::LeaseEnded {
                    held.lease = None;
                }
                Err(refusal)
            }
        }
    }

    /// Renews from the first begin on: the end of the lease would roll back what is open.
    fn keep_alive(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    () = self.hub.end_sessions.cancelled() => return,
                    () = tokio::time::sleep(RENEW_AFTER) => {}
                }
                if let Err(refusal) = self.renew().await {
                    tracing::debug!(reason = %refusal.message, "the lease for unary calls was not renewed");
                }
            }
        })
    }
}

/// Makes ids under a lease, strictly increasing.
#[derive(Debug, Default)]
struct Maker {
    last: u64,
}

impl Maker {
    const WORKER_BITS: u32 = 13;
    const SEQUENCE_BITS: u32 = 9;

    /// `None` when the lease's range is used up.
    fn make(&mut self, lease: &Lease, wall: WallTime) -> Option<Xid> {
        let shift = Self::WORKER_BITS + Self::SEQUENCE_BITS;
        // The parts above the worker, counted as one number.
        let from_time = wall.since_xid_epoch().max(lease.floor_ms) << Self::SEQUENCE_BITS;
        let begun = lease.begun_through.map_or(0, Xid::get);
        let after = self.last.max(begun) >> Self::WORKER_BITS;
        let next = from_time.max(after + 1);
        if next >> Self::SEQUENCE_BITS >= lease.ceiling_ms {
            return None;
        }
        let bits = (next << Self::WORKER_BITS) | u64::from(lease.worker.0);
        debug_assert!(bits >> shift < lease.ceiling_ms);
        let xid = Xid::new(bits)?;
        self.last = bits;
        Some(xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accede_core::WorkerId;

    fn lease() -> Lease {
        Lease {
            worker: WorkerId(77),
            floor_ms: 1000,
            ceiling_ms: 1003,
            ttl_ms: LEASE_TTL_MS,
            begun_through: None,
        }
    }

    fn at(ms: u64) -> WallTime {
        WallTime(WallTime::XID_EPOCH.0 + ms)
    }

    #[test]
    fn ids_grow_inside_the_range_whatever_the_clock_says() {
        let mut maker = Maker::default();
        let mut last = 0;
        for wall in [at(0), at(1001), at(5), at(1001)] {
            let xid = maker.make(&lease(), wall).expect("in range");
            assert!(xid.get() > last);
            assert_eq!(xid.worker(), WorkerId(77));
            assert!((1000..1003).contains(&xid.time_ms()));
            last = xid.get();
        }
        assert_eq!(maker.make(&lease(), at(1003)), None);
    }

    #[test]
    fn a_range_can_be_used_up() {
        let mut maker = Maker::default();
        let made = std::iter::from_fn(|| maker.make(&lease(), at(0))).count();
        assert_eq!(made, 3 << Maker::SEQUENCE_BITS);
    }
}
