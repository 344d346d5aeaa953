//! Counters: atomics that the write path bumps and anyone may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What the log has done since it was opened, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Forced writes (`fdatasync`) of segment content. Preparing segments and writing snapshots
    /// is not on the path of a proposal and not counted here.
    pub forced_writes: u64,
    /// Forced writes off the write path: segments prepared, snapshots, start.
    pub forced_writes_aside: u64,
    /// Entries appended.
    pub entries: u64,
    /// Bytes written to segments: records with their overhead.
    pub bytes: u64,
    /// Time spent writing and forcing, summed over all forced writes.
    pub flush_time: Duration,
    /// The longest single write with its force.
    pub flush_time_max: Duration,
    /// Snapshots written.
    pub snapshots: u64,
    /// Index covered by the newest snapshot; 0 if there is none.
    pub snapshot_index: u64,
    /// Bytes of the newest snapshot file.
    pub snapshot_bytes: u64,
    /// Segment files in use, without spares.
    pub segments: u64,
    /// Index of the last durable entry.
    pub durable_index: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Times the next segment could not be prepared, a full disk for example. The log still runs
    /// until the current segment is full: an alarm worth having.
    pub prepare_failures: u64,
}

/// The counters behind [`LogStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) forced_writes: AtomicU64,
    pub(crate) forced_writes_aside: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) flush_nanos: AtomicU64,
    pub(crate) flush_nanos_max: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    pub(crate) snapshot_index: AtomicU64,
    pub(crate) snapshot_bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) durable_index: AtomicU64,
    pub(crate) applied_index: AtomicU64,
    pub(crate) prepare_failures: AtomicU64,
}

impl Counters {
    /// One write with its force is done.
    pub(crate) fn flushed(&self, bytes: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.forced_writes.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.flush_nanos.fetch_add(nanos, Relaxed);
        self.flush_nanos_max.fetch_max(nanos, Relaxed);
    }

    /// A reading; the fields are each right, but not of one instant.
    pub(crate) fn read(&self) -> LogStats {
        LogStats {
            forced_writes: self.forced_writes.load(Relaxed),
            forced_writes_aside: self.forced_writes_aside.load(Relaxed),
            entries: self.entries.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            flush_time: Duration::from_nanos(self.flush_nanos.load(Relaxed)),
            flush_time_max: Duration::from_nanos(self.flush_nanos_max.load(Relaxed)),
            snapshots: self.snapshots.load(Relaxed),
            snapshot_index: self.snapshot_index.load(Relaxed),
            snapshot_bytes: self.snapshot_bytes.load(Relaxed),
            segments: self.segments.load(Relaxed),
            durable_index: self.durable_index.load(Relaxed),
            applied_index: self.applied_index.load(Relaxed),
            prepare_failures: self.prepare_failures.load(Relaxed),
        }
    }
}
