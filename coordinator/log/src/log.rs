//! The handle that the rest of the process holds.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::ClientWriteResult;
use openraft::{Raft, ReadPolicy, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::StateMachine;
use crate::config::{ClusterId, LogConfig};
use crate::error::{LogFailure, OpenError, ProposeError};
use crate::raft::machine::{Around, Machine};
use crate::raft::network::NoPeers;
use crate::raft::store::LogStore;
use crate::raft::types::{Command, InFlight, Types, Waiter};
use crate::start::{self, Recovered};
use crate::stats::LogStats;
use crate::wal::Failure;
use crate::wal::queue::Wal;
use crate::wal::recover::Drive;

/// Milliseconds between two heartbeats of a leader. Nothing is sent while there are no peers.
const HEARTBEAT_MS: u64 = 250;
/// Milliseconds without a heartbeat after which a follower stands for election, at least and at
/// most.
const ELECTION_MS: std::ops::Range<u64> = 1500..3000;

/// Who decides entries at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This replica, in this term. Propose the entry that takes office.
    Leader {
        /// The term; higher than that of every earlier leader.
        term: u64,
    },
    /// Another replica, or none. Send callers there.
    Follower {
        /// The leader's node id, if known.
        leader: Option<u64>,
    },
}

type Core<S> = Raft<Types<<S as StateMachine>::Response>, Machine<S>>;

struct Inner<S: StateMachine> {
    raft: Core<S>,
    wal: Arc<Wal>,
    around: Around,
    cluster: ClusterId,
    in_flight: Arc<InFlight>,
    config: LogConfig,
    leadership: watch::Receiver<Leadership>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A handle on the log; clones are cheap and all the same log.
///
/// Entries are applied in index order by one task. Call [`Log::shutdown`] before the process
/// ends; a log that is only dropped is a log that was killed, which is safe but slower to reopen.
pub struct Log<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

impl<S: StateMachine> Clone for Log<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: StateMachine> std::fmt::Debug for Log<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("data_dir", &self.inner.config.data_dir)
            .finish_non_exhaustive()
    }
}

/// An entry on its way. Resolves when the entry is durable and applied, with the answer of the
/// state machine. Dropping it does not withdraw the entry.
#[derive(Debug)]
pub struct Proposal<R: Send + Sync + 'static> {
    answer: oneshot::Receiver<ClientWriteResult<Types<R>>>,
    failure: Failure,
}

impl<R: Send + Sync + 'static> Future for Proposal<R> {
    type Output = Result<R, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        let unknown = |reason: String| ProposeError::Unknown { reason };
        Poll::Ready(match answer {
            Ok(Ok(written)) => written
                .data
                .ok_or_else(|| unknown("the entry was applied without an answer".to_owned())),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => Err(ProposeError::NotLeader {
                leader: to.leader_id,
            }),
            Ok(Err(other)) => Err(unknown(other.to_string())),
            Err(_) => Err(unknown(stop_reason(&self.failure))),
        })
    }
}

fn stop_reason(failure: &Failure) -> String {
    failure
        .get()
        .map_or_else(|| "the log was shut down".to_owned(), |why| why.to_string())
}

impl<S: StateMachine> Log<S> {
    /// Opens the directory, restores the newest snapshot into `machine` and applies everything
    /// that was decided before. The first start makes a cluster with this node as its only voter.
    ///
    /// # Errors
    /// Every [`OpenError`] names the file, the reason and what to do. Nothing runs afterwards.
    pub async fn open(config: LogConfig, machine: S) -> Result<Self, OpenError> {
        let for_recovery = config.clone();
        let recovered = tokio::task::spawn_blocking(move || {
            start::recover(&for_recovery, machine, Drive::Threads)
        })
        .await;
        let dir = config.data_dir.clone();
        let broken = |reason: String| OpenError::Replication { dir, reason };
        match recovered {
            Ok(recovered) => Self::run(config, recovered?).await.map_err(broken),
            Err(panic) => Err(broken(panic.to_string())),
        }
    }

