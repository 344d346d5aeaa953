//! Makes XIDs under a lease, without asking anybody. Pure: time comes in as data.

use std::time::Duration;

use accede_proto::{Xid, XidParts, v1};
use tokio::time::Instant;

/// What a lease allows, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseTerms {
    pub(crate) worker: u16,
    /// Time parts in `[floor_ms, ceiling_ms)` may be used.
    pub(crate) floor_ms: u64,
    pub(crate) ceiling_ms: u64,
    pub(crate) ttl: Duration,
}

impl LeaseTerms {
    /// Reads the wire form; a sentence for people if it makes no sense.
    pub(crate) fn from_wire(lease: &v1::Lease) -> Result<Self, String> {
        let worker = u16::try_from(lease.worker)
            .ok()
            .filter(|worker| *worker <= XidParts::MAX_WORKER)
            .ok_or_else(|| format!("the lease names worker {}, above 8191", lease.worker))?;
        let terms = Self {
            worker,
            floor_ms: lease.floor_ms,
            ceiling_ms: lease.ceiling_ms,
            ttl: Duration::from_millis(u64::from(lease.ttl_ms)),
        };
        if terms.floor_ms >= terms.ceiling_ms || terms.ceiling_ms > XidParts::MAX_TIME_MS + 1 {
            return Err(format!(
                "the lease's range [{}, {}) is empty or beyond 41 bits",
                terms.floor_ms, terms.ceiling_ms
            ));
        }
        if terms.ttl.is_zero() {
            return Err("the lease lives for no time at all".into());
        }
        Ok(terms)
    }
}

/// Why no XID can be made now. A live lease cures each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoXid {
    /// The coordinator has not granted a lease yet.
    #[error("the coordinator has granted no lease yet")]
    NoLease,
    /// The lease ran out before it was renewed.
    #[error("the lease ended without a renewal")]
    LeaseEnded,
    /// More transactions were begun than the lease's range has ids.
    #[error("all ids of the lease are used")]
    RangeUsedUp,
}

/// Makes strictly increasing ids inside the leased range.
///
/// Time only spreads the ids over the range: a clock that stands still, jumps
/// or runs wild cannot make one twice, because every id is above the last one
/// and below the ceiling, and no other holder of the worker number gets the range.
#[derive(Debug, Default)]
pub(crate) struct XidMaker {
    lease: Option<Lease>,
    /// Time part and sequence of the newest id of this worker.
    last: Option<(u64, u16)>,
}

#[derive(Debug)]
struct Lease {
    terms: LeaseTerms,
    ends: Instant,
    /// The time part that belongs to `base_at`.
    base_ms: u64,
    base_at: Instant,
}

impl XidMaker {
    /// A lease was granted or renewed; the request for it was sent at `sent`.
    pub(crate) fn grant(&mut self, terms: LeaseTerms, sent: Instant) {
        let (base_ms, base_at) = match &self.lease {
            Some(lease) if lease.terms.worker == terms.worker => (lease.base_ms, lease.base_at),
            _ => {
                self.last = None;
                (terms.floor_ms, sent)
            }
        };
        self.lease = Some(Lease {
            terms,
            // Beyond the clock's range: it lives as short as it can.
            ends: sent.checked_add(terms.ttl).unwrap_or(sent),
            base_ms,
            base_at,
        });
    }

    /// The coordinator says that the lease is over.
    pub(crate) fn end(&mut self) {
        self.lease = None;
        self.last = None;
    }

    /// The worker number held, also after the lease ran out here: the coordinator
    /// may still know it.
    pub(crate) fn worker(&self) -> Option<u16> {
        self.lease.as_ref().map(|lease| lease.terms.worker)
    }

    /// When the lease ends, and when it is time to renew it.
    pub(crate) fn times(&self, renew_after_part: u32) -> Option<(Instant, Instant)> {
        let lease = self.lease.as_ref()?;
        let rest = lease.terms.ttl - lease.terms.ttl / renew_after_part;
        Some((lease.ends, lease.ends - rest))
    }

    /// Makes the next id.
    pub(crate) fn make(&mut self, now: Instant) -> Result<Xid, NoXid> {
        let lease = self.lease.as_ref().ok_or(NoXid::NoLease)?;
        if now >= lease.ends {
            return Err(NoXid::LeaseEnded);
        }
        let elapsed = now.saturating_duration_since(lease.base_at).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        // A clock that runs faster than the lease grows must not use it up.
        let clock = lease
            .base_ms
            .saturating_add(elapsed)
            .min(lease.terms.ceiling_ms - 1);
        // Time part zero is left out: with worker 0 it would hold the id zero, which is none.
        let least = clock.max(lease.terms.floor_ms).max(1);
        let (time_ms, sequence) = match self.last {
            Some((time, sequence)) if time >= least && sequence < XidParts::MAX_SEQUENCE => {
                (time, sequence + 1)
            }
            // The millisecond is full: the next one is borrowed.
            Some((time, _)) if time >= least => (time + 1, 0),
            _ => (least, 0),
        };
        if time_ms >= lease.terms.ceiling_ms {
            return Err(NoXid::RangeUsedUp);
        }
        let parts = XidParts {
            time_ms,
            sequence,
            worker: lease.terms.worker,
        };
        let xid = Xid::from_parts(parts).ok_or(NoXid::RangeUsedUp)?;
        self.last = Some((time_ms, sequence));
        Ok(xid)
    }
}

#[cfg(test)]
#[path = "xid_maker_tests.rs"]
mod tests;
