//! The archive's files: lines are added to the newest; when it is full a new one begins, and the
//! oldest go so that all together stay below a bound.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use accede_core::Timestamp;

use super::record;
use crate::limits::{ARCHIVE_FILES, ARCHIVE_LINE_BYTES};

const PREFIX: &str = "transactions-";
const SUFFIX: &str = ".jsonl";
/// Kept locked, so that no second daemon writes here.
const LOCK: &str = "lock";

pub(super) struct Files {
    directory: PathBuf,
    /// Bytes of all files together at most.
    most: u64,
    /// Bytes from which a file is full.
    full: u64,
    /// The newest file's number.
    number: u64,
    /// The newest file with its length; `None` if a write to it failed, or there is none.
    file: Option<(File, u64)>,
    _lock: File,
}

impl Files {
    /// Opens a directory, which is created if absent. Also says when the transaction of the last
    /// whole line ended.
    pub(super) fn open(directory: &Path, most: u64) -> io::Result<(Self, Option<Timestamp>)> {
        fs::create_dir_all(directory)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another daemon writes there"),
            TryLockError::Error(error) => error,
        })?;
        let mut files = Self {
            directory: directory.to_owned(),
            most,
            full: most / ARCHIVE_FILES,
            number: 0,
            file: None,
            _lock: lock,
        };
        let mut last = None;
        for (number, path) in files.list()?.into_iter().rev() {
            files.number = files.number.max(number);
            let (file, length, line) = whole(&path)?;
            if number == files.number {
                files.file = Some((file, length));
            }
            last = record::ended_at(&line);
            if last.is_some() {
                break;
            }
        }
        Ok((files, last))
    }

    /// Adds whole lines. How many old files had to go for that.
    ///
    /// # Errors
    /// Nothing of the lines counts then; the next ones begin a new file.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<u64> {
        let mut removed = 0;
        let (mut file, length) = match self.file.take() {
            Some((file, length)) if length + lines.len() as u64 <= self.full => (file, length),
            full => {
                if let Some((file, _)) = full {
                    file.sync_data()?;
                }
                removed = self.make_room()?;
                self.number += 1;
                (open(&self.path(self.number))?, 0)
            }
        };
        if let Err(error) = file.write_all(lines) {
            // Half a line may stand there: what follows goes into another file.
            let _ = file.set_len(length);
            return Err(error);
        }
        self.file = Some((file, length + lines.len() as u64));
        Ok(removed)
    }

    /// Forces the newest file to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file
            .as_ref()
            .map_or(Ok(()), |(file, _)| file.sync_data())
    }

    /// Removes the oldest files until another full one fits.
    fn make_room(&self) -> io::Result<u64> {
        let files = self.list()?;
        let mut sizes = Vec::with_capacity(files.len());
        for (_, path) in files {
            let bytes = fs::metadata(&path)?.len();
            sizes.push((path, bytes));
        }
        let mut all: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        let mut removed = 0;
        for (path, bytes) in sizes {
            if all + self.full <= self.most {
                break;
            }
            fs::remove_file(&path)?;
            tracing::info!(file = %path.display(), bytes, "the oldest file of the archive was removed");
            all -= bytes;
            removed += 1;
        }
        Ok(removed)
    }

    /// The files by number, the oldest first.
    fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix(PREFIX)?
                    .strip_suffix(SUFFIX)?
                    .parse()
                    .ok()
            });
            if let Some(number) = number {
                files.push((number, entry.path()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{PREFIX}{number:010}{SUFFIX}"))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}

/// Opens a file and cuts off what follows its last whole line. Also its length and that line.
fn whole(path: &Path) -> io::Result<(File, u64, Vec<u8>)> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    // The last line, and a torn one behind it.
    let tail = length.min(2 * ARCHIVE_LINE_BYTES as u64);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let torn = (bytes.len() - end) as u64;
    if torn > 0 {
        tracing::info!(file = %path.display(), bytes = torn, "a torn line was cut off the archive");
        file.set_len(length - torn)?;
    }
    bytes.truncate(end);
    let begin = bytes[..end.saturating_sub(1)]
        .iter()
        .rposition(|byte| *byte == b'\n');
    let line = bytes.split_off(begin.map_or(0, |at| at + 1));
    Ok((file, length - torn, line))
}
