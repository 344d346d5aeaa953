//! The next segment, made ready off the write path, and old ones kept for reuse.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::format::{Salt, SegmentHeader};
use crate::config::{ClusterId, SPARE_SEGMENTS};
use crate::fs::{Fs, FsFile, Mode, write_all_at};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::stats::Counters;

/// Zeros are written in pieces of this size.
const ZERO_CHUNK: usize = 1024 * 1024;
const NEW_SEGMENT: &str = "segment.tmp";

/// File name of a segment in use.
pub(crate) fn segment_name(generation: u64) -> String {
    format!("log-{generation:016x}.seg")
}

/// File name of a segment kept for reuse.
fn spare_name(generation: u64) -> String {
    format!("spare-{generation:016x}.seg")
}

/// The generation in a segment's file name.
pub(crate) fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

fn is_spare(name: &str) -> bool {
    name.starts_with("spare-") && name.ends_with(".seg")
}

/// A segment with its header on disk and no records.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) generation: u64,
    pub(crate) file: Arc<dyn FsFile>,
    pub(crate) bytes: u64,
}

/// Makes and recycles segment files.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) segment_bytes: u64,
    pub(crate) counters: Arc<Counters>,
    /// Set when a segment could not be recycled: which names are on the medium is unknown then.
    pub(crate) recycling_failed: Arc<AtomicBool>,
}

impl Maker {
    /// Salt of the checksums in a segment.
    pub(crate) fn salt(&self, generation: u64) -> Salt {
        Salt::new(self.cluster, generation)
    }

    /// Puts an empty segment in place under its final name, durable.
    pub(crate) fn prepare(&self, generation: u64) -> io::Result<Prepared> {
        let (path, file) = match self.spare()? {
            Some(spare) => spare,
            None => self.zeroed()?,
        };
        let header = SegmentHeader {
            cluster: self.cluster,
            generation,
            segment_bytes: self.segment_bytes,
        };
        write_all_at(file.as_ref(), &header.encode(), 0)?;
        file.sync_data()?;
        // The name comes last: a file that bears it always has a good header.
        self.fs
            .rename(&path, &self.dir.join(segment_name(generation)))?;
        #[cfg(not(feature = "planted-bugs"))]
        self.fs.sync_dir(&self.dir)?;
        #[cfg(feature = "planted-bugs")]
        if !planted::is(Bug::SegmentNameNotForced) {
            self.fs.sync_dir(&self.dir)?;
        }
        self.counters.forced_writes_aside.fetch_add(2, Relaxed);
        Ok(Prepared {
            generation,
            file: Arc::from(file),
            bytes: self.segment_bytes,
        })
    }

    /// A recycled file of the right size; others are removed.
    fn spare(&self) -> io::Result<Option<(PathBuf, Box<dyn FsFile>)>> {
        if self.recycling_failed.load(Relaxed) {
            return Ok(None);
        }
        for name in self
            .fs
            .list(&self.dir)?
            .iter()
            .filter(|name| is_spare(name))
        {
            let path = self.dir.join(name);
            let file = self.fs.open(&path, Mode::Write)?;
            if file.size()? == self.segment_bytes {
                return Ok(Some((path, file)));
            }
            self.fs.remove(&path)?;
        }
        Ok(None)
    }

    /// A new file filled with zeros: blocks that were never written would cost a metadata flush
    /// at their first forced write.
    fn zeroed(&self) -> io::Result<(PathBuf, Box<dyn FsFile>)> {
        let path = self.dir.join(NEW_SEGMENT);
        remove_if_there(self.fs.as_ref(), &path)?;
        let file = self.fs.open(&path, Mode::CreateNew)?;
        let filled = self.fill(file.as_ref());
        if let Err(e) = filled {
            // Best effort: the space is wanted back, the error is what counts.
            let _ = self.fs.remove(&path);
            return Err(e);
        }
        Ok((path, file))
    }

    fn fill(&self, file: &dyn FsFile) -> io::Result<()> {
        file.reserve(self.segment_bytes)?;
        let zeros = vec![0; ZERO_CHUNK];
        let mut offset = 0;
        while offset < self.segment_bytes {
            let chunk = ZERO_CHUNK.min((self.segment_bytes - offset) as usize);
            write_all_at(file, &zeros[..chunk], offset)?;
            offset += chunk as u64;
        }
        self.counters.forced_writes_aside.fetch_add(1, Relaxed);
        file.sync_data()
    }

