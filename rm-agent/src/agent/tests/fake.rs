//! A database that does as the test says.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::database::{
    BranchKey, CheckError, Database, Ledger, Leftover, LeftoverKind, Meta, PhaseTwoError,
    UndoPolicy,
};
use crate::{Error, agent::orders::Ended};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Deleted(Vec<BranchKey>),
    RolledBack(BranchKey, bool, UndoPolicy),
    RolledBackTogether(Vec<BranchKey>),
    Purged(Vec<BranchKey>),
    CommittedPrepared(BranchKey),
    Prepared(BranchKey),
}

pub(super) struct Fake {
    meta: Mutex<Meta>,
    /// Whether it can be reached at all.
    up: watch::Sender<bool>,
    /// Whether phase two gets on; it waits while this is false.
    open: watch::Sender<bool>,
    /// How many steps of phase two have been begun.
    begun: watch::Sender<usize>,
    pub(super) result: Mutex<Result<(), PhaseTwoError>>,
    pub(super) done: Mutex<Vec<Done>>,
    pub(super) left: Mutex<Vec<Leftover>>,
    /// Whether it can undo branches together, all but these.
    pub(super) together_but: Mutex<Option<Vec<BranchKey>>>,
    /// The cluster that somebody else ties it to right before the agent can.
    pub(super) snatched_by: Mutex<Option<[u8; 16]>>,
}

impl Fake {
    pub(super) fn new(id: u8) -> Arc<Self> {
        Arc::new(Self {
            meta: Mutex::new(Meta {
                database_id: Uuid::from_bytes([id; 16]),
                cluster_id: None,
            }),
            up: watch::Sender::new(true),
            open: watch::Sender::new(true),
            begun: watch::Sender::new(0),
            result: Mutex::new(Ok(())),
            done: Mutex::default(),
            left: Mutex::default(),
            together_but: Mutex::default(),
            snatched_by: Mutex::default(),
        })
    }

    pub(super) fn set_cluster(&self, cluster: Option<[u8; 16]>) {
        self.meta.lock().cluster_id = cluster.map(Uuid::from_bytes);
    }

    pub(super) fn cluster(&self) -> Option<[u8; 16]> {
        self.meta.lock().cluster_id.map(Uuid::into_bytes)
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    pub(super) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Waits until this many steps of phase two have been begun.
    pub(super) async fn until_begun(&self, steps: usize) {
        self.begun
            .subscribe()
            .wait_for(|begun| *begun >= steps)
            .await
            .expect("lives");
    }

    pub(super) fn leave(&self, xid: u64, kind: LeftoverKind, age: Duration) {
        self.left.lock().push(Leftover {
            key: BranchKey {
                xid: super::xid(xid),
                branch: 1,
            },
            kind,
            age,
        });
    }

    async fn step(&self, done: Done) -> Result<(), PhaseTwoError> {
        self.begun.send_modify(|begun| *begun += 1);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("lives");
        self.done.lock().push(done);
        self.result.lock().clone()
    }
}

impl Database for Fake {
    fn check(&self) -> BoxFuture<'_, Result<Meta, CheckError>> {
        Box::pin(async move {
            if *self.up.borrow() {
                Ok(*self.meta.lock())
            } else {
                Err(CheckError::Unavailable("connection refused".into()))
            }
        })
    }

    fn claim(&self, cluster: [u8; 16]) -> BoxFuture<'_, Result<(), CheckError>> {
        Box::pin(async move {
            let ours = Uuid::from_bytes(cluster);
            let mut meta = self.meta.lock();
            if let Some(other) = self.snatched_by.lock().take() {
                meta.cluster_id = Some(Uuid::from_bytes(other));
            }
            match *meta.cluster_id.get_or_insert(ours) {
                found if found == ours => Ok(()),
                found => Err(CheckError::Wrong(Error::OtherCluster {
                    found,
                    expected: ours,
                })),
            }
        })
    }

    fn delete_undo<'a>(
        &'a self,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(self.step(Done::Deleted(branches.to_vec())))
    }

    fn roll_back(
        &self,
        branch: BranchKey,
        was_done: bool,
        policy: UndoPolicy,
    ) -> BoxFuture<'_, Result<(), PhaseTwoError>> {
        Box::pin(self.step(Done::RolledBack(branch, was_done, policy)))
    }

    fn roll_back_together<'a>(
        &'a self,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<Vec<BranchKey>, PhaseTwoError>> {
        Box::pin(async move {
            let Some(but) = self.together_but.lock().clone() else {
                return Ok(Vec::new());
            };
            self.step(Done::RolledBackTogether(branches.to_vec()))
                .await?;
            let simple = branches.iter().filter(|branch| !but.contains(branch));
            Ok(simple.copied().collect())
        })
    }

    fn commit_prepared<'a>(
        &'a self,
        branch: BranchKey,
        _payload: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(self.step(Done::CommittedPrepared(branch)))
    }

    fn prepare_open<'a>(
        &'a self,
        branch: BranchKey,
        _payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(async move {
            self.step(Done::Prepared(branch)).await?;
            Ok(Ended::Prepared)
        })
    }

    fn check_fences(&self) -> BoxFuture<'_, Result<(), CheckError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn leftovers(
        &self,
        _: Ledger,
        older_than: Duration,
        after: Option<BranchKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, PhaseTwoError>> {
        Box::pin(async move {
            let left = self.left.lock();
            Ok(left
                .iter()
                .filter(|leftover| leftover.age >= older_than)
                .filter(|leftover| after.is_none_or(|after| leftover.key > after))
                .take(limit)
                .copied()
                .collect())
        })
    }

    fn purge_markers<'a>(
        &'a self,
        _: Ledger,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(async move {
            self.done.lock().push(Done::Purged(branches.to_vec()));
            self.left
                .lock()
                .retain(|leftover| !branches.contains(&leftover.key));
            Ok(())
        })
    }
}