    async fn run(config: LogConfig, recovered: Recovered<S>) -> Result<Self, String> {
        let Recovered {
            wal,
            machine,
            around,
            cluster,
            fresh,
        } = recovered;
        let raft = match start_core(&config, &wal, machine, cluster, fresh).await {
            Ok(raft) => raft,
            Err(reason) => {
                around.stopping.store(true, Relaxed);
                // The directory is free again when the caller hears of it; that this may fail
                // changes nothing for it.
                let _ = tokio::task::spawn_blocking(move || wal.end()).await;
                return Err(reason);
            }
        };
        let (leadership_tx, leadership) = watch::channel(Leadership::Follower { leader: None });
        let watcher = tokio::spawn(watch_leadership(
            raft.clone(),
            leadership_tx,
            around.clone(),
        ));
        let keeper = tokio::spawn(keep_snapshots(raft.clone(), around.clone()));
        let inner = Inner {
            raft,
            wal,
            around,
            cluster,
            in_flight: Arc::default(),
            config,
            leadership,
            tasks: Mutex::new(vec![watcher, keeper]),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The cluster this log belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.inner.cluster
    }

    /// Largest entry [`Log::propose`] takes, in bytes.
    pub fn max_entry_bytes(&self) -> usize {
        self.inner.config.max_entry_bytes()
    }

    /// Proposes an entry. Returns once it is queued: entries proposed one after the other by one
    /// task come to stand in the log in that order. Await the [`Proposal`] for the answer; many
    /// may be under way, they share forced writes.
    ///
    /// # Errors
    /// [`ProposeError::TooLarge`], [`ProposeError::Overloaded`] and [`ProposeError::Stopped`]:
    /// the entry was not queued.
    pub async fn propose(&self, entry: Bytes) -> Result<Proposal<S::Response>, ProposeError> {
        let inner = &*self.inner;
        let (bytes, limit) = (entry.len(), inner.config.max_entry_bytes());
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        let failure = &inner.around.failure;
        if inner.around.stopping.load(Relaxed) || failure.get().is_some() {
            return Err(ProposeError::Stopped {
                reason: stop_reason(failure),
            });
        }
        let (most, most_bytes) = (inner.config.max_in_flight, inner.config.max_in_flight_bytes);
        let permit = inner
            .in_flight
            .admit(bytes, most, most_bytes)
            .map_err(|entries| ProposeError::Overloaded { entries })?;
        let (tx, answer) = oneshot::channel();
        let waiter = Waiter { answer: tx, permit };
        match inner
            .raft
            .client_write_ff(Command(entry), Some(waiter))
            .await
        {
            Ok(()) => Ok(Proposal {
                answer,
                failure: failure.clone(),
            }),
            Err(_) => Err(ProposeError::Stopped {
                reason: stop_reason(failure),
            }),
        }
    }

    /// Whether this replica leads; changes are seen by every receiver.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Returns when every entry that was decided before the call is applied here and this replica
    /// was still the leader during the call: what the state machine says now is current.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`]: ask the leader. [`ProposeError::Unknown`]: the leader cannot
    /// reach a majority, ask again. [`ProposeError::Stopped`].
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        match self
            .inner
            .raft
            .ensure_linearizable(ReadPolicy::ReadIndex)
            .await
        {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader {
                    leader: to.leader_id,
                })
            }
            Err(RaftError::APIError(other)) => Err(ProposeError::Unknown {
                reason: other.to_string(),
            }),
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped {
                reason: stop_reason(&self.inner.around.failure),
            }),
        }
    }

    /// What the log has done so far; cheap.
    pub fn stats(&self) -> LogStats {
        self.inner.around.counters.read()
    }

    /// Waits until the log can no longer go on, for ever if it never fails. The caller prints the
    /// failure and ends the process; no proposal is answered with success after it.
    pub async fn failed(&self) -> LogFailure {
        self.inner.around.failure.wait().await
    }

    /// The failure that ended the log, if there was one.
    pub fn failure(&self) -> Option<LogFailure> {
        self.inner.around.failure.get()
    }

    /// Takes a snapshot of everything applied so far and returns when it is on disk. Returns at
    /// once if the newest snapshot covers it.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`] if the log stopped before.
    pub async fn snapshot_now(&self) -> Result<(), ProposeError> {
        let inner = &*self.inner;
        let stopped = || ProposeError::Stopped {
            reason: stop_reason(&inner.around.failure),
        };
        let target = inner.around.counters.applied_index.load(Relaxed);
        let mut metrics = inner.raft.data_metrics();
        loop {
            let done = metrics
                .borrow_and_update()
                .snapshot
                .is_some_and(|id| id.index >= target);
            if done {
                return Ok(());
            }
            inner
                .raft
                .trigger()
                .snapshot()
                .await
                .map_err(|_| stopped())?;
            metrics.changed().await.map_err(|_| stopped())?;
        }
    }

    /// Writes what is under way, ends all tasks and threads and gives up the directory, so that
    /// it can be opened again. Proposals that are not answered yet become
    /// [`ProposeError::Unknown`].
    ///
    /// # Errors
    /// The failure that had ended the log before.
    pub async fn shutdown(&self) -> Result<(), LogFailure> {
        let inner = &*self.inner;
        inner.around.stopping.store(true, Relaxed);
        let tasks = std::mem::take(&mut *inner.tasks.lock());
        for task in &tasks {
            task.abort();
        }
        let joined = inner.raft.shutdown().await.map_err(|e| e.to_string());
        let wal = Arc::clone(&inner.wal);
        let closed = tokio::task::spawn_blocking(move || wal.close()).await;
        if let Some(failure) = inner.around.failure.get() {
            return Err(failure);
        }
        joined
            .and_then(|()| closed.map_err(|e: tokio::task::JoinError| e.to_string()))
            .map_err(|what| LogFailure::Core { what })
    }
}

