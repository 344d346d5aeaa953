//! Errors, sorted by what the caller can do about them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ClusterId;
use crate::fs::Fs;

/// Why a data directory could not be opened. Nothing was changed in it, except that a torn tail
/// that no one was told about may have been cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process holds the lock of the directory.
    #[error(
        "data directory {} is in use by another daemon: stop that daemon, or give this one its own directory",
        dir.display()
    )]
    AnotherDaemon {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {found}, but this daemon is configured for cluster {expected}: point it at the right data directory",
        file.display()
    )]
    OtherCluster {
        /// The file that says so.
        file: PathBuf,
        /// The configured cluster.
        expected: ClusterId,
        /// The cluster the file was written for.
        found: ClusterId,
    },
    /// A file was written by a newer version of this software.
    #[error(
        "{} has format version {found}, this daemon reads up to {supported}: start the newer version again, it wrote this directory",
        file.display()
    )]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// The version it carries.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// Bytes that had been acknowledged as durable cannot be read any more.
    #[error(
        "{} is damaged at byte {offset}: {what}. Acknowledged entries may follow, so nothing is cut; restore the directory from a backup, or remove this replica and let it join anew",
        file.display()
    )]
    DamagedMiddle {
        /// The segment file.
        file: PathBuf,
        /// Offset of the first byte that cannot be trusted.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file that must be there is not.
    #[error(
        "{} lacks {what}: files were removed or not copied; restore the whole directory from a backup",
        dir.display()
    )]
    Missing {
        /// The data directory.
        dir: PathBuf,
        /// What is missing.
        what: String,
    },
    /// No snapshot can be read and the log alone does not reach back far enough.
    #[error(
        "snapshot {} is damaged: {what}. No older snapshot is covered by the log; restore the directory from a backup",
        file.display()
    )]
    DamagedSnapshot {
        /// The newest snapshot file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The state machine refused the content of a snapshot.
    #[error(
        "snapshot {} cannot be restored: {reason}. If a newer version wrote it, start that version again",
        file.display()
    )]
    Restore {
        /// The snapshot file.
        file: PathBuf,
        /// What the state machine said.
        reason: String,
    },
    /// The disk is full.
    #[error(
        "no space left on the file system of {}: {available} bytes are free, {needed} are needed; free some space and start again",
        dir.display()
    )]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
        /// Bytes the next segment takes.
        needed: u64,
        /// Bytes free now.
        available: u64,
    },
    /// A configured value is out of range.
    #[error("log configuration: {what}")]
    Config {
        /// Which value, and what it may be.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The replication core did not start.
    #[error("the replication core of {} did not start: {reason}", dir.display())]
    Replication {
        /// The data directory.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
}

impl OpenError {
    /// Wraps an I/O error with the action and the path it happened on.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Why a proposal has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// This replica does not lead. The entry was not appended; propose it at the leader.
    #[error("this replica is not the leader{}", hint(leader.as_ref()))]
    NotLeader {
        /// The leader's node id, if one is known.
        leader: Option<u64>,
    },
    /// The entry may or may not be decided. Ask again with the same request id.
    #[error("the outcome is unknown: {reason}; retry with the same request id")]
    Unknown {
        /// What interrupted it.
        reason: String,
    },
    /// The log has stopped. The entry was not appended.
    #[error("the log has stopped: {reason}")]
    Stopped {
        /// Why it stopped.
        reason: String,
    },
    /// The entry is larger than one entry may be. It was not appended; a retry does not help.
    #[error("the entry has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Size of the entry.
        bytes: usize,
        /// Largest size allowed.
        limit: usize,
    },
    /// Too many entries are on their way to the disk. The entry was not appended; retry later.
    #[error("too many entries are in flight ({entries}); retry later")]
    Overloaded {
        /// Entries in flight.
        entries: usize,
    },
}

fn hint(leader: Option<&u64>) -> String {
    leader.map_or_else(String::new, |id| format!(", node {id} is"))
}

