//! Opening a data directory: lock, identity, and what the segments say.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::format::{BadHeader, HEADER_BYTES, SegmentHeader, VERSION};
use super::memory::Memory;
use super::scan::{self, Scan};
use super::supply::{Maker, Prepared, Supply, generation_of, remove_if_there, segment_name};
use super::writer::{Current, Marks, Older, Writer};
use super::{Failure, Shared};
use crate::config::{ClusterId, LogConfig};
use crate::error::OpenError;
use crate::fs::{self, Fs, FsFile, Mode};
use crate::identity;
use crate::snapshot::mark_of;

/// How the writer and the preparing of segments are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drive {
    /// By threads.
    Threads,
    /// By the caller, in a repeatable order.
    Inline,
}

/// A directory that has been read.
pub(crate) struct Opened {
    pub(crate) cluster: ClusterId,
    pub(crate) writer: Writer,
}

const LOCK_NAME: &str = "LOCK";

/// Opens a directory: takes its lock, checks whose it is, reads all segments, cuts a torn tail.
/// Everything found is durable when this returns.
pub(crate) fn open(config: &LogConfig, drive: Drive) -> Result<Opened, OpenError> {
    config.check()?;
    let fs = config.fs.as_ref();
    let dir = &config.data_dir;
    fs.create_dir_all(dir)
        .map_err(OpenError::io("create", dir))?;
    let lock = take_lock(fs, dir)?;
    // A killed process may have left names that are not on the medium yet.
    fs.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
    let names = fs.list(dir).map_err(OpenError::io("list", dir))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = dir.join(name);
        remove_if_there(fs, &path).map_err(OpenError::io("remove", &path))?;
    }
    let mut generations: Vec<u64> = names
        .iter()
        .filter_map(|name| generation_of(name))
        .collect();
    generations.sort_unstable();

    let on_disk = identity::read(fs, dir)?;
    if let (Some(found), Some(expected)) = (on_disk, config.cluster_id) {
        identity::same(&dir.join(identity::NAME), expected, found)?;
    }
    let cluster = match on_disk.or(config.cluster_id) {
        Some(cluster) => cluster,
        None => {
            identity::new_cluster().map_err(OpenError::io("read", Path::new("/dev/urandom")))?
        }
    };
    let maker = Maker {
        fs: Arc::clone(&config.fs),
        dir: dir.clone(),
        cluster,
        segment_bytes: config.segment_bytes,
        counters: Arc::default(),
        recycling_failed: Arc::default(),
    };
    if on_disk.is_none() {
        if names.iter().any(|name| mark_of(name).is_some()) {
            return Err(no_identity(dir, "snapshots"));
        }
        first_start(&maker, &generations)?;
        generations = vec![1];
    } else if generations.is_empty() {
        return Err(OpenError::Missing {
            dir: dir.clone(),
            what: "all log segments".to_owned(),
        });
    }
    let memory = Memory::new(cluster, config.cache_bytes);
    let reading = Reading {
        maker: &maker,
        memory,
        older: VecDeque::new(),
    };
    reading.run(&generations)?.into_writer(drive, lock)
}

fn take_lock(fs: &dyn Fs, dir: &Path) -> Result<Arc<dyn Any + Send + Sync>, OpenError> {
    let path = dir.join(LOCK_NAME);
    match fs.lock(&path) {
        Ok(lock) => Ok(Arc::from(lock)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(OpenError::AnotherDaemon {
            dir: dir.to_path_buf(),
        }),
        Err(e) => Err(OpenError::io("lock", &path)(e)),
    }
}

/// Makes the first segment, then says whose directory this is. Without that last step the
/// directory counts as never used, so what an earlier attempt left behind is removed.
fn first_start(maker: &Maker, leftovers: &[u64]) -> Result<(), OpenError> {
    let fs = maker.fs.as_ref();
    for &generation in leftovers {
        let path = maker.dir.join(segment_name(generation));
        let content = fs::read_file(fs, &path).map_err(OpenError::io("read", &path))?;
        if scan::has_records(&content) {
            return Err(no_identity(&maker.dir, "log segments"));
        }
        fs.remove(&path).map_err(OpenError::io("remove", &path))?;
    }
    make(maker, 1)?;
    let path = maker.dir.join(identity::NAME);
    identity::write(fs, &maker.dir, maker.cluster).map_err(OpenError::io("write", &path))
}

fn no_identity(dir: &Path, although: &str) -> OpenError {
    OpenError::Missing {
        dir: dir.to_path_buf(),
        what: format!(
            "the file {:?}, although there are {although}",
            identity::NAME
        ),
    }
}

fn make(maker: &Maker, generation: u64) -> Result<Prepared, OpenError> {
    maker.prepare(generation).map_err(|e| match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::DiskFull {
            dir: maker.dir.clone(),
            needed: maker.segment_bytes,
            available: maker.fs.available_bytes(&maker.dir).unwrap_or(0),
        },
        _ => OpenError::io("make", &maker.dir.join(segment_name(generation)))(e),
    })
}

