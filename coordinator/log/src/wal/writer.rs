//! The one writer: takes what is queued, writes it with one write and one forced write, answers.
//!
//! It is a plain state machine. A thread drives it, or a test does.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::format::{self, HEADER_BYTES, Kind, Record, SEAL_BYTES, Salt};
use super::memory::Written;
use super::supply::{Prepared, Supply};
use super::{LogEntry, Mark, Op, Shared, Vote};
use crate::clock::Stopwatch;
use crate::config::ClusterId;
use crate::error::LogFailure;
use crate::fs::{FsFile, write_all_at};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};

/// A write buffer above this is given back after use.
const BUFFER_KEPT: usize = 4 * 1024 * 1024;

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) generation: u64,
    pub(crate) file: Arc<dyn FsFile>,
    /// Where the next record goes.
    pub(crate) offset: u32,
    pub(crate) bytes: u64,
    /// Highest entry in it.
    pub(crate) highest: Option<u64>,
}

/// A full segment, still part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Older {
    pub(crate) generation: u64,
    pub(crate) highest: Option<u64>,
}

/// What must be repeated at the head of every segment, so that older ones can go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<Mark>,
    pub(crate) purged: Option<Mark>,
}

/// The writer's state.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cluster: ClusterId,
    pub(crate) supply: Supply,
    pub(crate) current: Current,
    pub(crate) older: VecDeque<Older>,
    pub(crate) marks: Marks,
    salt: Salt,
    buffer: Vec<u8>,
    written: Vec<Written>,
    /// Held until the last write is done.
    _lock: Arc<dyn Any + Send + Sync>,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        supply: Supply,
        current: Current,
        older: VecDeque<Older>,
        marks: Marks,
        lock: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        let cluster = supply.maker().cluster;
        let salt = Salt::new(cluster, current.generation);
        let writer = Self {
            shared,
            cluster,
            supply,
            current,
            older,
            marks,
            salt,
            buffer: Vec::new(),
            written: Vec::new(),
            _lock: lock,
        };
        writer.count_segments();
        writer
    }

    /// Makes all operations durable and answers them, in order. After a failure nothing is
    /// written any more and everything is answered with an error.
    pub(crate) fn drain(&mut self, ops: &mut Vec<Op>) {
        let result = match self.shared.failure.get() {
            Some(failure) => Err(io::Error::other(failure)),
            None => self.write_ops(ops).map_err(|e| self.fail(e)),
        };
        for op in ops.drain(..) {
            let answer = match &result {
                Ok(()) => Ok(()),
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            };
            op.done()(answer);
        }
    }

    fn write_ops(&mut self, ops: &[Op]) -> io::Result<()> {
        let mut purged = false;
        for op in ops {
            match op {
                Op::Append { entries, .. } => {
                    for entry in entries {
                        self.put_entry(entry)?;
                    }
                }
                Op::Vote { vote, .. } => {
                    self.marks.vote = Some(*vote);
                    self.put_vote(*vote)?;
                }
                Op::Truncate { after, .. } => self.put_truncate(*after)?,
                Op::Purge { upto, .. } => {
                    self.marks.purged = Some(*upto);
                    self.put_mark(Kind::Purged, *upto)?;
                    purged = true;
                }
                Op::Close { .. } => self.put_close()?,
            }
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.put_committed()?;
        self.flush()?;
        if purged {
            self.recycle();
        }
        Ok(())
    }

    fn put_entry(&mut self, entry: &LogEntry) -> io::Result<()> {
        let record = Record {
            kind: entry.kind,
            term: entry.term,
            index: entry.index,
            payload: &entry.payload,
        };
        let offset = self.put(record)?;
        self.current.highest = self.current.highest.max(Some(entry.index));
        self.written.push(Written {
            index: entry.index,
            term: entry.term,
            offset,
            bytes: format::record_bytes(entry.payload.len()) as u32,
        });
        Ok(())
    }

    fn put_vote(&mut self, vote: Vote) -> io::Result<()> {
        let payload = [u8::from(vote.committed)];
        let record = Record {
            kind: Kind::Vote,
            term: vote.term,
            index: vote.node,
            payload: &payload,
        };
        self.put(record).map(drop)
    }

    fn put_truncate(&mut self, after: Option<Mark>) -> io::Result<()> {
        let keeps = [u8::from(after.is_some())];
        let after = after.unwrap_or(Mark { term: 0, index: 0 });
        let record = Record {
            kind: Kind::Truncate,
            term: after.term,
            index: after.index,
            payload: &keeps,
        };
        self.put(record).map(drop)
    }

    fn put_mark(&mut self, kind: Kind, mark: Mark) -> io::Result<()> {
        self.put(Record {
            kind,
            term: mark.term,
            index: mark.index,
            payload: &[],
        })
        .map(drop)
    }

    /// What is decided rides along with the next write; it never causes one.
    fn put_committed(&mut self) -> io::Result<()> {
        let committed = self.shared.memory.lock().committed;
        match committed {
            Some(mark) if committed > self.marks.committed => {
                self.marks.committed = Some(mark);
                self.put_mark(Kind::Committed, mark)
            }
            _ => Ok(()),
        }
    }

    /// A record in a write of its own, which proves that everything before it was forced.
    fn put_close(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        let committed = self.shared.memory.lock().committed;
        if let Some(mark) = committed.max(self.marks.committed) {
            self.marks.committed = Some(mark);
            self.put_mark(Kind::Committed, mark)?;
        }
        Ok(())
    }

    /// Adds a record to the buffer; goes on in the next segment if this one is full.
    fn put(&mut self, record: Record<'_>) -> io::Result<u32> {
        let needed = format::record_bytes(record.payload.len()) + SEAL_BYTES;
        let mut rolls = 0;
        while !self.fits(needed) {
            // Segments made under an older configuration may be smaller than entries may be now.
            // There are at most two of them: the current one and the one made ready.
            if rolls > 2 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("a record of {needed} bytes does not fit into a segment"),
                ));
            }
            self.roll()?;
            rolls += 1;
        }
        Ok(format::put_record(
            &mut self.buffer,
            self.current.offset,
            self.salt,
            record,
        ))
    }

    fn fits(&self, needed: usize) -> bool {
        let used = u64::from(self.current.offset) + self.buffer.len() as u64;
        used + needed as u64 <= self.current.bytes
    }

    /// Seals the segment and turns to the next one, which must not hold a record before the seal
    /// is durable.
    fn roll(&mut self) -> io::Result<()> {
        let seal = Record {
            kind: Kind::Seal,
            term: 0,
            index: 0,
            payload: &[],
        };
        format::put_record(&mut self.buffer, self.current.offset, self.salt, seal);
        let next = self.supply.take(self.current.generation + 1)?;
        self.flush()?;
        self.turn_to(next);
        let Marks {
            vote,
            committed,
            purged,
        } = self.marks;
        if let Some(vote) = vote {
            self.put_vote(vote)?;
        }
        if let Some(mark) = committed {
            self.put_mark(Kind::Committed, mark)?;
        }
        if let Some(mark) = purged {
            self.put_mark(Kind::Purged, mark)?;
        }
        Ok(())
    }

    fn turn_to(&mut self, next: Prepared) {
        let Prepared {
            generation,
            file,
            bytes,
        } = next;
        self.supply.request(generation + 1);
        self.shared
            .memory
            .lock()
            .add_file(generation, Arc::clone(&file));
        self.older.push_back(Older {
            generation: self.current.generation,
            highest: self.current.highest,
        });
        self.current = Current {
            generation,
            file,
            offset: HEADER_BYTES as u32,
            bytes,
            highest: None,
        };
        self.salt = Salt::new(self.cluster, generation);
        self.count_segments();
    }

    /// One write, one forced write.
    fn flush(&mut self) -> io::Result<()> {
        let watch = Stopwatch::start();
        write_all_at(
            self.current.file.as_ref(),
            &self.buffer,
            u64::from(self.current.offset),
        )?;
        #[cfg(not(feature = "planted-bugs"))]
        self.current.file.sync_data()?;
        #[cfg(feature = "planted-bugs")]
        if !planted::is(Bug::AcknowledgedBeforeForced) {
            self.current.file.sync_data()?;
        }
        let counters = &self.shared.counters;
        counters.flushed(self.buffer.len(), watch.elapsed());
        counters
            .entries
            .fetch_add(self.written.len() as u64, Relaxed);
        if let Some(last) = self.written.last() {
            counters.durable_index.store(last.index, Relaxed);
            self.shared
                .memory
                .lock()
                .written(self.current.generation, &self.written);
            self.written.clear();
        }
        // Segments are at most 1 GiB, and `put` keeps the buffer inside.
        self.current.offset += self.buffer.len() as u32;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT);
        Ok(())
    }

    /// Gives up segments whose entries are all purged, oldest first.
    fn recycle(&mut self) {
        let Some(purged) = self.marks.purged else {
            return;
        };
        while let Some(oldest) = self.older.front().copied() {
            if oldest.highest.is_some_and(|highest| highest > purged.index) {
                break;
            }
            self.older.pop_front();
            self.shared.memory.lock().remove_file(oldest.generation);
            self.supply.recycle(oldest.generation);
        }
        self.count_segments();
    }

    fn count_segments(&self) {
        self.shared
            .counters
            .segments
            .store(self.older.len() as u64 + 1, Relaxed);
    }

    /// Turns an error into the state that ends the log.
    fn fail(&mut self, error: io::Error) -> io::Error {
        let maker = self.supply.maker();
        let action = format!("writing segment {:016x}", self.current.generation);
        let (fs, dir) = (maker.fs.as_ref(), maker.dir.clone());
        self.shared
            .failure
            .set(LogFailure::of_io(fs, dir, &action, &error));
        error
    }
}
