//! Requests for row locks, and those of them that wait.

use crate::{
    command::{CheckLocks, RegisterBranch},
    id::{LockKey, RequestId, Resource, Timestamp, Xid},
    lock_mode::LockMode,
    mode::Place,
};

/// Names a waiting request; later requests have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TicketId(pub(crate) u64);

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The locks, for a branch.
    Register(RegisterBranch),
    /// Only to see that they are free.
    Check(CheckLocks),
}

impl Wanted {
    pub(crate) fn xid(&self) -> Xid {
        match self {
            Self::Register(r) => r.xid,
            Self::Check(c) => c.xid,
        }
    }
    pub(crate) fn request(&self) -> RequestId {
        match self {
            Self::Register(r) => r.request,
            Self::Check(c) => c.request,
        }
    }
    pub(crate) fn resource(&self) -> &Resource {
        match self {
            Self::Register(r) => &r.resource,
            Self::Check(c) => &c.resource,
        }
    }
    pub(crate) fn row_locks(&self) -> usize {
        match self {
            Self::Register(r) => r.locks.len(),
            Self::Check(c) => c.locks.len(),
        }
    }
    /// Its rows with the mode in which it wants each.
    pub(crate) fn locks(&self) -> impl Iterator<Item = (&LockKey, &LockMode)> {
        let (registered, checked) = match self {
            Self::Register(r) => (r.locks.as_slice(), &[][..]),
            Self::Check(c) => (&[][..], c.locks.as_slice()),
        };
        let mode = match self {
            Self::Check(c) if c.shared => &LockMode::Shared,
            Self::Check(_) | Self::Register(_) => &LockMode::Exclusive,
        };
        let registered = registered.iter().map(|lock| (&lock.key, &lock.mode));
        registered.chain(checked.iter().map(move |key| (key, mode)))
    }
    /// The mode in which it wants one of its rows.
    pub(crate) fn mode_of(&self, key: &LockKey) -> &LockMode {
        let mode = self.locks().find(|(wanted, _)| *wanted == key);
        mode.map_or(&LockMode::Exclusive, |(_, mode)| mode)
    }
    pub(crate) fn holds_local_locks(&self) -> bool {
        match self {
            Self::Register(r) => r.holds_local_locks,
            Self::Check(c) => c.holds_local_locks,
        }
    }
    /// Bytes of the branch's payload.
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self {
            Self::Register(r) => r.payload.len() as u64,
            Self::Check(_) => 0,
        }
    }
    /// What its resource must be.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Register(r) => r.mode.place(),
            Self::Check(_) => Place::Database,
        }
    }
    pub(crate) fn wait_limit_ms(&self) -> u32 {
        match self {
            Self::Register(r) => r.wait_limit_ms,
            Self::Check(c) => c.wait_limit_ms,
        }
    }
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) wanted: Wanted,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}