/// Starts the core on a log that has caught up, and has this replica stand for election.
async fn start_core<S: StateMachine>(
    config: &LogConfig,
    wal: &Arc<Wal>,
    machine: Machine<S>,
    cluster: ClusterId,
    fresh: bool,
) -> Result<Core<S>, String> {
    let store = LogStore(Arc::clone(wal));
    let settings = raft_config(cluster).validate().map_err(|e| e.to_string())?;
    let id = config.node_id;
    let raft = Core::<S>::new(id, Arc::new(settings), NoPeers(PhantomData), store, machine)
        .await
        .map_err(|e| e.to_string())?;
    if fresh {
        let members = BTreeMap::from([(id, BasicNode::new(""))]);
        // Stands for election by itself.
        raft.initialize(members).await.map_err(|e| e.to_string())?;
    } else {
        // The only voter need not wait for an election to time out.
        raft.trigger()
            .elect(false)
            .await
            .map_err(|e| e.to_string())?;
    }
    Ok(raft)
}

fn raft_config(cluster: ClusterId) -> openraft::Config {
    openraft::Config {
        cluster_name: cluster.to_string(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.start,
        election_timeout_max: ELECTION_MS.end,
        // Snapshots and purges are asked for by `keep_snapshots`: two snapshots are kept, and the
        // log back to the older one.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A new term with every start: what an earlier life left in flight can never be mistaken
        // for something of this one.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    }
}

/// Tells the receivers who leads, and notices the end of the core.
async fn watch_leadership<S: StateMachine>(
    raft: Core<S>,
    leadership: watch::Sender<Leadership>,
    around: Around,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            match metrics.state {
                ServerState::Leader => Leadership::Leader {
                    term: metrics.vote.leader_id.term,
                },
                _ => Leadership::Follower {
                    leader: metrics.current_leader,
                },
            }
        };
        leadership.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        if metrics.changed().await.is_err() {
            break;
        }
    }
    leadership.send_replace(Leadership::Follower { leader: None });
    if !around.stopping.load(Relaxed) {
        let what = "its main task ended".to_owned();
        around.failure.set(LogFailure::Core { what });
    }
}

/// Takes snapshots when they are wanted, and gives up the log before the older of the two.
async fn keep_snapshots<S: StateMachine>(raft: Core<S>, around: Around) {
    let mut written = around.written.subscribe();
    loop {
        let alive = tokio::select! {
            () = around.wanted.notified() => raft.trigger().snapshot().await.is_ok(),
            changed = written.changed() => changed.is_ok() && purge(&raft, &around).await,
        };
        if !alive {
            break;
        }
    }
}

/// Gives up the log that both snapshots cover. `false` once the core has ended.
async fn purge<S: StateMachine>(raft: &Core<S>, around: &Around) -> bool {
    let snapshots = Arc::clone(&around.snapshots);
    let needed = tokio::task::spawn_blocking(move || snapshots.log_needed_from())
        .await
        .map_err(io::Error::other)
        .flatten();
    match needed {
        Ok(Some(mark)) => raft.trigger().purge_log(mark.index).await.is_ok(),
        Ok(None) => true,
        Err(error) => {
            tracing::warn!(%error, "snapshots cannot be listed; the log is purged later");
            true
        }
    }
}
