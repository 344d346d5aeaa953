//! The names of things, each its own type.

use alloc::sync::Arc;
use core::{fmt, num::NonZeroU64};

/// A global transaction's id: `0 | 41 bits ms since 2026-01-01 | 9 bits sequence | 13 bits worker`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(NonZeroU64);

impl Xid {
    /// Bits below the time part.
    const TIME_SHIFT: u32 = 22;
    /// The smallest.
    pub(crate) const MIN: Self = Self(NonZeroU64::MIN);

    /// Reads the 64-bit form; `None` for zero and for a set top bit.
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        if bits >> 63 != 0 {
            return None;
        }
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// Stands for a local transaction outside of any global one while it asks about row locks.
    /// Its top bit is set, so no transaction has it; the same request always gets the same.
    #[must_use]
    pub const fn outside(request: RequestId) -> Self {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        const TOP_BIT: NonZeroU64 = NonZeroU64::MIN.saturating_add((1 << 63) - 1);
        let request = request.sequence.wrapping_mul(ODD) ^ request.process.0;
        Self(TOP_BIT.saturating_add(request & !TOP_BIT.get()))
    }

    /// Whether it stands for a local transaction outside of any global one.
    #[must_use]
    pub const fn is_outside(self) -> bool {
        self.get() >> 63 != 0
    }

    /// Reads the 64-bit form of a transaction or of what stands for a local one.
    pub(crate) const fn of_asker(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// The 64-bit form.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The worker that made it.
    #[must_use]
    pub const fn worker(self) -> WorkerId {
        WorkerId(self.get() as u16 & WorkerId::MAX.0)
    }

    /// The time part: milliseconds since 2026-01-01 out of the worker's lease.
    #[must_use]
    pub const fn time_ms(self) -> u64 {
        self.get() >> Self::TIME_SHIFT
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_outside() {
            return f.write_str("a local transaction");
        }
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xid({:016x})", self.0)
    }
}

/// A process that makes XIDs under a lease: 13 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

impl WorkerId {
    /// The largest worker id.
    pub const MAX: Self = Self((1 << 13) - 1);
}

/// A branch's number inside its transaction: 1, 2, 3 …
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(pub u32);

/// The random number by which a client or agent process is known across reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// The same for a request and its repeats, different for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The process that asks.
    pub process: ProcessId,
    /// Counts that process's requests.
    pub sequence: u64,
}

/// What a branch changes: a database, by the operator's name, or an action.
pub type Resource = Arc<str>;

/// The bytes of one row lock inside a resource. Opaque here.
pub type LockKey = Arc<[u8]>;

/// The UUID in a database's own table that says which database it is.
pub type DatabaseId = [u8; 16];

/// The log index of the entry by which the present leader took office. Terms repeat after a
/// restart, this does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Counts the attempts to finish a branch, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

/// The coordinator's time: milliseconds that only ever grow, stamped by the leader. The only
/// "now" there is; it stands still while no coordinator runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus a number of milliseconds.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall time in milliseconds since 1970-01-01 UTC, for display and lease floors only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// 2026-01-01 00:00 UTC, where XIDs begin to count.
    pub const XID_EPOCH: Self = Self(1_767_225_600_000);

    /// Milliseconds since the XIDs' epoch, 0 before it.
    #[must_use]
    pub const fn since_xid_epoch(self) -> u64 {
        self.0.saturating_sub(Self::XID_EPOCH.0)
    }
}
