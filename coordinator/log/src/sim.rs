//! A simulated file system for crash tests: it forgets what was not forced, and fails on demand.
//!
//! Everything that happens is a function of the calls and the seed.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::{Fs, FsFile, Mode};

/// A crash keeps or loses unforced content in pieces of this size, each by itself.
pub const SECTOR: usize = 512;

/// What goes wrong, and when. Operations are counted over the life of the file system; see
/// [`SimFs::operations`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// This operation and all later ones fail: the power is gone.
    pub power_off_at: Option<u64>,
    /// This forced write of a file fails once with an I/O error, and forces nothing. Counted from
    /// 0 over the life of the file system.
    pub fail_sync: Option<u64>,
    /// Writes fail with "no space left" once files hold this many bytes.
    pub capacity: Option<u64>,
    /// Every n-th write is cut short.
    pub short_writes: Option<u64>,
}

/// The file system as one life of the machine sees it; clones are the same one. After a crash it
/// is dead, as are the files opened through it; [`SimFs::crash`] returns the next life's.
#[derive(Clone, Debug)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

#[derive(Debug, Default)]
struct Disk {
    /// Content by file number.
    files: BTreeMap<u64, Content>,
    /// Names as a process sees them.
    names: BTreeMap<PathBuf, u64>,
    /// Names as they are on the medium.
    durable: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not on the medium, in order.
    pending: Vec<NameChange>,
    locks: BTreeMap<PathBuf, u64>,
    next_file: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    operations: u64,
    syncs: u64,
    writes: u64,
    random: Random,
    faults: Faults,
}

#[derive(Clone, Debug, Default)]
struct Content {
    seen: Vec<u8>,
    forced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A small generator of pseudo-random numbers (SplitMix64).
#[derive(Debug, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

impl SimFs {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        let disk = Disk {
            random: Random(seed),
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            life: 0,
        }
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.disk.lock().faults = faults;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Forced writes of files so far.
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// The machine loses power and comes back: unforced content is lost or torn sector by sector,
    /// of the unforced changes of names only the first few are kept, locks are free, no faults are
    /// set.
    #[must_use = "this life's handle is dead"]
    pub fn crash(&self) -> Self {
        self.next_life(|disk| disk.crash(false))
    }

    /// As [`SimFs::crash`], but nothing unforced is kept.
    #[must_use = "this life's handle is dead"]
    pub fn crash_losing_all(&self) -> Self {
        self.next_life(|disk| disk.crash(true))
    }

    /// The process dies and the machine stays up: unforced content is seen by the next process.
    #[must_use = "this life's handle is dead"]
    pub fn kill(&self) -> Self {
        self.next_life(|_| {})
    }

    fn next_life(&self, end: impl FnOnce(&mut Disk)) -> Self {
        let mut disk = self.disk.lock();
        disk.life += 1;
        disk.locks.clear();
        disk.faults = Faults::default();
        end(&mut disk);
        Self {
            disk: Arc::clone(&self.disk),
            life: disk.life,
        }
    }

    /// Changes a file behind everyone's back: `change` gets its content, which counts as forced.
    ///
    /// # Errors
    /// There is no such file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let number = disk.number(path)?;
        let content = disk.content(number)?;
        change(&mut content.seen);
        content.forced = content.seen.clone();
        Ok(())
    }
}

