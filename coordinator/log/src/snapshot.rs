//! Snapshot files: versioned, checksummed, written beside and renamed, two kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::config::{ClusterId, SNAPSHOTS_KEPT};
use crate::fs::{self, Fs};
use crate::stats::Counters;
use crate::wal::Mark;
use crate::wal::format::{NUMBER_LIMIT, VERSION, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"ACCDSNP\n";
const HEADER: usize = 96;
/// In the name of a snapshot that covers no entry.
const NOTHING: Mark = Mark { term: 0, index: 0 };

/// What a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Covers {
    /// The last entry in it.
    pub(crate) last: Option<Mark>,
    /// The entry that set the members.
    pub(crate) members_at: Option<Mark>,
    /// The members, encoded.
    pub(crate) members: Vec<u8>,
}

/// Why a snapshot file cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    Newer(u32),
    OtherCluster(ClusterId),
    Damaged(String),
    Io(io::Error),
}

impl Unusable {
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Newer(version) => io::Error::other(format!("snapshot of version {version}")),
            Self::OtherCluster(id) => io::Error::other(format!("snapshot of cluster {id}")),
            Self::Damaged(what) => io::Error::other(what),
            Self::Io(e) => e,
        }
    }
}

/// A snapshot on disk.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) path: PathBuf,
    pub(crate) cluster: ClusterId,
}

/// The snapshots of a data directory.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) counters: Arc<Counters>,
    /// The newest, and what it covers.
    latest: Mutex<Option<(Covers, SnapshotFile)>>,
    /// One writer at a time.
    writing: Mutex<()>,
}

/// Marks of a snapshot's last entry, from its file name.
pub(crate) fn mark_of(name: &str) -> Option<Mark> {
    let (index, term) = name
        .strip_prefix("snapshot-")?
        .strip_suffix(".snap")?
        .split_once('-')?;
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some(Mark {
        index: number(index)?,
        term: number(term)?,
    })
}

fn name_of(mark: Mark) -> String {
    format!("snapshot-{:016x}-{:016x}.snap", mark.index, mark.term)
}

impl Snapshots {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        cluster: ClusterId,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            fs,
            dir,
            cluster,
            counters,
            latest: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// Names and marks, newest first.
    pub(crate) fn list(&self) -> io::Result<Vec<(Mark, SnapshotFile)>> {
        let names = self.fs.list(&self.dir)?;
        let mut found: Vec<_> = names
            .iter()
            .filter_map(|name| Some((mark_of(name)?, self.file(name))))
            .collect();
        found.sort_by_key(|(mark, _)| std::cmp::Reverse((mark.index, mark.term)));
        Ok(found)
    }

    fn file(&self, name: &str) -> SnapshotFile {
        let (fs, path) = (Arc::clone(&self.fs), self.dir.join(name));
        SnapshotFile {
            fs,
            path,
            cluster: self.cluster,
        }
    }

    /// The newest snapshot.
    pub(crate) fn latest(&self) -> Option<(Covers, SnapshotFile)> {
        self.latest.lock().clone()
    }

    /// Says which snapshot is the newest, after it was read at the start.
    pub(crate) fn set_latest(&self, covers: Covers, file: SnapshotFile, bytes: u64) {
        let index = covers.last.map_or(0, |mark| mark.index);
        self.counters.snapshot_index.store(index, Relaxed);
        self.counters.snapshot_bytes.store(bytes, Relaxed);
        *self.latest.lock() = Some((covers, file));
    }

    /// The last entry of the oldest snapshot kept, once there are as many as are kept. The log
    /// must reach back to it.
    pub(crate) fn log_needed_from(&self) -> io::Result<Option<Mark>> {
        let kept = self.list()?;
        Ok(kept.get(SNAPSHOTS_KEPT - 1).map(|(mark, _)| *mark))
    }

