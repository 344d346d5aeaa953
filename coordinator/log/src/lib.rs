//! The replicated log: decides entries in one order, keeps them through crashes, and drives a
//! state machine with them. It knows entries as bytes.
//!
//! One path serves one node and many: a cluster of one voter needs a data directory and nothing
//! else. The bytes on disk are described in `FORMAT.md`.
//!
//! ```no_run
//! # use accede_log::{Log, LogConfig, StateMachine};
//! # struct Counter(u64);
//! impl StateMachine for Counter {
//!     type Response = u64;
//!     fn apply(&mut self, _index: u64, entry: &[u8]) -> u64 {
//!         self.0 += entry.len() as u64;
//!         self.0
//!     }
//!     fn snapshot(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!     fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
//!         let bytes = snapshot.try_into().map_err(|_| "not a counter".to_owned())?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let log = Log::open(LogConfig::new("/var/lib/accede"), Counter(0)).await?;
//! let total = log.propose("entry".into()).await?.await?;
//! # let _ = total;
//! log.shutdown().await?;
//! # Ok(())
//! # }
//! ```

mod clock;
mod config;
mod error;
pub mod fs;
mod identity;
pub mod inline;
mod log;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod raft;
pub mod raw;
pub mod sim;
mod snapshot;
mod start;
mod stats;
mod wal;

pub use config::{
    ClusterId, DEFAULT_CACHE_BYTES, DEFAULT_SEGMENT_BYTES, LogConfig, MAX_ENTRY_BYTES,
    MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, SNAPSHOTS_KEPT, SPARE_SEGMENTS, SnapshotEvery,
};
pub use error::{LogFailure, OpenError, ProposeError};
pub use log::{Leadership, Log, Proposal};
pub use stats::LogStats;

/// What the log drives.
///
/// All calls come from one task. After [`StateMachine::restore`] (or on the new value, if there
/// is no snapshot) every decided entry is applied exactly once, in index order.
pub trait StateMachine: Send + 'static {
    /// The answer to the proposer.
    type Response: Send + Sync + 'static;

    /// Applies one entry. Must depend on nothing but the state and the entry. Indexes grow, with
    /// gaps: some entries are the log's own.
    fn apply(&mut self, index: u64, entry: &[u8]) -> Self::Response;

    /// The whole state as bytes. No entry is applied meanwhile; writing the bytes to disk happens
    /// elsewhere.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the state by that of a snapshot.
    ///
    /// # Errors
    /// Bytes of a version or format that cannot be read; the log then refuses to start.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}