/// The pass over all segments, oldest first.
struct Reading<'a> {
    maker: &'a Maker,
    memory: Memory,
    older: VecDeque<Older>,
}

/// A segment that has been opened.
struct OpenSegment {
    generation: u64,
    path: PathBuf,
    file: Arc<dyn FsFile>,
    content: Vec<u8>,
}

/// Where writing goes on.
struct Done<'a> {
    maker: &'a Maker,
    memory: Memory,
    older: VecDeque<Older>,
    current: Current,
    next: Option<Prepared>,
}

impl<'a> Reading<'a> {
    fn run(mut self, generations: &[u64]) -> Result<Done<'a>, OpenError> {
        self.no_gap(generations)?;
        let mut left = generations.iter().copied();
        while let Some(generation) = left.next() {
            let segment = self.open_segment(generation)?;
            let scan = scan::replay(
                &segment.content,
                &segment.path,
                generation,
                &mut self.memory,
            )?;
            self.memory.add_file(generation, Arc::clone(&segment.file));
            if scan.sealed {
                force(self.maker, &segment)?;
                self.older.push_back(Older {
                    generation,
                    highest: scan.highest,
                });
                continue;
            }
            let next = self.only_empty(left, &segment, &scan)?;
            return self.finish(segment, &scan, next);
        }
        let missing = generations.last().map_or(1, |last| last + 1);
        Err(OpenError::Missing {
            dir: self.maker.dir.clone(),
            what: format!("the segment {}", segment_name(missing)),
        })
    }

    fn no_gap(&self, generations: &[u64]) -> Result<(), OpenError> {
        match generations.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            None => Ok(()),
            Some(pair) => Err(OpenError::Missing {
                dir: self.maker.dir.clone(),
                what: format!("the segment {}", segment_name(pair[0] + 1)),
            }),
        }
    }

    fn open_segment(&self, generation: u64) -> Result<OpenSegment, OpenError> {
        let fs = self.maker.fs.as_ref();
        let path = self.maker.dir.join(segment_name(generation));
        let file = fs
            .open(&path, Mode::Write)
            .map_err(OpenError::io("open", &path))?;
        let content = fs::read_file(fs, &path).map_err(OpenError::io("read", &path))?;
        let damaged = |what: &str| OpenError::DamagedMiddle {
            file: path.clone(),
            offset: 0,
            what: what.to_owned(),
        };
        let header = SegmentHeader::decode(&content).map_err(|bad| match bad {
            BadHeader::Newer(found) => OpenError::NewerVersion {
                file: path.clone(),
                found,
                supported: u32::from(VERSION),
            },
            BadHeader::Damaged(what) => damaged(what),
        })?;
        identity::same(&path, self.maker.cluster, header.cluster)?;
        if header.generation != generation {
            return Err(damaged(
                "the file was renamed: its header names another segment",
            ));
        }
        if header.segment_bytes != content.len() as u64 {
            return Err(damaged(
                "the file does not have the length its header names",
            ));
        }
        Ok(OpenSegment {
            generation,
            path,
            file: Arc::from(file),
            content,
        })
    }

    /// Behind the segment that is written there may be one that was made ready, without records.
    fn only_empty(
        &self,
        rest: impl Iterator<Item = u64>,
        tail: &OpenSegment,
        scan: &Scan,
    ) -> Result<Option<Prepared>, OpenError> {
        let mut next = None;
        for generation in rest {
            let segment = self.open_segment(generation)?;
            let salt = self.maker.salt(generation);
            let empty = scan::last_batch(&segment.content, HEADER_BYTES as usize, salt).is_none();
            if next.is_some() || !empty {
                return Err(OpenError::DamagedMiddle {
                    file: tail.path.clone(),
                    offset: scan.end as u64,
                    what: format!("{}, and a later segment has records", scan.why),
                });
            }
            let bytes = segment.content.len() as u64;
            next = Some(Prepared {
                generation,
                file: segment.file,
                bytes,
            });
        }
        Ok(next)
    }

    /// Decides what the bytes behind the last good record are: nothing, a torn write, or damage.
    fn finish(
        mut self,
        tail: OpenSegment,
        scan: &Scan,
        next: Option<Prepared>,
    ) -> Result<Done<'a>, OpenError> {
        let salt = self.maker.salt(tail.generation);
        if let Some((batch, end)) = scan::last_batch(&tail.content, scan.end, salt) {
            if batch as usize > scan.end {
                return Err(OpenError::DamagedMiddle {
                    file: tail.path,
                    offset: scan.end as u64,
                    what: format!("{}, and records of a later write follow", scan.why),
                });
            }
            tracing::warn!(
                file = %tail.path.display(), offset = scan.end,
                "a torn write at the end of the log is cut; it was never acknowledged"
            );
            // Whole records of the torn write must not come back to life behind a new one.
            let zeros = vec![0; end - scan.end];
            fs::write_all_at(tail.file.as_ref(), &zeros, scan.end as u64)
                .map_err(OpenError::io("write", &tail.path))?;
        }
        force(self.maker, &tail)?;
        self.check_start()?;
        let current = Current {
            generation: tail.generation,
            file: tail.file,
            offset: scan.end as u32,
            bytes: tail.content.len() as u64,
            highest: scan.highest,
        };
        if let Some(mark) = self.memory.committed {
            // Can only be true of a log that lost its tail below what was decided.
            let last = self.memory.last();
            if last.is_none_or(|last| last.index < mark.index) {
                self.memory.committed = last;
            }
        }
        Ok(Done {
            maker: self.maker,
            memory: self.memory,
            older: self.older,
            current,
            next,
        })
    }

    /// The oldest entry must follow what was purged.
    fn check_start(&self) -> Result<(), OpenError> {
        let expected = self.memory.purged.map_or(0, |mark| mark.index + 1);
        match self.memory.first() {
            Some(first) if first > expected => Err(OpenError::Missing {
                dir: self.maker.dir.clone(),
                what: format!("the entries {expected} to {}", first - 1),
            }),
            _ => Ok(()),
        }
    }
}

