//! One row that many writers want at the same time. Their transactions stay open for a while after
//! the local commit, as for a second branch elsewhere. On PostgreSQL, which has escrow.

use std::time::Duration;

use accede_rm_agent::{AtPool, RmAgent};
use accede_tm_client::{Options, TransactionClient};
use anyhow::Context as _;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{server::Database, store::RESOURCE};
use crate::{clock, coordinator::Coordinator};

/// Writers.
pub(super) const WRITERS: u32 = 32;
/// How long a transaction stays open after its branch has committed locally.
pub(super) const OPEN: [Duration; 2] = [Duration::ZERO, Duration::from_millis(10)];

/// Far away: nobody ever waits for them.
const BOUNDS: std::ops::RangeInclusive<i64> = -1_000_000_000_000..=1_000_000_000_000;
const UPDATE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";
/// How long agent and coordinator may take to come together.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// By one transaction after the other.
    Exclusive,
    /// By all at once.
    Escrow,
}

impl Mode {
    /// As the workload is called.
    pub(super) fn workload(self) -> &'static str {
        match self {
            Self::Exclusive => "hot_exclusive",
            Self::Escrow => "hot_escrow",
        }
    }
}

/// An agent whose pool locks the row in one of the two ways.
pub(super) struct Hot {
    agent: RmAgent,
    pool: AtPool,
    transactions: TransactionClient,
}

impl Hot {
    /// Connects to database and coordinator.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub(super) async fn open(
        database: &Database,
        coordinator: &Coordinator,
        mode: Mode,
    ) -> anyhow::Result<Self> {
        let pool = AtPool::builder(&database.url()).max_connections(WRITERS);
        let pool = match mode {
            Mode::Exclusive => pool,
            Mode::Escrow => pool.escrow_column("stock", "count", BOUNDS),
        };
        let agent = RmAgent::builder("bench-hot")
            .coordinator(&coordinator.address)
            .pool(RESOURCE, pool)
            .start()
            .await?;
        let transactions = TransactionClient::builder(&coordinator.address)
            .name("bench-hot")
            .build()?;
        let hot = Self {
            pool: agent.pool(RESOURCE)?,
            agent,
            transactions,
        };
        let ready = async {
            hot.transactions.ready().await?;
            one(&hot.pool, &hot.transactions, Duration::ZERO).await
        };
        timeout(PATIENCE, ready)
            .await
            .context("agent and coordinator do not come together")??;
        Ok(hot)
    }

    /// Transactions per second of all writers.
    ///
    /// # Errors
    /// The first that failed.
    pub(super) async fn measure(&self, open: Duration, time: Duration) -> anyhow::Result<f64> {
        // Dead versions of the one row are not this measurement's.
        sqlx::raw_sql("VACUUM stock")
            .execute(self.pool.plain())
            .await?;
        let start = clock::now();
        let until = start + time;
        let mut running = JoinSet::new();
        for _ in 0..WRITERS {
            let (pool, transactions) = (self.pool.clone(), self.transactions.clone());
            running.spawn(async move {
                let mut count = 0_u64;
                while clock::now() < until {
                    one(&pool, &transactions, open).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut count = 0;
        while let Some(ended) = running.join_next().await {
            count += ended??;
        }
        Ok(count as f64 / (clock::now() - start).as_secs_f64())
    }

    /// Ends the sessions and closes the connections.
    pub(super) async fn close(self) {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        self.pool.plain().close().await;
    }
}

async fn one(
    pool: &AtPool,
    transactions: &TransactionClient,
    open: Duration,
) -> anyhow::Result<()> {
    let transaction = transactions.begin(Options::new("bench")).await?;
    transaction
        .scope(pool.run(|branch| {
            Box::pin(async move {
                sqlx::query(UPDATE).execute(branch).await?;
                Ok::<_, sqlx::Error>(())
            })
        }))
        .await?;
    if !open.is_zero() {
        sleep(open).await;
    }
    transaction.commit().await?;
    Ok(())
}