impl Disk {
    fn crash(&mut self, lose_all: bool) {
        let kept = self.random.below(self.pending.len() as u64 + 1) as usize;
        let kept = if lose_all { 0 } else { kept };
        for change in std::mem::take(&mut self.pending).into_iter().take(kept) {
            change.apply(&mut self.durable);
        }
        self.names = self.durable.clone();
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|number, _| named.contains(number));
        for content in self.files.values_mut() {
            content.tear(&mut self.random, lose_all);
        }
    }

    /// Counts an operation of a handle or of the file system itself.
    fn operation(&mut self, life: u64) -> io::Result<()> {
        self.operations += 1;
        if life != self.life
            || self
                .faults
                .power_off_at
                .is_some_and(|at| self.operations > at)
        {
            return Err(io::Error::other("the simulated machine is off"));
        }
        Ok(())
    }

    fn number(&self, path: &Path) -> io::Result<u64> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn content(&mut self, number: u64) -> io::Result<&mut Content> {
        self.files
            .get_mut(&number)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|n| self.files.get(n))
            .map(|c| c.seen.len() as u64)
            .sum()
    }

    /// Refuses growth beyond the capacity.
    fn room(&self, growth: u64) -> io::Result<()> {
        match self.faults.capacity {
            Some(capacity) if growth > 0 && self.used() + growth > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Add(path, number) => {
                names.insert(path.clone(), *number);
            }
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(from) {
                    names.insert(to.clone(), number);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Content {
    fn tear(&mut self, random: &mut Random, lose_all: bool) {
        if self.seen == self.forced {
            return;
        }
        let mut torn = self.forced.clone();
        if !lose_all {
            let grown = self.seen.len().saturating_sub(torn.len());
            let kept = random.below(grown as u64 + 1) as usize;
            torn.resize(torn.len() + kept, 0);
            for (old, new) in torn.chunks_mut(SECTOR).zip(self.seen.chunks(SECTOR)) {
                if random.next() & 1 == 1 {
                    let length = old.len().min(new.len());
                    old[..length].copy_from_slice(&new[..length]);
                }
            }
        }
        self.seen.clone_from(&torn);
        self.forced = torn;
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        let number = match mode {
            Mode::Read | Mode::Write => disk.number(path)?,
            Mode::CreateNew if disk.names.contains_key(path) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Mode::CreateNew => {
                disk.next_file += 1;
                let number = disk.next_file;
                disk.files.insert(number, Content::default());
                disk.change(NameChange::Add(path.to_path_buf(), number));
                number
            }
        };
        Ok(Box::new(SimFile {
            disk: Arc::clone(&self.disk),
            number,
            life: self.life,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        disk.number(from)?;
        disk.change(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        disk.number(path)?;
        disk.change(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        disk.pending.clear();
        disk.durable = disk.names.clone();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        if disk.locks.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let life = self.life;
        disk.locks.insert(path.to_path_buf(), life);
        Ok(Box::new(SimLock {
            disk: Arc::clone(&self.disk),
            path: path.to_path_buf(),
            life: self.life,
        }))
    }

    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.disk.lock();
        Ok(disk
            .faults
            .capacity
            .unwrap_or(u64::MAX)
            .saturating_sub(disk.used()))
    }
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.locks.get(&self.path) == Some(&self.life) {
            disk.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    number: u64,
    life: u64,
}

impl FsFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().content(self.number)?.seen.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        let content = &disk.content(self.number)?.seen;
        let from = content.len().min(offset as usize);
        let length = buf.len().min(content.len() - from);
        buf[..length].copy_from_slice(&content[from..from + length]);
        Ok(length)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        disk.writes += 1;
        let short = disk
            .faults
            .short_writes
            .is_some_and(|every| disk.writes.is_multiple_of(every));
        let length = if short && buf.len() > 1 {
            1 + disk.random.below(buf.len() as u64 - 1) as usize
        } else {
            buf.len()
        };
        let (from, to) = (offset as usize, offset as usize + length);
        let growth = to.saturating_sub(disk.content(self.number)?.seen.len());
        disk.room(growth as u64)?;
        let content = &mut disk.content(self.number)?.seen;
        // Most writes append: copied at once, not zeroed first.
        if from == content.len() {
            content.extend_from_slice(&buf[..length]);
        } else {
            content.resize(content.len() + growth, 0);
            content[from..to].copy_from_slice(&buf[..length]);
        }
        Ok(length)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let size = disk.content(self.number)?.seen.len() as u64;
        disk.room(bytes.saturating_sub(size))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operation(self.life)?;
        let count = disk.syncs;
        disk.syncs += 1;
        if disk.faults.fail_sync == Some(count) {
            return Err(io::Error::other("simulated I/O error (EIO)"));
        }
        let content = disk.content(self.number)?;
        content.forced = content.seen.clone();
        Ok(())
    }
}
