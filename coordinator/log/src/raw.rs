//! The segment writer alone: group commit without replication and without a state machine. It is
//! the limit that the whole log is measured against.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::LogConfig;
use crate::error::OpenError;
use crate::stats::LogStats;
use crate::wal::format::Kind;
use crate::wal::queue::Wal;
use crate::wal::recover::{self, Drive};
use crate::wal::{LogEntry, Mark};

/// Term of all entries written here.
const TERM: u64 = 1;

/// Appends entries to a directory of its own. Never point it at the directory of a [`crate::Log`].
#[derive(Debug)]
pub struct Appender {
    wal: Arc<Wal>,
    next: Mutex<u64>,
}

impl Appender {
    /// Opens a directory. Blocks its thread while segments are read.
    ///
    /// # Errors
    /// As [`crate::Log::open`].
    pub fn open(config: &LogConfig) -> Result<Self, OpenError> {
        let opened = recover::open(config, Drive::Threads)?;
        let wal = Wal::threaded(opened.writer)
            .map_err(OpenError::io("start a thread for", &config.data_dir))?;
        let next = wal
            .shared
            .memory
            .lock()
            .last()
            .map_or(0, |mark| mark.index + 1);
        Ok(Self {
            wal: Arc::new(wal),
            next: Mutex::new(next),
        })
    }

    /// Queues an entry; the future resolves when it is durable. Nothing limits how many may be
    /// queued: the caller awaits them.
    pub fn append(&self, payload: Bytes) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let (tx, rx) = oneshot::channel();
        let queued = {
            let mut next = self.next.lock();
            let entry = LogEntry {
                term: TERM,
                index: *next,
                kind: Kind::Command,
                payload,
            };
            *next += 1;
            // A caller that went away does not need the answer.
            let done = Box::new(move |result| drop(tx.send(result)));
            self.wal.append(vec![entry], done)
        };
        async move {
            queued?;
            rx.await
                .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    /// Forgets all entries so far, so that their segments are reused.
    ///
    /// # Errors
    /// The log has failed.
    pub async fn forget(&self) -> io::Result<()> {
        let last = *self.next.lock();
        match last.checked_sub(1) {
            Some(index) => self.wal.purge(Mark { term: TERM, index }).await,
            None => Ok(()),
        }
    }

    /// What was written so far.
    pub fn stats(&self) -> LogStats {
        self.wal.shared.counters.read()
    }

    /// Writes what is queued and gives up the directory. Blocks.
    pub fn close(&self) {
        self.wal.close();
    }
}