    /// Takes a segment out of the log. Its records stay in the file and are void by their salt.
    ///
    /// After a failure nothing is recycled until the next start: a younger segment must not go
    /// before an older one, or the generations have a hole.
    fn recycle(&self, generation: u64) {
        if self.recycling_failed.load(Relaxed) {
            return;
        }
        if let Err(error) = self.try_recycle(generation) {
            self.recycling_failed.store(true, Relaxed);
            tracing::warn!(
                dir = %self.dir.display(), generation, %error,
                "old log segments cannot be recycled; they stay until the next start"
            );
        }
    }

    fn try_recycle(&self, generation: u64) -> io::Result<()> {
        let path = self.dir.join(segment_name(generation));
        let spares = self
            .fs
            .list(&self.dir)?
            .iter()
            .filter(|name| is_spare(name))
            .count();
        if spares < SPARE_SEGMENTS {
            self.fs
                .rename(&path, &self.dir.join(spare_name(generation)))?;
        } else {
            self.fs.remove(&path)?;
        }
        // One by one, oldest first: a crash must not leave a hole in the generations.
        self.fs.sync_dir(&self.dir)
    }
}

pub(crate) fn remove_if_there(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

enum Job {
    Prepare(u64),
    Recycle(u64),
}

/// Where the preparing thread leaves its result.
#[derive(Default)]
struct Ready {
    slot: Mutex<Option<io::Result<Prepared>>>,
    filled: Condvar,
}

impl Ready {
    fn put(&self, result: io::Result<Prepared>) {
        *self.slot.lock() = Some(result);
        self.filled.notify_one();
    }

    fn take(&self) -> io::Result<Prepared> {
        let mut slot = self.slot.lock();
        loop {
            match slot.take() {
                Some(result) => return result,
                None => self.filled.wait(&mut slot),
            }
        }
    }
}

/// Does the jobs of the writer that may take long: on a thread of its own, or at once.
pub(crate) struct Supply {
    maker: Maker,
    ready: Arc<Ready>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Supply {
    /// Jobs are done at once, by the caller; everything happens in a repeatable order.
    pub(crate) fn inline(maker: Maker) -> Self {
        Self {
            maker,
            ready: Arc::default(),
            jobs: None,
            thread: None,
        }
    }

    /// Jobs are done by a thread.
    pub(crate) fn threaded(maker: Maker) -> io::Result<Self> {
        let mut supply = Self::inline(maker);
        let (jobs, queue) = mpsc::channel();
        let (maker, ready) = (supply.maker.clone(), Arc::clone(&supply.ready));
        let work = move || {
            for job in queue {
                work_off(&maker, &ready, &job);
            }
        };
        supply.thread = Some(
            thread::Builder::new()
                .name("accede-log-segments".to_owned())
                .spawn(work)?,
        );
        supply.jobs = Some(jobs);
        Ok(supply)
    }

    /// Hands in a segment that is ready already.
    pub(crate) fn have(&self, prepared: Prepared) {
        self.ready.put(Ok(prepared));
    }

    /// Asks for the segment `generation`. Every request must be followed by a [`Supply::take`].
    pub(crate) fn request(&self, generation: u64) {
        self.do_job(Job::Prepare(generation));
    }

    /// Takes a segment out of use.
    pub(crate) fn recycle(&self, generation: u64) {
        self.do_job(Job::Recycle(generation));
    }

    fn do_job(&self, job: Job) {
        let left = match &self.jobs {
            Some(jobs) => jobs.send(job).err().map(|mpsc::SendError(job)| job),
            None => Some(job),
        };
        if let Some(job) = left {
            work_off(&self.maker, &self.ready, &job);
        }
    }

    /// The segment asked for last. If it could not be made then, this is the last try.
    pub(crate) fn take(&self, generation: u64) -> io::Result<Prepared> {
        match self.ready.take() {
            Ok(prepared) => Ok(prepared),
            Err(_) => self.maker.prepare(generation),
        }
    }

    pub(crate) fn maker(&self) -> &Maker {
        &self.maker
    }
}

fn work_off(maker: &Maker, ready: &Ready, job: &Job) {
    match *job {
        Job::Prepare(generation) => {
            let prepared = maker.prepare(generation);
            if let Err(error) = &prepared {
                maker.counters.prepare_failures.fetch_add(1, Relaxed);
                tracing::error!(
                    dir = %maker.dir.display(), %error,
                    "the next log segment cannot be made; the log stops when the current one is full"
                );
            }
            ready.put(prepared);
        }
        Job::Recycle(generation) => maker.recycle(generation),
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}
