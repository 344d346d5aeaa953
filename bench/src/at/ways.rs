//! The same statement in several ways.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use accede_proto::{Xid, XidParts};
use accede_rm_agent::{Registrar, RmAgent};
use accede_tm_client::{GlobalTransaction, Options, TransactionClient};
use anyhow::{Context as _, bail};
use tokio::{task::JoinHandle, task::JoinSet, time::timeout};

use super::{
    server::Database,
    store::{self, Job, Store, Work},
};
use crate::{clock, coordinator::Coordinator};

/// How long sessions may take to open, and branches to be finished.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks whether undo rows are left.
const LOOK: Duration = Duration::from_millis(3);
/// Statements of each task before a measurement.
const WARM_UP: u32 = 20;

/// How a statement is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In a plain local transaction.
    Plain,
    /// As an AT branch of a global transaction of its own, at the coordinator.
    At,
    /// By hand, each step its own trip, at the same coordinator.
    Naive,
    /// As an AT branch whose registration is answered in this process.
    WithoutCoordinator,
    /// As [`At`](Self::At), but the transaction is rolled back.
    RolledBack,
}

/// All that the ways need, with as many connections as tasks.
pub(super) struct Ways {
    store: Arc<dyn Store>,
    local: Arc<dyn Store>,
    local_xids: AtomicU64,
    agent: RmAgent,
    registrar: Arc<dyn Registrar>,
    transactions: TransactionClient,
    deleter: JoinHandle<()>,
}

impl Ways {
    /// Connects to database and coordinator.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub(super) async fn open(
        database: &Database,
        coordinator: &Coordinator,
        connections: u32,
    ) -> anyhow::Result<Self> {
        let url = database.url();
        let (local, deleter) = store::local(database.kind, &url, connections, &url)?;
        let (agent, store) =
            store::with_agent(database.kind, &url, connections, coordinator).await?;
        let transactions = TransactionClient::builder(&coordinator.address)
            .name("bench")
            .build()?;
        let ways = Self {
            store,
            local,
            local_xids: AtomicU64::new(0),
            registrar: agent.registrar(),
            agent,
            transactions,
            deleter,
        };
        let ready = async {
            ways.transactions.ready().await?;
            // The agent attaches in the background; a branch waits for it.
            ways.one(Way::At, Work::Random).await
        };
        timeout(PATIENCE, ready)
            .await
            .context("agent and coordinator do not come together")??;
        Ok(ways)
    }

    /// Statements per second of one way, the phase two of their branches included.
    ///
    /// # Errors
    /// The first that failed.
    pub(super) async fn measure(
        self: &Arc<Self>,
        way: Way,
        work: Work,
        tasks: u32,
        time: Duration,
    ) -> anyhow::Result<f64> {
        // Dead rows of the round before are not this one's.
        self.store.tidy().await?;
        self.warm_up(way, work, tasks).await?;
        let start = clock::now();
        let until = start + time;
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let ways = Arc::clone(self);
            running.spawn(async move {
                let mut count = 0_u64;
                while clock::now() < until {
                    ways.one(way, work).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut count = 0;
        while let Some(ended) = running.join_next().await {
            count += ended??;
        }
        self.all_finished().await?;
        Ok(count as f64 / (clock::now() - start).as_secs_f64())
    }

    /// Opens the connections and prepares the statements.
    async fn warm_up(self: &Arc<Self>, way: Way, work: Work, tasks: u32) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let ways = Arc::clone(self);
            running.spawn(async move {
                for _ in 0..WARM_UP {
                    ways.one(way, work).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        self.all_finished().await
    }

    /// Waits until phase two has finished every branch.
    async fn all_finished(&self) -> anyhow::Result<()> {
        let until = clock::now() + PATIENCE;
        while self.store.is_undo_left().await? {
            if clock::now() >= until {
                bail!("phase two left undo rows behind for {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn one(&self, way: Way, work: Work) -> anyhow::Result<()> {
        let job = match way {
            // A row whose undo is still under way would have to be waited for.
            Way::RolledBack => Job::change_another(),
            _ => work.job(),
        };
        match way {
            Way::Plain => self.store.plain(job).await?,
            Way::At => {
                let global = self.begin().await?;
                global.scope(self.store.branch(job)).await?;
                global.commit().await?;
            }
            Way::RolledBack => {
                let global = self.begin().await?;
                global.scope(self.store.branch(job)).await?;
                global.roll_back("to be measured").await?;
            }
            Way::Naive => {
                let Job::Change(product) = job else {
                    bail!("by hand only one row is changed");
                };
                let global = self.begin().await?;
                let registrar = self.registrar.as_ref();
                let by_hand = self.store.by_hand(registrar, global.xid(), product);
                by_hand.await?;
                global.commit().await?;
            }
            Way::WithoutCoordinator => {
                let number = self.local_xids.fetch_add(1, Relaxed);
                self.local.branch_in(xid(number)?, job).await?;
            }
        }
        Ok(())
    }

    async fn begin(&self) -> anyhow::Result<GlobalTransaction> {
        Ok(self.transactions.begin(Options::new("bench")).await?)
    }

    /// Ends the sessions and closes the connections.
    pub(super) async fn close(self: Arc<Self>) {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        self.store.close().await;
        self.local.close().await;
        self.deleter.abort();
    }
}

/// Ids that no coordinator knows.
pub(super) fn xid(number: u64) -> anyhow::Result<Xid> {
    let parts = XidParts {
        time_ms: 1 + number / 512,
        sequence: (number % 512) as u16,
        worker: 0,
    };
    Xid::from_parts(parts).context("more ids than there are")
}