    /// Writes a snapshot, durable, and removes those beyond the ones kept. Blocks.
    pub(crate) fn write(&self, covers: &Covers, content: &[u8]) -> io::Result<SnapshotFile> {
        let _one_at_a_time = self.writing.lock();
        let name = name_of(covers.last.unwrap_or(NOTHING));
        let header = encode_header(self.cluster, covers, content);
        fs::write_file(self.fs.as_ref(), &self.dir, &name, &[&header, content])?;
        self.counters.forced_writes_aside.fetch_add(2, Relaxed);
        self.counters.snapshots.fetch_add(1, Relaxed);
        let file = self.file(&name);
        self.set_latest(
            covers.clone(),
            file.clone(),
            (header.len() + content.len()) as u64,
        );
        for (_, old) in self.list()?.into_iter().skip(SNAPSHOTS_KEPT) {
            if let Err(error) = self.fs.remove(&old.path) {
                tracing::warn!(file = %old.path.display(), %error, "an old snapshot stays");
            }
        }
        Ok(file)
    }
}

impl SnapshotFile {
    /// Reads and checks the whole file. Blocks.
    pub(crate) fn read(&self) -> Result<(Covers, Vec<u8>), Unusable> {
        let bytes = fs::read_file(self.fs.as_ref(), &self.path).map_err(Unusable::Io)?;
        let (covers, content) = decode(self.cluster, bytes)?;
        // How far the log must reach back is told by the names.
        let name = self.path.file_name().and_then(|name| name.to_str());
        if name != Some(&name_of(covers.last.unwrap_or(NOTHING))) {
            return Err(Unusable::Damaged(
                "the file was renamed: its header names another last entry".to_owned(),
            ));
        }
        Ok((covers, content))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn encode_header(cluster: ClusterId, covers: &Covers, content: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER + covers.members.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&u32::from(VERSION).to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&cluster.0.to_le_bytes());
    for mark in [covers.last, covers.members_at] {
        let there = u64::from(mark.is_some());
        let Mark { term, index } = mark.unwrap_or(Mark { term: 0, index: 0 });
        for number in [there, term, index] {
            header.extend_from_slice(&number.to_le_bytes());
        }
    }
    header.extend_from_slice(&(content.len() as u64).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
    header.extend_from_slice(&(covers.members.len() as u32).to_le_bytes());
    header.extend_from_slice(&covers.members);
    let crc = crc32fast::hash(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

fn decode(cluster: ClusterId, mut bytes: Vec<u8>) -> Result<(Covers, Vec<u8>), Unusable> {
    let damaged = |what: &str| Unusable::Damaged(what.to_owned());
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return Err(damaged("this is not a snapshot"));
    }
    let version = u32_at(&bytes, 8);
    if version > u32::from(VERSION) {
        return Err(Unusable::Newer(version));
    }
    let members = u32_at(&bytes, 92) as usize;
    let Some(header) = bytes.get(..HEADER + members) else {
        return Err(damaged("the file ends inside its header"));
    };
    let mut unsigned = header.to_vec();
    unsigned[12..16].fill(0);
    if crc32fast::hash(&unsigned) != u32_at(header, 12) {
        return Err(damaged("the checksum of the header does not match"));
    }
    let mut id = [0; 16];
    id.copy_from_slice(&header[16..32]);
    let found = ClusterId(u128::from_le_bytes(id));
    if found != cluster {
        return Err(Unusable::OtherCluster(found));
    }
    let mark = |at: usize| {
        let mark = Mark {
            term: u64_at(header, at + 8),
            index: u64_at(header, at + 16),
        };
        (u64_at(header, at) == 1).then_some(mark)
    };
    let covers = Covers {
        last: mark(32),
        members_at: mark(56),
        members: header[HEADER..].to_vec(),
    };
    let marks = [covers.last, covers.members_at].into_iter().flatten();
    if marks
        .into_iter()
        .any(|mark| mark.term.max(mark.index) >= NUMBER_LIMIT)
    {
        return Err(damaged("no log has such a term or index"));
    }
    let (length, crc) = (u64_at(header, 80), u32_at(header, 88));
    let content = bytes.split_off(HEADER + members);
    if content.len() as u64 != length {
        return Err(damaged(
            "the file does not have the length its header names",
        ));
    }
    if crc32fast::hash(&content) != crc {
        return Err(damaged("the checksum of the content does not match"));
    }
    Ok((covers, content))
}
