//! The log as the layers above see it: operations go into a queue, entries can be read at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::writer::Writer;
use super::{Done, Failure, LogEntry, Mark, Op, Shared, Vote};
use crate::error::LogFailure;

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    ops: Vec<Op>,
    closed: bool,
}

enum Driver {
    /// The caller's thread writes, in a repeatable order.
    Inline(Mutex<Option<Box<Writer>>>),
    Thread {
        queue: Arc<Queue>,
        handle: Mutex<Option<thread::JoinHandle<()>>>,
    },
}

/// A handle on the segments and their writer. Calls that write must come from one task at a time.
///
/// The queue is bounded by its callers: a proposal is admitted only below a limit of entries and
/// bytes in flight.
pub(crate) struct Wal {
    pub(crate) shared: Arc<Shared>,
    driver: Driver,
}

impl Wal {
    /// The writer is driven by whoever calls; operations are durable when a call returns.
    pub(crate) fn inline(writer: Writer) -> Self {
        let shared = Arc::clone(&writer.shared);
        Self {
            shared,
            driver: Driver::Inline(Mutex::new(Some(Box::new(writer)))),
        }
    }

    /// The writer is driven by a thread.
    pub(crate) fn threaded(mut writer: Writer) -> io::Result<Self> {
        let shared = Arc::clone(&writer.shared);
        let queue = Arc::new(Queue::default());
        let source = Arc::clone(&queue);
        let guard = PanicGuard(shared.failure.clone());
        let work = move || {
            let _guard = guard;
            let mut ops = Vec::new();
            while source.wait(&mut ops) {
                writer.drain(&mut ops);
            }
        };
        let handle = thread::Builder::new()
            .name("accede-log-writer".to_owned())
            .spawn(work)?;
        let driver = Driver::Thread {
            queue,
            handle: Mutex::new(Some(handle)),
        };
        Ok(Self { shared, driver })
    }

    /// Appends entries. They can be read when this returns; `done` is called when they are
    /// durable.
    pub(crate) fn append(&self, entries: Vec<LogEntry>, done: Done) -> io::Result<()> {
        {
            let mut memory = self.shared.memory.lock();
            for entry in &entries {
                memory.append(entry.clone()).map_err(io::Error::other)?;
            }
        }
        self.submit(Op::Append { entries, done });
        Ok(())
    }

    /// Saves the vote; returns when it is durable.
    pub(crate) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.shared.memory.lock().vote = Some(vote);
        self.submit_and_wait(|done| Op::Vote { vote, done }).await
    }

    /// Voids entries above `after`; returns when that is durable.
    pub(crate) async fn truncate(&self, after: Option<Mark>) -> io::Result<()> {
        self.shared
            .memory
            .lock()
            .truncate(after.map(|mark| mark.index));
        self.submit_and_wait(|done| Op::Truncate { after, done })
            .await
    }

    /// Forgets entries up to `upto`; returns when that is durable. Segments without live entries
    /// are recycled afterwards.
    pub(crate) async fn purge(&self, upto: Mark) -> io::Result<()> {
        self.shared.memory.lock().purge(upto);
        self.submit_and_wait(|done| Op::Purge { upto, done }).await
    }

    /// Notes what is decided. It is written along with the next entries.
    pub(crate) fn save_committed(&self, committed: Option<Mark>) {
        self.shared.memory.lock().committed = committed;
    }

    /// Live entries in a range; reads files for those that are not in memory any more.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Vec<LogEntry>> {
        let fetch = self.shared.memory.lock().fetch(range)?;
        fetch.read()
    }

    fn submit(&self, op: Op) {
        let refused = match &self.driver {
            Driver::Inline(writer) => match writer.lock().as_mut() {
                Some(writer) => {
                    writer.drain(&mut vec![op]);
                    None
                }
                None => Some(op),
            },
            Driver::Thread { queue, .. } => queue.push(op),
        };
        if let Some(op) = refused {
            op.done()(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the log is closed",
            )));
        }
    }

    async fn submit_and_wait(&self, op: impl FnOnce(Done) -> Op) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.submit(op(Box::new(move |result| {
            // A caller that went away does not need the answer.
            let _ = tx.send(result);
        })));
        rx.await.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the log writer ended",
            ))
        })
    }

    /// Writes what is queued, notes the orderly end, and gives up the directory. Blocks.
    pub(crate) fn close(&self) {
        self.submit(Op::Close {
            done: Box::new(|_| {}),
        });
        self.end();
    }

    /// Writes what is queued and gives up the directory. Blocks.
    pub(crate) fn end(&self) {
        self.stop();
        match &self.driver {
            Driver::Inline(writer) => drop(writer.lock().take()),
            Driver::Thread { handle, .. } => {
                let handle = handle.lock().take();
                if let Some(handle) = handle {
                    // A panic there has been reported by the thread itself.
                    let _ = handle.join();
                }
            }
        }
    }

    fn stop(&self) {
        match &self.driver {
            Driver::Inline(_) => {}
            Driver::Thread { queue, .. } => {
                queue.state.lock().closed = true;
                queue.filled.notify_one();
            }
        }
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells everyone when the writer panics, which is a bug: nobody would be answered any more.
struct PanicGuard(Failure);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let what = "the writer of the log panicked".to_owned();
            self.0.set(LogFailure::Core { what });
        }
    }
}

impl Queue {
    /// Queues an operation, or gives it back if the queue is closed.
    fn push(&self, op: Op) -> Option<Op> {
        let mut state = self.state.lock();
        if state.closed {
            return Some(op);
        }
        state.ops.push(op);
        drop(state);
        self.filled.notify_one();
        None
    }

    /// Swaps everything queued into `ops`, which is empty. `false`: closed and drained.
    fn wait(&self, ops: &mut Vec<Op>) -> bool {
        let mut state = self.state.lock();
        while state.ops.is_empty() {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.ops, ops);
        true
    }
}
