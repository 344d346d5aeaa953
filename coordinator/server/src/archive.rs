//! The archive: a line of JSON for every transaction that has ended, for history beyond the time
//! for which the coordinator itself remembers.
//!
//! A transaction is written when it ends, not when it is forgotten: then everything about it is
//! known and still in the state, and who looks for it does not wait for the retention to pass.
//! The driver only queues its id; a thread of its own looks it up and writes. No decision and no
//! answer waits for that: what does not fit the queue is left out and counted.
//!
//! Each transaction that is still known after a crash is written at least once: a leader goes
//! through those that ended since the last line that is readable. So one may stand there twice, with
//! the same XID.

mod files;
mod record;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use accede_core::{Timestamp, Transaction, Xid};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::{files::Files, record::line};
use crate::{
    Error,
    limits::{ARCHIVE_BATCH, ARCHIVE_BATCH_BYTES, ARCHIVE_QUEUE},
    machine::SharedState,
    metrics::Metrics,
};

/// Where the archive is and how large it may become.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveConfig {
    pub(crate) directory: PathBuf,
    pub(crate) bytes: u64,
}

enum Job {
    /// This one has ended.
    Ended(Xid),
    /// A leader took office: some may have ended that nobody told of.
    CatchUp,
}

/// The way to the thread that writes.
pub(crate) struct Archive {
    /// `None` once it is closed.
    jobs: Mutex<Option<SyncSender<Job>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    metrics: Arc<Metrics>,
    /// The queue was full when last looked at.
    behind: AtomicBool,
}

impl Archive {
    /// Opens the directory and starts the thread.
    pub(crate) fn start(
        config: &ArchiveConfig,
        state: SharedState,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Archive {
            directory: config.directory.clone(),
            source,
        };
        let (files, last) = Files::open(&config.directory, config.bytes).map_err(failed)?;
        let (jobs, queue) = sync_channel(ARCHIVE_QUEUE);
        let (told, ended) = oneshot::channel();
        let mut writer = Writer {
            state,
            files,
            metrics: Arc::clone(&metrics),
            last,
            lines: Vec::new(),
            waiting: 0,
            failing: false,
        };
        thread::Builder::new()
            .name("accede-archive".to_owned())
            .spawn(move || {
                writer.run(&queue);
                // Gives up the lock on the directory: who waits for the end may open it again.
                drop(writer);
                // Nobody may wait.
                let _ = told.send(());
            })
            .map_err(failed)?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            ended: Mutex::new(Some(ended)),
            metrics,
            behind: AtomicBool::new(false),
        })
    }

    /// A transaction has ended. Never waits.
    pub(crate) fn ended(&self, xid: Xid) {
        self.queue(Job::Ended(xid));
    }

    /// A leader took office. Never waits.
    pub(crate) fn catch_up(&self) {
        self.queue(Job::CatchUp);
    }

    fn queue(&self, job: Job) {
        let jobs = self.jobs.lock();
        let Some(jobs) = jobs.as_ref() else {
            return;
        };
        match jobs.try_send(job) {
            Ok(()) => self.behind.store(false, Relaxed),
            Err(TrySendError::Full(_)) => {
                self.metrics.archive_dropped("behind", 1);
                if !self.behind.swap(true, Relaxed) {
                    tracing::warn!(
                        "the archive cannot keep up: transactions are left out of it, see \
                         accede_archive_dropped_total; nothing else is affected"
                    );
                }
            }
            // The thread has ended by a panic; that was printed.
            Err(TrySendError::Disconnected(_)) => self.metrics.archive_dropped("behind", 1),
        }
    }

    /// Writes what is queued and ends the thread, within `limit`.
    pub(crate) async fn close(&self, limit: Duration) {
        drop(self.jobs.lock().take());
        let ended = self.ended.lock().take();
        if let Some(ended) = ended
            && tokio::time::timeout(limit, ended).await.is_err()
        {
            tracing::warn!(
                "the archive was not written to its end; the next start goes on with it"
            );
        }
    }
}

/// The thread's own.
struct Writer {
    state: SharedState,
    files: Files,
    metrics: Arc<Metrics>,
    /// When the transaction of the last line ended, in the log's time.
    last: Option<Timestamp>,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    waiting: u64,
    /// The last write failed.
    failing: bool,
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut ended = Vec::new();
            for job in std::iter::once(first).chain(jobs.try_iter().take(ARCHIVE_BATCH - 1)) {
                match job {
                    Job::Ended(xid) => ended.push(xid),
                    Job::CatchUp => self.catch_up(),
                }
            }
            self.take(&ended);
            self.write();
        }
        if let Err(error) = self.files.sync() {
            tracing::warn!(%error, "the archive could not be forced to disk");
        }
    }

    /// Looks transactions up and makes their lines.
    fn take(&mut self, xids: &[Xid]) {
        let found: Vec<_> = {
            let state = self.state.read();
            let known = xids.iter().filter_map(|xid| state.transaction(*xid));
            known.cloned().collect()
        };
        let gone = (xids.len() - found.len()) as u64;
        if gone > 0 {
            self.metrics.archive_dropped("forgotten", gone);
            tracing::warn!(
                transactions = gone,
                "forgotten before they were archived: the retention is too short for this load"
            );
        }
        found.iter().for_each(|transaction| self.add(transaction));
    }

    fn add(&mut self, transaction: &Transaction) {
        self.lines.extend(line(transaction));
        self.waiting += 1;
        self.last = self.last.max(transaction.ended_at());
        if self.lines.len() >= ARCHIVE_BATCH_BYTES {
            self.write();
        }
    }

    /// Goes through those that ended since the last line, the same instant included.
    fn catch_up(&mut self) {
        let (mut from, until) = (self.last.unwrap_or_default(), self.state.read().now());
        let mut after = None;
        let mut added = 0_u64;
        loop {
            let found: Vec<_> = {
                let state = self.state.read();
                let known = state.ended_from(from, after).take(ARCHIVE_BATCH);
                known.cloned().collect()
            };
            let Some(newest) = found.last() else { break };
            let ended_at = newest.ended_at().unwrap_or_default();
            (from, after) = (ended_at, Some(newest.xid()));
            // Those that have ended since it began are told as well.
            let ended_before = |t: &&Transaction| t.ended_at().is_some_and(|at| at <= until);
            for transaction in found.iter().filter(ended_before) {
                self.add(transaction);
                added += 1;
            }
            self.write();
            // Whatever ends from here on is told.
            if ended_at > until {
                break;
            }
        }
        tracing::debug!(transactions = added, "the archive has caught up");
    }

    fn write(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let count = std::mem::take(&mut self.waiting);
        let written = self.files.write(&self.lines);
        self.lines.clear();
        match written {
            Ok(removed) => {
                self.metrics.archived.increment(count);
                self.metrics.archive_removed.increment(removed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the archive can be written again");
                }
            }
            Err(error) => {
                self.metrics.archive_dropped("failed", count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %error,
                        "the archive cannot be written: transactions are left out of it; nothing \
                         else is affected"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
