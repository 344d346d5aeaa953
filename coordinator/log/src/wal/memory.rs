//! What is in the log and where: an index over all live entries, and the newest ones themselves.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, Parsed, Salt};
use super::{LogEntry, Mark, Vote};
use crate::config::ClusterId;
use crate::fs::{FsFile, read_exact_at};

/// Entries that stand together are read in pieces of this size.
const READ_AT_ONCE: u32 = 1024 * 1024;

/// Where one entry stands.
#[derive(Clone, Copy, Debug)]
struct Slot {
    term: u64,
    /// Segment that holds it; 0 while it is not written.
    generation: u64,
    offset: u32,
    /// Bytes of the whole record.
    bytes: u32,
}

/// An entry that has just been written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// Index and cache. Always true: indexes are consecutive from `first`; the cache is a suffix of
/// the slots; an entry that is not written yet is in the cache.
#[derive(Debug)]
pub(crate) struct Memory {
    cluster: ClusterId,
    first: u64,
    slots: VecDeque<Slot>,
    cache: VecDeque<LogEntry>,
    cached_bytes: usize,
    cache_limit: usize,
    files: BTreeMap<u64, Arc<dyn FsFile>>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<Mark>,
    pub(crate) purged: Option<Mark>,
}

/// A read that has to go to the segment files; done without holding the lock.
#[derive(Debug)]
pub(crate) struct Fetch {
    cluster: ClusterId,
    from_files: Vec<(u64, Slot, Arc<dyn FsFile>)>,
    from_cache: Vec<LogEntry>,
}

impl Memory {
    pub(crate) fn new(cluster: ClusterId, cache_limit: usize) -> Self {
        Self {
            cluster,
            first: 0,
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cached_bytes: 0,
            cache_limit,
            files: BTreeMap::new(),
            vote: None,
            committed: None,
            purged: None,
        }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Index of the oldest live entry, if there is any.
    pub(crate) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The last entry, or the purge mark if there are none.
    pub(crate) fn last(&self) -> Option<Mark> {
        match self.slots.back() {
            Some(slot) => Some(Mark {
                term: slot.term,
                index: self.end() - 1,
            }),
            None => self.purged,
        }
    }

    fn position(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }

    /// Adds an entry behind the last one. An empty log takes any index: it may continue a
    /// snapshot.
    pub(crate) fn append(&mut self, entry: LogEntry) -> Result<(), String> {
        if self.slots.is_empty() {
            self.first = entry.index;
        } else if entry.index != self.end() {
            return Err(format!(
                "entry {} follows entry {}",
                entry.index,
                self.end() - 1
            ));
        }
        self.slots.push_back(Slot {
            term: entry.term,
            generation: 0,
            offset: 0,
            bytes: 0,
        });
        self.cached_bytes += entry.payload.len();
        self.cache.push_back(entry);
        Ok(())
    }

    /// Voids entries above `after`.
    pub(crate) fn truncate(&mut self, after: Option<u64>) {
        let end = after
            .map_or(self.first, |index| index.saturating_add(1))
            .max(self.first);
        while self.end() > end && self.slots.pop_back().is_some() {
            if let Some(entry) = self.cache.pop_back() {
                self.cached_bytes -= entry.payload.len();
            }
        }
    }

    /// Forgets entries up to `upto`.
    pub(crate) fn purge(&mut self, upto: Mark) {
        if self.purged.is_some_and(|purged| purged >= upto) {
            return;
        }
        self.purged = Some(upto);
        while self.first <= upto.index && self.slots.pop_front().is_some() {
            self.first += 1;
            while self.cache.len() > self.slots.len() {
                self.drop_oldest_cached();
            }
        }
    }

    fn drop_oldest_cached(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cached_bytes -= entry.payload.len();
        }
    }

    /// Entries stand in a segment now. What was truncated meanwhile is skipped.
    pub(crate) fn written(&mut self, generation: u64, entries: &[Written]) {
        for entry in entries {
            if let Some(at) = self.position(entry.index) {
                let slot = &mut self.slots[at];
                if slot.term == entry.term {
                    *slot = Slot {
                        term: entry.term,
                        generation,
                        offset: entry.offset,
                        bytes: entry.bytes,
                    };
                }
            }
        }
        while self.cached_bytes > self.cache_limit {
            let oldest = self.slots.len() - self.cache.len();
            match self.slots.get(oldest) {
                Some(slot) if slot.generation != 0 => self.drop_oldest_cached(),
                _ => break,
            }
        }
    }

