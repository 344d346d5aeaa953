//! The same UPDATE in four ways.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use accede_proto::{Xid, XidParts};
use accede_rm_agent::{AtPool, Registrar, Registration, RmAgent};
use accede_tm_client::{Options, TransactionClient};
use anyhow::{Context as _, bail};
use sqlx::{PgPool, Row as _, postgres::PgPoolOptions};
use tokio::{task::JoinHandle, task::JoinSet, time::timeout};

use super::{
    database::{Database, ROWS},
    local::LocalRegistrar,
};
use crate::{clock, coordinator::Coordinator};

/// The name of the database at the coordinator.
pub(super) const RESOURCE: &str = "bench-db";
const UPDATE: &str = "UPDATE stock SET count = count - 1 WHERE product = $1";

/// How long sessions may take to open, and branches to be finished.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks whether undo rows are left.
const LOOK: Duration = Duration::from_millis(3);
/// How long the naive way waits for a row lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How the UPDATE is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A plain local transaction.
    Plain,
    /// An AT branch of a global transaction of its own, at the coordinator.
    At,
    /// By hand, each step its own trip, at the same coordinator.
    Naive,
    /// An AT branch whose registration is answered in this process.
    WithoutCoordinator,
}

impl Way {
    /// In the order in which they take turns.
    pub(super) const ALL: [Self; 4] =
        [Self::Plain, Self::At, Self::Naive, Self::WithoutCoordinator];
}