/// A failure after which the log takes nothing more. The process must end: a failed forced write
/// is never tried again, because the kernel may have dropped the pages it could not write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFailure {
    /// The disk is full. Nothing that was in flight has been acknowledged.
    DiskFull {
        /// The data directory.
        dir: PathBuf,
        /// Bytes free when it happened.
        available: u64,
    },
    /// A read, write or forced write failed. Nothing that was in flight has been acknowledged.
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What was tried and what the operating system answered.
        what: String,
    },
    /// The replication core or the state machine ended by itself, which is a bug.
    Core {
        /// What it said.
        what: String,
    },
}

impl LogFailure {
    /// Sorts an I/O error: a full disk is told apart, because its owner can do something.
    pub(crate) fn of_io(fs: &dyn Fs, dir: PathBuf, action: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let available = fs.available_bytes(&dir).unwrap_or(0);
                Self::DiskFull { dir, available }
            }
            _ => Self::Io {
                dir,
                what: format!("{action}: {error}"),
            },
        }
    }
}

impl fmt::Display for LogFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull { dir, available } => write!(
                f,
                "no space left on the file system of {} ({available} bytes free): nothing in flight was acknowledged; free some space and start again",
                dir.display()
            ),
            Self::Io { dir, what } => write!(
                f,
                "the log in {} failed: {what}. Nothing in flight was acknowledged; check the disk and start again",
                dir.display()
            ),
            Self::Core { what } => write!(f, "the replication core stopped: {what}"),
        }
    }
}

impl std::error::Error for LogFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every refusal names the thing and says what to do.
    #[test]
    fn refusals_name_the_thing_and_the_way_out() {
        let file = PathBuf::from("/data/log-1.seg");
        let dir = PathBuf::from("/data");
        let id = ClusterId(1);
        let what = "it is torn".to_owned();
        let source = io::Error::other("no");
        let cases = [
            (
                OpenError::AnotherDaemon { dir: dir.clone() },
                "stop that daemon",
            ),
            (
                OpenError::OtherCluster {
                    file: file.clone(),
                    expected: id,
                    found: id,
                },
                "point it at the right data directory",
            ),
            (
                OpenError::NewerVersion {
                    file: file.clone(),
                    found: 2,
                    supported: 1,
                },
                "start the newer version again",
            ),
            (
                OpenError::DamagedMiddle {
                    file: file.clone(),
                    offset: 7,
                    what: what.clone(),
                },
                "at byte 7: it is torn",
            ),
            (
                OpenError::Missing {
                    dir: dir.clone(),
                    what: what.clone(),
                },
                "restore the whole",
            ),
            (
                OpenError::DamagedSnapshot {
                    file: file.clone(),
                    what: what.clone(),
                },
                "restore the directory from a backup",
            ),
            (
                OpenError::Restore {
                    file: file.clone(),
                    reason: what.clone(),
                },
                "start that version again",
            ),
            (
                OpenError::DiskFull {
                    dir: dir.clone(),
                    needed: 5,
                    available: 3,
                },
                "3 bytes are free, 5 are needed; free some space",
            ),
            (
                OpenError::Io {
                    action: "read",
                    path: file,
                    source,
                },
                "cannot read",
            ),
            (
                OpenError::Replication {
                    dir,
                    reason: what.clone(),
                },
                "did not start",
            ),
        ];
        for (error, expected) in cases {
            let text = error.to_string();
            assert!(text.contains("/data") && text.contains(expected), "{text}");
        }
        assert!(
            OpenError::Config { what }
                .to_string()
                .contains("configuration")
        );
    }

    #[test]
    fn a_refused_proposal_says_whether_a_retry_helps() {
        let cases = [
            (
                ProposeError::NotLeader { leader: Some(3) },
                "not the leader, node 3 is",
            ),
            (ProposeError::NotLeader { leader: None }, "not the leader"),
            (
                ProposeError::Unknown {
                    reason: "x".to_owned(),
                },
                "retry with the same request id",
            ),
            (
                ProposeError::Stopped {
                    reason: "x".to_owned(),
                },
                "stopped: x",
            ),
            (
                ProposeError::TooLarge { bytes: 9, limit: 8 },
                "9 bytes, at most 8",
            ),
            (ProposeError::Overloaded { entries: 4 }, "retry later"),
        ];
        for (error, expected) in cases {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