    pub(crate) fn add_file(&mut self, generation: u64, file: Arc<dyn FsFile>) {
        self.files.insert(generation, file);
    }

    pub(crate) fn remove_file(&mut self, generation: u64) {
        self.files.remove(&generation);
    }

    /// Prepares a read of the live entries in `range`.
    pub(crate) fn fetch(&self, range: Range<u64>) -> io::Result<Fetch> {
        let range = range.start.max(self.first)..range.end.min(self.end());
        let cache_first = self.end() - self.cache.len() as u64;
        let mut fetch = Fetch {
            cluster: self.cluster,
            from_files: Vec::new(),
            from_cache: Vec::new(),
        };
        for index in range.start..range.end.min(cache_first) {
            let slot = self.slots[(index - self.first) as usize];
            let Some(file) = self.files.get(&slot.generation) else {
                return Err(io::Error::other(format!("entry {index} lost its segment")));
            };
            fetch.from_files.push((index, slot, Arc::clone(file)));
        }
        if range.start < range.end && range.end > cache_first {
            let from = range.start.max(cache_first) - cache_first;
            let to = range.end - cache_first;
            fetch
                .from_cache
                .extend(self.cache.range(from as usize..to as usize).cloned());
        }
        Ok(fetch)
    }
}

impl Fetch {
    /// Reads what was not in memory and returns all entries in order.
    pub(crate) fn read(self) -> io::Result<Vec<LogEntry>> {
        let mut entries = Vec::with_capacity(self.from_files.len() + self.from_cache.len());
        let mut rest = self.from_files.as_slice();
        let mut buffer = Vec::new();
        while let Some((_, first, file)) = rest.first() {
            let (run, tail) = rest.split_at(run_length(rest));
            let end = run
                .last()
                .map_or(0, |(_, slot, _)| slot.offset + slot.bytes);
            buffer.resize((end - first.offset) as usize, 0);
            read_exact_at(file.as_ref(), &mut buffer, u64::from(first.offset))?;
            let salt = Salt::new(self.cluster, first.generation);
            for (index, slot, _) in run {
                let from = (slot.offset - first.offset) as usize;
                let record = &buffer[from..from + slot.bytes as usize];
                entries.push(read_entry(record, *index, slot, salt)?);
            }
            rest = tail;
        }
        entries.extend(self.from_cache);
        Ok(entries)
    }
}

/// How many of the entries at the front stand close enough together for one read. At least one.
fn run_length(slots: &[(u64, Slot, Arc<dyn FsFile>)]) -> usize {
    let Some((_, first, _)) = slots.first() else {
        return 0;
    };
    let mut end = first.offset;
    let together = slots.iter().take_while(|(_, slot, _)| {
        let next = slot.generation == first.generation && slot.offset >= end;
        end = slot.offset.saturating_add(slot.bytes);
        next && (end - first.offset <= READ_AT_ONCE || slot.offset == first.offset)
    });
    together.count()
}

fn read_entry(record: &[u8], index: u64, slot: &Slot, salt: Salt) -> io::Result<LogEntry> {
    let damaged = |what: &str| {
        io::Error::other(format!(
            "entry {index} in segment {} at byte {}: {what}",
            slot.generation, slot.offset
        ))
    };
    match format::parse_alone(record, slot.offset as usize, salt) {
        Parsed::Record(found) if found.record.index == index && found.record.kind.is_entry() => {
            Ok(LogEntry {
                term: found.record.term,
                index,
                kind: found.record.kind,
                payload: Bytes::copy_from_slice(found.record.payload),
            })
        }
        Parsed::Record(_) => Err(damaged("another record is there")),
        Parsed::Newer(_) => Err(damaged("a newer version wrote it")),
        Parsed::Bad(what) => Err(damaged(what)),
    }
}
