//! Makes transaction ids.

use accede_proto::{Xid, XidParts, v1};
use anyhow::Context as _;

/// Makes XIDs in order inside the lease.
pub(super) struct Ids {
    worker: u16,
    first: u64,
    next: u64,
    ceiling_ms: u64,
}

impl Ids {
    pub(super) fn new(lease: &v1::Lease) -> anyhow::Result<Self> {
        let first = lease.floor_ms.max(1) * (u64::from(XidParts::MAX_SEQUENCE) + 1);
        Ok(Self {
            worker: u16::try_from(lease.worker).context("the lease's worker id is too large")?,
            first,
            next: first,
            ceiling_ms: lease.ceiling_ms,
        })
    }

    /// The next id, as if the clock stood still: time moves on when a millisecond is full.
    pub(super) fn make(&mut self) -> Option<Xid> {
        let per_ms = u64::from(XidParts::MAX_SEQUENCE) + 1;
        let parts = XidParts {
            time_ms: self.next / per_ms,
            sequence: (self.next % per_ms) as u16,
            worker: self.worker,
        };
        self.next += 1;
        (parts.time_ms < self.ceiling_ms)
            .then(|| Xid::from_parts(parts))
            .flatten()
    }

    /// How many were made.
    pub(super) fn made(&self) -> u64 {
        self.next - self.first
    }

    /// The lease was renewed.
    pub(super) fn extend(&mut self, lease: &v1::Lease) {
        self.ceiling_ms = self.ceiling_ms.max(lease.ceiling_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_until_the_lease_has_no_more() {
        let mut lease = v1::Lease {
            worker: 3,
            floor_ms: 7,
            ceiling_ms: 9,
            ..v1::Lease::default()
        };
        let mut ids = Ids::new(&lease).unwrap();
        let made: Vec<Xid> = std::iter::from_fn(|| ids.make()).collect();
        assert_eq!(made.len(), 2 * 512);
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(made.iter().all(|xid| xid.parts().worker == 3));
        lease.ceiling_ms = 20;
        ids.extend(&lease);
        assert!(ids.make() > made.last().copied());
    }
}
