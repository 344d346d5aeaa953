//! The user's state machine as the replication core drives it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::{Stream, TryStreamExt};
use openraft::alias::SnapshotOf;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::members;
use super::types::{self, Command, Entry, LogId, SnapshotMeta, StoredMembers, Types};
use crate::StateMachine;
use crate::config::SnapshotEvery;
use crate::error::LogFailure;
use crate::snapshot::{Covers, SnapshotFile, Snapshots, Unusable};
use crate::stats::Counters;
use crate::wal::Failure;

/// What the state machine's side shares with the handles on the log.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) failure: Failure,
    /// Asks for a snapshot.
    pub(crate) wanted: Arc<Notify>,
    /// Bumped when a snapshot is on disk.
    pub(crate) written: watch::Sender<u64>,
    /// Set when the log is shut down on purpose.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// The state machine, and how far it has come.
pub(crate) struct Machine<S> {
    // The lock is never contended: it makes the state machine shareable in name only.
    machine: Mutex<S>,
    around: Around,
    every: SnapshotEvery,
    applied: Option<LogId>,
    members: StoredMembers,
    since: SnapshotEvery,
}

impl<S: StateMachine> Machine<S> {
    pub(crate) fn new(machine: S, around: Around, every: SnapshotEvery) -> Self {
        Self {
            machine: Mutex::new(machine),
            around,
            every,
            applied: None,
            members: StoredMembers::default(),
            since: SnapshotEvery {
                entries: 0,
                bytes: 0,
            },
        }
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    pub(crate) fn members(&self) -> &StoredMembers {
        &self.members
    }

    /// Applies one decided entry.
    pub(crate) fn apply_entry(&mut self, entry: Entry) -> Option<S::Response> {
        let log_id = entry.log_id;
        let response = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(Command(bytes)) => {
                self.since.entries += 1;
                self.since.bytes += bytes.len() as u64;
                Some(self.machine.get_mut().apply(log_id.index, &bytes))
            }
            EntryPayload::Membership(members) => {
                self.members = StoredMembers::new(Some(log_id), members);
                None
            }
        };
        self.applied = Some(log_id);
        self.around
            .counters
            .applied_index
            .store(log_id.index, Relaxed);
        if self.since.entries >= self.every.entries || self.since.bytes >= self.every.bytes {
            self.since = SnapshotEvery {
                entries: 0,
                bytes: 0,
            };
            self.around.wanted.notify_one();
        }
        response
    }

    /// Replaces the state by that of a snapshot.
    pub(crate) fn restore(&mut self, covers: &Covers, content: &[u8]) -> Result<(), String> {
        let members = members::decode(&covers.members).map_err(|e| e.to_string())?;
        self.machine.get_mut().restore(content)?;
        self.applied = covers.last.map(types::log_id);
        self.members = StoredMembers::new(covers.members_at.map(types::log_id), members);
        let index = covers.last.map_or(0, |mark| mark.index);
        self.around.counters.applied_index.store(index, Relaxed);
        Ok(())
    }

    /// The user's state machine, between two entries.
    pub(crate) fn state_machine(&mut self) -> &mut S {
        self.machine.get_mut()
    }

    /// Writes a snapshot of everything applied, on the caller's thread.
    pub(crate) fn write_snapshot(&self) -> io::Result<()> {
        let content = self.machine.lock().snapshot();
        let snapshots = &self.around.snapshots;
        snapshots.write(&self.covers(), &content).map(drop)
    }

    fn covers(&self) -> Covers {
        Covers {
            last: self.applied.as_ref().map(types::mark),
            members_at: self.members.log_id().as_ref().map(types::mark),
            members: members::encode(self.members.membership()),
        }
    }

    fn builder(&self) -> Builder {
        Builder {
            content: Arc::new(self.machine.lock().snapshot()),
            covers: self.covers(),
            around: self.around.clone(),
        }
    }
}

impl<S> Drop for Machine<S> {
    /// The core lets go of the state machine when it ends. If nobody asked for that, the process
    /// must not go on as if it had a log.
    fn drop(&mut self) {
        if !self.around.stopping.load(Relaxed) {
            let what = "the task that applies entries ended".to_owned();
            self.around.failure.set(LogFailure::Core { what });
        }
    }
}

/// A state on its way to disk.
pub(crate) struct Builder {
    covers: Covers,
    content: Arc<Vec<u8>>,
    around: Around,
}

fn meta(covers: &Covers) -> io::Result<SnapshotMeta> {
    let members = members::decode(&covers.members)?;
    Ok(SnapshotMeta {
        last_log_id: covers.last.map(types::log_id),
        last_membership: StoredMembers::new(covers.members_at.map(types::log_id), members),
    })
}

impl<R: Send + Sync + 'static> RaftSnapshotBuilder<Types<R>> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types<R>, SnapshotFile>> {
        let (snapshots, covers) = (Arc::clone(&self.around.snapshots), self.covers.clone());
        let content = Arc::clone(&self.content);
        let written = tokio::task::spawn_blocking(move || snapshots.write(&covers, &content))
            .await
            .map_err(io::Error::other)
            .flatten();
        match written {
            Ok(file) => {
                self.around.written.send_modify(|count| *count += 1);
                Ok(SnapshotOf::<Types<R>, _> {
                    meta: meta(&self.covers)?,
                    snapshot: file,
                })
            }
            Err(error) => {
                let snapshots = &self.around.snapshots;
                let dir = snapshots.dir.clone();
                self.around.failure.set(LogFailure::of_io(
                    snapshots.fs.as_ref(),
                    dir,
                    "writing a snapshot",
                    &error,
                ));
                Err(error)
            }
        }
    }
}

impl<S: StateMachine> RaftStateMachine<Types<S::Response>> for Machine<S> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembers)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types<S::Response>>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            debug_assert!(
                self.applied
                    .is_none_or(|applied| applied.index < entry.index()),
                "entries are applied in order and once"
            );
            let response = self.apply_entry(entry);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let applied = self.applied.as_ref().map(types::mark);
        let newest = self
            .around
            .snapshots
            .latest()
            .and_then(|(covers, _)| covers.last);
        if !force && newest == applied {
            return None;
        }
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let read = move || snapshot.read();
        let (_, content) = tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)?
            .map_err(Unusable::into_io)?;
        let covers = Covers {
            last: meta.last_log_id.as_ref().map(types::mark),
            members_at: meta.last_membership.log_id().as_ref().map(types::mark),
            members: members::encode(meta.last_membership.membership()),
        };
        self.restore(&covers, &content).map_err(io::Error::other)?;
        let snapshots = Arc::clone(&self.around.snapshots);
        tokio::task::spawn_blocking(move || snapshots.write(&covers, &content))
            .await
            .map_err(io::Error::other)??;
        self.around.written.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<Types<S::Response>, SnapshotFile>>> {
        let Some((covers, file)) = self.around.snapshots.latest() else {
            return Ok(None);
        };
        Ok(Some(SnapshotOf::<Types<S::Response>, _> {
            meta: meta(&covers)?,
            snapshot: file,
        }))
    }
}
