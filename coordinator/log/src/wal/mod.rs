//! The write-ahead log: segment files, one writer, recovery. Knows terms and indexes, nothing of
//! who decides entries.

pub(crate) mod format;
pub(crate) mod memory;
pub(crate) mod queue;
pub(crate) mod recover;
pub(crate) mod scan;
pub(crate) mod supply;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::format::Kind;
use self::memory::Memory;
use crate::error::LogFailure;
use crate::stats::Counters;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Always an entry kind.
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// A vote: the highest term seen, for whom, and whether that candidate won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

/// Called once, when an operation is durable or has failed.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the writer is asked to make durable, in order.
pub(crate) enum Op {
    Append {
        entries: Vec<LogEntry>,
        done: Done,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    Truncate {
        after: Option<Mark>,
        done: Done,
    },
    Purge {
        upto: Mark,
        done: Done,
    },
    /// Writes down what is decided, as the last act of an orderly shutdown: its own write proves
    /// that all before it was forced.
    Close {
        done: Done,
    },
}

impl Op {
    fn done(self) -> Done {
        match self {
            Self::Append { done, .. }
            | Self::Vote { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::Close { done } => done,
        }
    }
}

/// What the writer and everyone else share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) memory: Mutex<Memory>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) failure: Failure,
}

/// The first failure, kept for good.
#[derive(Clone, Debug)]
pub(crate) struct Failure(watch::Sender<Option<LogFailure>>);

impl Failure {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Records a failure; later ones are consequences and dropped.
    pub(crate) fn set(&self, failure: LogFailure) {
        self.0.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                tracing::error!(%failure, "the log failed");
                *slot = Some(failure);
            }
            first
        });
    }

    pub(crate) fn get(&self) -> Option<LogFailure> {
        self.0.borrow().clone()
    }

    /// Waits for a failure, for ever if there is none.
    pub(crate) async fn wait(&self) -> LogFailure {
        let mut watch = self.0.subscribe();
        let seen = match watch.wait_for(Option::is_some).await {
            Ok(seen) => seen.clone(),
            Err(_) => None,
        };
        match seen {
            Some(failure) => failure,
            // `self` holds the sender, so the channel cannot close while this waits.
            None => std::future::pending().await,
        }
    }
}