/// Forces what was read. A killed process may have left records that no forced write covers yet;
/// they count as decided from now on.
fn force(maker: &Maker, segment: &OpenSegment) -> Result<(), OpenError> {
    maker.counters.forced_writes_aside.fetch_add(1, Relaxed);
    segment
        .file
        .sync_data()
        .map_err(OpenError::io("sync", &segment.path))
}

impl Done<'_> {
    fn into_writer(
        self,
        drive: Drive,
        lock: Arc<dyn Any + Send + Sync>,
    ) -> Result<Opened, OpenError> {
        let Self {
            maker,
            memory,
            older,
            current,
            next,
        } = self;
        let supply = match drive {
            Drive::Inline => Supply::inline(maker.clone()),
            Drive::Threads => Supply::threaded(maker.clone())
                .map_err(OpenError::io("start a thread for", &maker.dir))?,
        };
        match next {
            Some(next) => supply.have(next),
            None => supply.request(current.generation + 1),
        }
        let marks = Marks {
            vote: memory.vote,
            committed: memory.committed,
            purged: memory.purged,
        };
        let counters = Arc::clone(&maker.counters);
        counters
            .durable_index
            .store(memory.last().map_or(0, |mark| mark.index), Relaxed);
        let shared = Arc::new(Shared {
            memory: Mutex::new(memory),
            counters,
            failure: Failure::new(),
        });
        let writer = Writer::new(shared, supply, current, older, marks, lock);
        Ok(Opened {
            cluster: maker.cluster,
            writer,
        })
    }
}
