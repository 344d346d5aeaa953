//! Workers: the processes that make XIDs, and the ranges they may make them in.

use alloc::{collections::BTreeSet, sync::Arc};

use crate::id::{ProcessId, Timestamp, Xid};

/// What is known of a worker id, leased or not. Kept for good: the next holder must start above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Worker {
    /// The present lease's first usable time part.
    pub(crate) floor_ms: u64,
    /// The first time part that no lease has covered yet.
    pub(crate) ceiling_ms: u64,
    pub(crate) lease: Option<Holder>,
    /// The highest XID it has begun.
    pub(crate) begun_through: Option<Xid>,
    /// Its undecided transactions.
    pub(crate) undecided: BTreeSet<Xid>,
}

/// Who holds a worker id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) process: ProcessId,
    pub(crate) name: Arc<str>,
    pub(crate) until: Timestamp,
}
