//! The known transactions: found by XID at once, looked through in order.

use alloc::{boxed::Box, collections::BTreeSet};
use core::ops::Bound;

use crate::{hash::HashMap, id::Xid, transaction::Transaction};

/// Every transaction from its begin until it is forgotten.
///
/// Nearly every command looks one up several times, and with a million of them the path through a
/// tree costs more than all else a command does; the order is needed by snapshots and people only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    by_xid: HashMap<Xid, Box<Transaction>>,
    order: BTreeSet<Xid>,
}

impl Transactions {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn contains(&self, xid: Xid) -> bool {
        self.by_xid.contains_key(&xid)
    }

    pub(crate) fn get(&self, xid: Xid) -> Option<&Transaction> {
        self.by_xid.get(&xid).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, xid: Xid) -> Option<&mut Transaction> {
        self.by_xid.get_mut(&xid).map(Box::as_mut)
    }

    pub(crate) fn insert(&mut self, transaction: Transaction) {
        let xid = transaction.xid;
        self.order.insert(xid);
        self.by_xid.insert(xid, Box::new(transaction));
    }

    pub(crate) fn remove(&mut self, xid: Xid) -> Option<Box<Transaction>> {
        self.order.remove(&xid);
        self.by_xid.remove(&xid)
    }

    /// In ascending order, from the first above `after`.
    pub(crate) fn after(&self, after: Option<Xid>) -> impl Iterator<Item = &Transaction> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.order
            .range((from, Bound::Unbounded))
            .filter_map(|xid| self.get(*xid))
    }
}