/// All that the four ways need, with as many connections as tasks.
pub(super) struct Ways {
    plain: PgPool,
    naive: PgPool,
    at: AtPool,
    local: AtPool,
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
        let url = database.url.as_str();
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .test_before_acquire(false)
                .connect_lazy(url)
        };
        let (local, deleter) = local_pool(AtPool::builder(url), pool(1)?, connections)?;
        let agent = RmAgent::builder("bench")
            .coordinator(&coordinator.address)
            .pool(RESOURCE, AtPool::builder(url).max_connections(connections))
            .start()
            .await?;
        let transactions = TransactionClient::builder(&coordinator.address)
            .name("bench")
            .build()?;
        let ways = Self {
            plain: pool(connections)?,
            naive: pool(connections)?,
            at: agent.pool(RESOURCE)?,
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
            ways.one(Way::At).await
        };
        timeout(PATIENCE, ready)
            .await
            .context("agent and coordinator do not come together")??;
        Ok(ways)
    }

    /// Branches per second of one way, their phase two included.
    ///
    /// # Errors
    /// The first branch that failed.
    pub(super) async fn measure(
        self: &Arc<Self>,
        way: Way,
        tasks: u32,
        time: Duration,
    ) -> anyhow::Result<f64> {
        // Dead rows of the round before are not this one's.
        for statement in ["VACUUM undo_log", "VACUUM stock", "CHECKPOINT"] {
            sqlx::raw_sql(statement).execute(&self.plain).await?;
        }
        self.warm_up(way, tasks).await?;
        let start = clock::now();
        let until = start + time;
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let ways = Arc::clone(self);
            running.spawn(async move {
                let mut branches = 0_u64;
                while clock::now() < until {
                    ways.one(way).await?;
                    branches += 1;
                }
                anyhow::Ok(branches)
            });
        }
        let mut branches = 0;
        while let Some(ended) = running.join_next().await {
            branches += ended??;
        }
        self.all_finished().await?;
        Ok(branches as f64 / (clock::now() - start).as_secs_f64())
    }

    /// Opens the connections and prepares the statements.
    async fn warm_up(self: &Arc<Self>, way: Way, tasks: u32) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let ways = Arc::clone(self);
            running.spawn(async move {
                for _ in 0..20 {
                    ways.one(way).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        self.all_finished().await
    }

    /// Waits until phase two has deleted every undo row.
    pub(super) async fn all_finished(&self) -> anyhow::Result<()> {
        let until = clock::now() + PATIENCE;
        loop {
            let left: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM undo_log)")
                .fetch_one(&self.plain)
                .await?;
            if !left {
                return Ok(());
            }
            if clock::now() >= until {
                bail!("phase two left undo rows behind for {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn one(&self, way: Way) -> anyhow::Result<()> {
        let product = rand::random_range(1..=ROWS);
        match way {
            Way::Plain => self.plain(product).await?,
            Way::At => self.at(product).await?,
            Way::Naive => self.naive(product).await?,
            Way::WithoutCoordinator => {
                let number = self.local_xids.fetch_add(1, Relaxed);
                branch(&self.local, xid(number)?, product).await?;
            }
        }
        Ok(())
    }

    async fn plain(&self, product: i64) -> sqlx::Result<()> {
        let mut transaction = self.plain.begin().await?;
        sqlx::query(UPDATE)
            .bind(product)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    async fn at(&self, product: i64) -> anyhow::Result<()> {
        let transaction = self.transactions.begin(Options::new("bench")).await?;
        transaction
            .scope(self.at.run(|branch| {
                Box::pin(async move {
                    sqlx::query(UPDATE).bind(product).execute(branch).await?;
                    Ok::<_, sqlx::Error>(())
                })
            }))
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn naive(&self, product: i64) -> anyhow::Result<()> {
        let global = self.transactions.begin(Options::new("bench")).await?;
        let xid = global.xid();
        let mut transaction = self.naive.begin().await?;
        let before = sqlx::query("SELECT * FROM stock WHERE product = $1 FOR UPDATE")
            .bind(product)
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query(UPDATE)
            .bind(product)
            .execute(&mut *transaction)
            .await?;
        let after = sqlx::query("SELECT * FROM stock WHERE product = $1")
            .bind(product)
            .fetch_one(&mut *transaction)
            .await?;
        let images = serde_json::json!({
            "table": "stock", "kind": "update", "before": image(&before)?, "after": image(&after)?,
        });
        let registration = Registration {
            xid,
            resource: RESOURCE.into(),
            row_locks: vec![format!("stock:{product}").into_bytes().into()],
            escrow_locks: Vec::new(),
            wait_limit: LOCK_WAIT,
        };
        let registered = self.registrar.register(registration).await?;
        sqlx::query(
            "INSERT INTO undo_log (xid, branch_id, rollback_info, log_status, log_created)
             VALUES ($1, $2, $3, 0, now())",
        )
        .bind(xid.as_u64().cast_signed())
        .bind(registered.branch.cast_signed())
        .bind(images.to_string().into_bytes())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.registrar.done(xid, registered.branch);
        global.commit().await?;
        Ok(())
    }

    /// Ends the sessions and closes the connections.
    ///
    /// # Errors
    /// When the task that deletes undo rows failed.
    pub(super) async fn close(self: Arc<Self>) -> anyhow::Result<()> {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        for pool in [
            &self.plain,
            &self.naive,
            self.at.plain(),
            self.local.plain(),
        ] {
            pool.close().await;
        }
        self.deleter.abort();
        Ok(())
    }
}

/// An AT pool whose branches are registered in this process, and the task that finishes them.
pub(super) fn local_pool(
    builder: accede_rm_agent::AtPoolBuilder,
    phase_two: PgPool,
    connections: u32,
) -> anyhow::Result<(AtPool, JoinHandle<()>)> {
    let (registrar, deleter) = LocalRegistrar::start(phase_two);
    let pool = builder
        .resource(RESOURCE)
        .max_connections(connections)
        .build(registrar)?;
    Ok((pool, deleter))
}

/// One branch on its own.
pub(super) async fn branch(pool: &AtPool, xid: Xid, product: i64) -> sqlx::Result<()> {
    let mut branch = pool.begin_in(xid).await?;
    sqlx::query(UPDATE)
        .bind(product)
        .execute(&mut branch)
        .await?;
    branch.commit().await
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

fn image(row: &sqlx::postgres::PgRow) -> sqlx::Result<serde_json::Value> {
    let field = |name: &str, kind: &str, value: serde_json::Value| serde_json::json!({"name": name, "keyType": "NULL", "type": kind, "value": value});
    Ok(serde_json::json!({"rows": [{"fields": [
        field("product", "bigint", row.try_get::<i64, _>("product")?.into()),
        field("name", "text", row.try_get::<&str, _>("name")?.into()),
        field("count", "bigint", row.try_get::<i64, _>("count")?.into()),
        field("reserved", "bigint", row.try_get::<i64, _>("reserved")?.into()),
        field("note", "text", row.try_get::<Option<&str>, _>("note")?.into()),
    ]}], "tableName": "stock"}))
}
