//! Bringing the state machine to where it was: newest good snapshot, then the log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use openraft::EntryPayload;
use tokio::sync::{Notify, watch};

use crate::StateMachine;
use crate::config::LogConfig;
use crate::error::OpenError;
use crate::raft::machine::{Around, Machine};
use crate::raft::types::{self, Members};
use crate::snapshot::{SnapshotFile, Snapshots, Unusable};
use crate::wal::Mark;
use crate::wal::format::VERSION;
use crate::wal::queue::Wal;
use crate::wal::recover::{self, Drive};

/// Entries read and applied at a time.
const CHUNK: u64 = 1024;

/// A log whose state machine has caught up.
pub(crate) struct Recovered<S> {
    pub(crate) wal: Arc<Wal>,
    pub(crate) machine: Machine<S>,
    pub(crate) around: Around,
    pub(crate) cluster: crate::config::ClusterId,
    /// Nothing was ever decided here.
    pub(crate) fresh: bool,
}

/// Opens the directory and applies everything that is decided. Blocks.
pub(crate) fn recover<S: StateMachine>(
    config: &LogConfig,
    machine: S,
    drive: Drive,
) -> Result<Recovered<S>, OpenError> {
    let opened = recover::open(config, drive)?;
    let cluster = opened.cluster;
    let wal = match drive {
        Drive::Threads => Wal::threaded(opened.writer)
            .map_err(OpenError::io("start a thread for", &config.data_dir))?,
        Drive::Inline => Wal::inline(opened.writer),
    };
    let counters = Arc::clone(&wal.shared.counters);
    let snapshots = Snapshots::new(
        Arc::clone(&config.fs),
        config.data_dir.clone(),
        cluster,
        Arc::clone(&counters),
    );
    let around = Around {
        snapshots: Arc::new(snapshots),
        counters,
        failure: wal.shared.failure.clone(),
        wanted: Arc::new(Notify::new()),
        written: watch::Sender::new(0),
        stopping: Arc::default(),
    };
    let mut machine = Machine::new(machine, around.clone(), config.snapshot_every);
    let start = Start {
        config,
        wal: &wal,
        snapshots: &around.snapshots,
    };
    let caught_up = start
        .load_snapshot(&mut machine)
        .and_then(|()| start.replay(&mut machine));
    if let Err(error) = caught_up {
        around.stopping.store(true, Relaxed);
        // The directory is free again when the caller hears of it.
        wal.end();
        return Err(error);
    }
    let fresh = machine.applied().is_none() && wal.shared.memory.lock().last().is_none();
    Ok(Recovered {
        wal: Arc::new(wal),
        machine,
        around,
        cluster,
        fresh,
    })
}

struct Start<'a> {
    config: &'a LogConfig,
    wal: &'a Wal,
    snapshots: &'a Snapshots,
}

impl Start<'_> {
    fn load_snapshot<S: StateMachine>(&self, machine: &mut Machine<S>) -> Result<(), OpenError> {
        let dir = &self.config.data_dir;
        let purged = self.wal.shared.memory.lock().purged;
        let mut damaged = None;
        for (mark, file) in self.snapshots.list().map_err(OpenError::io("list", dir))? {
            let covered = purged.is_none_or(|purged| purged.index <= mark.index);
            if !covered {
                break;
            }
            match self.load(machine, &file)? {
                None => return Ok(()),
                Some(what) => {
                    tracing::error!(
                        file = %file.path().display(), what,
                        "a snapshot is damaged; the one before it is tried"
                    );
                    damaged.get_or_insert((file, what));
                }
            }
        }
        match (damaged, purged) {
            (_, None) => Ok(()),
            (Some((file, what)), Some(_)) => Err(OpenError::DamagedSnapshot {
                file: file.path().to_path_buf(),
                what,
            }),
            (None, Some(purged)) => Err(OpenError::Missing {
                dir: dir.clone(),
                what: format!("a snapshot that covers the entries up to {}", purged.index),
            }),
        }
    }

    /// Restores one snapshot, or says how it is damaged.
    fn load<S: StateMachine>(
        &self,
        machine: &mut Machine<S>,
        file: &SnapshotFile,
    ) -> Result<Option<String>, OpenError> {
        let path = file.path().to_path_buf();
        let (covers, content) = match file.read() {
            Ok(read) => read,
            Err(Unusable::Damaged(what)) => return Ok(Some(what)),
            Err(Unusable::Newer(found)) => {
                let supported = u32::from(VERSION);
                return Err(OpenError::NewerVersion {
                    file: path,
                    found,
                    supported,
                });
            }
            Err(Unusable::OtherCluster(found)) => {
                let expected = self.snapshots.cluster;
                return Err(OpenError::OtherCluster {
                    file: path,
                    expected,
                    found,
                });
            }
            Err(Unusable::Io(e)) => return Err(OpenError::io("read", &path)(e)),
        };
        machine
            .restore(&covers, &content)
            .map_err(|reason| OpenError::Restore { file: path, reason })?;
        self.snapshots
            .set_latest(covers, file.clone(), content.len() as u64);
        Ok(None)
    }

    /// Applies the decided part of the log. With one voter that is all of it: what this replica
    /// has on disk, a majority has on disk.
    fn replay<S: StateMachine>(&self, machine: &mut Machine<S>) -> Result<(), OpenError> {
        let last = self.wal.shared.memory.lock().last();
        let decided = if self.is_alone(machine, last)? {
            last
        } else {
            self.wal.shared.memory.lock().committed
        };
        self.wal.shared.memory.lock().committed = decided;
        let (Some(decided), from) = (decided, next_index(machine)) else {
            return Ok(());
        };
        self.each(from..decided.index + 1, |entry| {
            machine.apply_entry(entry);
        })
    }

    /// Whether this replica is the only voter, by the last membership in snapshot and log.
    fn is_alone<S: StateMachine>(
        &self,
        machine: &Machine<S>,
        last: Option<Mark>,
    ) -> Result<bool, OpenError> {
        let mut members: Members = machine.members().membership().clone();
        let end = last.map_or(0, |mark| mark.index + 1);
        self.each(next_index(machine)..end, |entry| {
            if let EntryPayload::Membership(set) = entry.payload {
                members = set;
            }
        })?;
        let me = self.config.node_id;
        let voters: Vec<u64> = members.voter_ids().collect();
        if !voters.is_empty() && members.get_node(&me).is_none() {
            return Err(OpenError::Config {
                what: format!("this is node {me}, but the log's members are {voters:?}"),
            });
        }
        Ok(voters == [me])
    }

    fn each(
        &self,
        range: std::ops::Range<u64>,
        mut visit: impl FnMut(types::Entry),
    ) -> Result<(), OpenError> {
        let read = OpenError::io;
        let mut from = range.start;
        while from < range.end {
            let to = range.end.min(from + CHUNK);
            let dir = &self.config.data_dir;
            for entry in self
                .wal
                .read(from..to)
                .map_err(read("read the log in", dir))?
            {
                visit(types::from_log(entry).map_err(read("read the log in", dir))?);
            }
            from = to;
        }
        Ok(())
    }
}

fn next_index<S: StateMachine>(machine: &Machine<S>) -> u64 {
    machine.applied().map_or(0, |applied| applied.index + 1)
}
