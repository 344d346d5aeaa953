//! Configuration and limits.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::OpenError;
use crate::fs::{Fs, RealFs};
use crate::wal::format::{HEADER_BYTES, RECORD_OVERHEAD};

/// Bytes of one segment file unless configured.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// A segment below this cannot hold its own header and a useful entry.
pub const MIN_SEGMENT_BYTES: u64 = 16 * 1024;
/// Offsets inside a segment are 32 bits wide; recovery reads one segment into memory.
pub const MAX_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;
/// Largest entry, whatever the segment size: one entry must not stall the others for long.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of recent entries kept in memory, besides those not written yet.
pub const DEFAULT_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Snapshots kept on disk. The log reaches back to the older one, so that one may be lost.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Segment files kept for reuse after a purge; more are removed.
pub const SPARE_SEGMENTS: usize = 2;

/// The id that ties a data directory to one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !well_formed {
            return Err(format!(
                "cluster id {text:?} must have 32 hexadecimal digits"
            ));
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|e| format!("cluster id {text:?}: {e}"))
    }
}

/// When a snapshot is taken by itself. Whichever limit is reached first counts.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotEvery {
    /// Entries applied since the last snapshot.
    pub entries: u64,
    /// Entry bytes applied since the last snapshot.
    pub bytes: u64,
}

/// How a log is opened. Start from [`LogConfig::new`] and change what must differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogConfig {
    /// The directory that holds everything; created if absent.
    pub data_dir: PathBuf,
    /// The cluster the directory must belong to. `None`: take the one on disk, or make a new one
    /// on the first start.
    pub cluster_id: Option<ClusterId>,
    /// This replica's id inside the cluster.
    pub node_id: u64,
    /// Bytes of one segment file. Existing segments keep their size.
    pub segment_bytes: u64,
    /// When snapshots are taken.
    pub snapshot_every: SnapshotEvery,
    /// Entries that may be proposed and not yet applied; beyond it proposals are refused.
    pub max_in_flight: usize,
    /// Bytes that may be proposed and not yet applied; beyond it proposals are refused.
    pub max_in_flight_bytes: usize,
    /// Bytes of recent entries kept in memory.
    pub cache_bytes: usize,
    /// The file system; a simulated one in crash tests.
    pub fs: Arc<dyn Fs>,
}

impl LogConfig {
    /// The defaults, on the real file system.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_id: None,
            node_id: 1,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            snapshot_every: SnapshotEvery {
                entries: 1_000_000,
                bytes: 256 * 1024 * 1024,
            },
            max_in_flight: 16 * 1024,
            max_in_flight_bytes: 64 * 1024 * 1024,
            cache_bytes: DEFAULT_CACHE_BYTES,
            fs: Arc::new(RealFs),
        }
    }

    /// Largest entry that can be proposed: it must fit into one empty segment.
    pub fn max_entry_bytes(&self) -> usize {
        let room = self
            .segment_bytes
            .saturating_sub(HEADER_BYTES + RECORD_OVERHEAD);
        MAX_ENTRY_BYTES.min(usize::try_from(room).unwrap_or(MAX_ENTRY_BYTES))
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |what: String| Err(OpenError::Config { what });
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return refuse(format!(
                "segment_bytes is {}, it must lie between {MIN_SEGMENT_BYTES} and {MAX_SEGMENT_BYTES}",
                self.segment_bytes
            ));
        }
        if self.max_in_flight == 0 || self.max_in_flight_bytes == 0 {
            return refuse("max_in_flight and max_in_flight_bytes must be at least 1".to_owned());
        }
        if self.snapshot_every.entries == 0 || self.snapshot_every.bytes == 0 {
            return refuse("snapshot_every must be at least 1 entry and 1 byte".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_survives_its_text() {
        let id = ClusterId(0x00ab_0000_0000_0000_0000_0000_0000_00cd);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "xy",
            "+0000000000000000000000000000000",
            &"0".repeat(33),
        ] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        let mut small = LogConfig::new("/d");
        small.segment_bytes = 1;
        let mut none = LogConfig::new("/d");
        none.max_in_flight = 0;
        let mut never = LogConfig::new("/d");
        never.snapshot_every.entries = 0;
        for bad in [small, none, never] {
            assert!(matches!(bad.check(), Err(OpenError::Config { .. })));
        }
        assert!(LogConfig::new("/d").check().is_ok());
    }
}
