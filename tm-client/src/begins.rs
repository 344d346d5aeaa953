//! The begins that were announced and may have to be sent again.

use std::collections::VecDeque;

use accede_proto::{Xid, v1};

use crate::limits::MAX_UNLOGGED_BEGINS;

/// Announced begins that the coordinator has not called logged, in the order of
/// their XIDs, which is the order in which they were and are sent.
#[derive(Debug, Default)]
pub(crate) struct Begins {
    unlogged: VecDeque<v1::Begin>,
}

impl Begins {
    pub(crate) fn is_full(&self) -> bool {
        self.unlogged.len() >= MAX_UNLOGGED_BEGINS
    }

    /// Keeps a begin. Its XID is above all earlier ones of this worker.
    pub(crate) fn keep(&mut self, begin: v1::Begin) {
        self.unlogged.push_back(begin);
    }

    /// The coordinator has logged all begins up to this XID.
    pub(crate) fn logged_through(&mut self, xid: u64) {
        while self.unlogged.front().is_some_and(|begin| begin.xid <= xid) {
            self.unlogged.pop_front();
        }
    }

    /// The coordinator refused this one.
    pub(crate) fn refused(&mut self, xid: Xid) {
        let found = self
            .unlogged
            .binary_search_by_key(&xid.as_u64(), |begin| begin.xid);
        if let Ok(at) = found {
            self.unlogged.remove(at);
        }
    }

    /// What to send again, in order.
    pub(crate) fn unlogged(&self) -> impl Iterator<Item = &v1::Begin> {
        self.unlogged.iter()
    }

    /// Takes all out: their worker's lease is over.
    pub(crate) fn take_all(&mut self) -> VecDeque<v1::Begin> {
        std::mem::take(&mut self.unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(xids: &[u64]) -> Begins {
        let mut begins = Begins::default();
        for xid in xids {
            begins.keep(v1::Begin {
                xid: *xid,
                ..v1::Begin::default()
            });
        }
        begins
    }

    fn left(begins: &Begins) -> Vec<u64> {
        begins.unlogged().map(|begin| begin.xid).collect()
    }

    #[test]
    fn logged_and_refused_ones_are_forgotten() {
        let mut begins = kept(&[3, 5, 8, 9]);
        begins.logged_through(4);
        assert_eq!(left(&begins), [5, 8, 9]);
        begins.refused(Xid::from_u64(8).expect("an id"));
        begins.refused(Xid::from_u64(7).expect("an id"));
        assert_eq!(left(&begins), [5, 9]);
        begins.logged_through(9);
        assert_eq!(left(&begins), [0_u64; 0]);
        begins.logged_through(u64::MAX);
    }

    #[test]
    fn there_is_a_bound() {
        let all: Vec<u64> = (1..=MAX_UNLOGGED_BEGINS as u64).collect();
        let mut begins = kept(&all[1..]);
        assert!(!begins.is_full());
        begins.keep(v1::Begin {
            xid: u64::MAX >> 1,
            ..v1::Begin::default()
        });
        assert!(begins.is_full());
        assert_eq!(begins.take_all().len(), MAX_UNLOGGED_BEGINS);
        assert!(!begins.is_full());
    }
}
