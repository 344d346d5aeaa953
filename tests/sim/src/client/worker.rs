//! The lease and the XIDs made under it, as the client library makes them.

use accede_core::{WorkerId, Xid};

use super::Client;
use crate::{oracle::News, outside::Outside};

/// Sequence numbers of one millisecond.
const MAX_SEQUENCE: u64 = (1 << 9) - 1;

/// A live or ended right to make XIDs.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) worker: WorkerId,
    floor_ms: u64,
    ceiling_ms: u64,
    ends_at: u64,
    /// The time part that belongs to the moment `base_at`.
    base_ms: u64,
    base_at: u64,
}

impl Client {
    /// A lease was granted or renewed; it was asked for at `sent`.
    pub(super) fn granted(&mut self, out: &mut Outside, lease: &accede_core::Lease, sent: u64) {
        let same = self
            .lease
            .as_ref()
            .filter(|held| held.worker == lease.worker);
        let (base_ms, base_at) = match same {
            Some(held) => (held.base_ms, held.base_at),
            None => {
                self.last = None;
                self.give_up_begins(out);
                (lease.floor_ms, sent)
            }
        };
        if let Some(through) = lease.begun_through {
            self.begins.retain(|begin| begin.xid > through);
        }
        self.lease = Some(Lease {
            worker: lease.worker,
            floor_ms: lease.floor_ms,
            ceiling_ms: lease.ceiling_ms,
            ends_at: sent + u64::from(lease.ttl_ms),
            base_ms,
            base_at,
        });
    }

    /// The coordinator says that the lease is over.
    pub(super) fn lease_over(&mut self, out: &mut Outside) {
        out.note(self.me().address, None, || {
            "hears that its lease is over".to_owned()
        });
        self.lease = None;
        self.last = None;
        self.give_up_begins(out);
    }

    /// The begins of a lease that is over cannot be logged any more.
    fn give_up_begins(&mut self, out: &mut Outside) {
        for begin in std::mem::take(&mut self.begins) {
            self.begin_refused(out, begin.xid);
        }
    }

    /// Makes the next XID, strictly increasing inside the leased range; `None` without a live
    /// lease.
    pub(super) fn make_xid(&mut self, out: &mut Outside) -> Option<Xid> {
        let lease = self
            .lease
            .as_ref()
            .filter(|lease| out.now < lease.ends_at)?;
        let clock = (lease.base_ms + out.now - lease.base_at).min(lease.ceiling_ms - 1);
        let least = clock.max(lease.floor_ms).max(1);
        let (time_ms, sequence) = match self.last {
            Some((time, sequence)) if time >= least && sequence < MAX_SEQUENCE => {
                (time, sequence + 1)
            }
            Some((time, _)) if time >= least => (time + 1, 0),
            _ => (least, 0),
        };
        if time_ms >= lease.ceiling_ms {
            return None;
        }
        self.last = Some((time_ms, sequence));
        let bits = (time_ms << 22) | (sequence << 13) | u64::from(lease.worker.0);
        let xid = Xid::new(bits)?;
        out.tell(&News::XidMade(xid));
        Some(xid)
    }
}
