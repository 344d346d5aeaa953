//! Whose directory it is: one small file, written as the last step of the first start.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::config::ClusterId;
use crate::error::OpenError;
use crate::fs::{self, Fs};
use crate::wal::format::{VERSION, u32_at};

/// Name of the file.
pub(crate) const NAME: &str = "IDENTITY";
const MAGIC: &[u8; 8] = b"ACCDIDN\n";
const BYTES: usize = 32;

/// The cluster that the directory belongs to; `None` if it was never used.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<ClusterId>, OpenError> {
    let path = dir.join(NAME);
    let content = match fs::read_file(fs, &path) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(OpenError::io("read", &path)(e)),
    };
    let damaged = |what: &str| OpenError::DamagedMiddle {
        file: path.clone(),
        offset: 0,
        what: what.to_owned(),
    };
    if content.len() < BYTES || &content[..8] != MAGIC {
        return Err(damaged("this is not an identity file"));
    }
    let version = u32_at(&content, 8);
    if version > u32::from(VERSION) {
        let supported = u32::from(VERSION);
        return Err(OpenError::NewerVersion {
            file: path,
            found: version,
            supported,
        });
    }
    if crc32fast::hash(&content[16..BYTES]) != u32_at(&content, 12) {
        return Err(damaged("the checksum does not match"));
    }
    let mut id = [0; 16];
    id.copy_from_slice(&content[16..BYTES]);
    Ok(Some(ClusterId(u128::from_le_bytes(id))))
}

/// Writes the file, durable.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, cluster: ClusterId) -> io::Result<()> {
    let id = cluster.0.to_le_bytes();
    let mut content = Vec::with_capacity(BYTES);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&u32::from(VERSION).to_le_bytes());
    content.extend_from_slice(&crc32fast::hash(&id).to_le_bytes());
    content.extend_from_slice(&id);
    fs::write_file(fs, dir, NAME, &[&content])
}

/// Refuses a file of another cluster.
pub(crate) fn same(file: &Path, expected: ClusterId, found: ClusterId) -> Result<(), OpenError> {
    if expected == found {
        return Ok(());
    }
    Err(OpenError::OtherCluster {
        file: file.to_path_buf(),
        expected,
        found,
    })
}

/// A new cluster's id, from the operating system's random numbers.
pub(crate) fn new_cluster() -> io::Result<ClusterId> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(ClusterId(u128::from_le_bytes(id)))
}
