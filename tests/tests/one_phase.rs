//! Transactions of XA branches with a real daemon and a real database: one with a single branch
//! commits in one phase, one with two prepares, and each ends as its client was told, also when the
//! daemon or the database's sessions are killed meanwhile.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{path::PathBuf, time::Duration};

use accede_rm_agent::{AtPool, RmAgent, schema};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{
    CommitError, Options, Outcome, RollBackCause, RollBackError, TransactionClient, Xid,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Far beyond a restart of the daemon.
const SOON: Duration = Duration::from_secs(60);
/// Enough that some are under way at any moment.
const ORDERS: i64 = 64;

const TABLES: &str = "
    CREATE TABLE parcels (id bigint PRIMARY KEY);
    CREATE TABLE bills (id bigint PRIMARY KEY)";

#[derive(Clone)]
struct Shop {
    stock: AtPool,
    money: AtPool,
    transactions: TransactionClient,
}

async fn insert(pool: &AtPool, table: &'static str, number: i64) -> Result<i32, sqlx::Error> {
    let mut tx = pool.xa().begin().await?;
    let sql = format!("INSERT INTO {table} VALUES ($1) RETURNING pg_backend_pid()");
    let backend = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(number)
        .fetch_one(&mut tx)
        .await?;
    tx.commit().await?;
    Ok(backend)
}

impl Shop {
    /// Every second order has one branch, the others two; every fifth is given up. Whether it was
    /// placed.
    async fn order(&self, number: i64) -> anyhow::Result<bool> {
        let order = self.transactions.begin(Options::new("order")).await?;
        let xid = order.xid();
        let work = order.scope(async {
            insert(&self.stock, "parcels", number).await?;
            if number % 2 == 0 {
                insert(&self.money, "bills", number).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
        if work.await.is_err() || number % 5 == 0 {
            return match order.roll_back("changed my mind").await {
                Ok(_) => Ok(false),
                Err(RollBackError::Unknown { .. }) => self.ended(xid).await,
                Err(error) => Err(error.into()),
            };
        }
        match order.commit().await {
            Ok(_) => Ok(true),
            Err(CommitError::RolledBack(_) | CommitError::NeverBegun { .. }) => Ok(false),
            Err(CommitError::Unknown { .. }) => self.ended(xid).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn ended(&self, xid: Xid) -> anyhow::Result<bool> {
        eventually("its outcome is told", SOON, async || {
            match self.transactions.outcome(xid).await.ok()? {
                Outcome::Committed(_) => Some(true),
                Outcome::RolledBack(_) | Outcome::NotBegun => Some(false),
                _ => None,
            }
        })
        .await
    }

    async fn is_settled(&self, placed: &[i64]) -> Option<()> {
        let parcels = numbers(&self.stock, "SELECT id FROM parcels ORDER BY 1").await?;
        let bills = numbers(&self.money, "SELECT id FROM bills ORDER BY 1").await?;
        let both: Vec<i64> = placed.iter().copied().filter(|n| n % 2 == 0).collect();
        let left = prepared(&self.stock).await? + prepared(&self.money).await?;
        (parcels == placed && bills == both && left == 0).then_some(())
    }
}

async fn numbers(pool: &AtPool, sql: &'static str) -> Option<Vec<i64>> {
    sqlx::query_scalar(sql).fetch_all(pool.plain()).await.ok()
}

async fn prepared(pool: &AtPool) -> Option<i64> {
    let sql = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";
    numbers(pool, sql).await.map(|found| found[0])
}

struct Surroundings {
    data: PathBuf,
    port: u16,
    daemon: Daemon,
    agent: RmAgent,
    shop: Shop,
    _folder: TempDir,
}

async fn surroundings() -> anyhow::Result<Surroundings> {
    let folder = tempfile::tempdir()?;
    let (data, port) = (folder.path().join("data"), free_port());
    let daemon = Daemon::start(&data, port).await?;
    let (stock, money) = (server::database().await, server::database().await);
    for database in [&stock, &money] {
        schema::create(database).await?;
    }
    let agent = RmAgent::builder("shop")
        .coordinator(daemon.url())
        .postgres("stock-db", &stock)
        .postgres("money-db", &money)
        .start()
        .await?;
    let (stock, money) = (agent.pool("stock-db")?, agent.pool("money-db")?);
    for pool in [&stock, &money] {
        sqlx::raw_sql(TABLES).execute(pool.plain()).await?;
    }
    let transactions = TransactionClient::connect(daemon.url()).await?;
    let shop = Shop {
        stock,
        money,
        transactions,
    };
    Ok(Surroundings {
        data,
        port,
        daemon,
        agent,
        shop,
        _folder: folder,
    })
}

async fn end(shop: Shop, agent: RmAgent) {
    shop.transactions.shutdown().await;
    agent.shutdown().await;
    for pool in [&shop.stock, &shop.money] {
        pool.plain().close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_branch_is_never_prepared_and_two_are() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let order = s.shop.transactions.begin(Options::new("one")).await?;
    order.scope(insert(&s.shop.stock, "parcels", 1)).await?;
    let status = s.agent.status();
    assert_eq!(status.open_branches, 1, "it is kept open");
    order.commit().await?;
    assert_eq!(s.agent.status().open_branches, 0);
    // Whoever hears of the commit sees it.
    assert_eq!(
        numbers(&s.shop.stock, "SELECT id FROM parcels").await,
        Some(vec![1])
    );
    assert_eq!(prepared(&s.shop.stock).await, Some(0));

    let order = s.shop.transactions.begin(Options::new("two")).await?;
    order
        .scope(async {
            insert(&s.shop.stock, "parcels", 2).await?;
            insert(&s.shop.money, "bills", 2).await
        })
        .await?;
    eventually("both are prepared", SOON, async || {
        let both = prepared(&s.shop.stock).await? + prepared(&s.shop.money).await?;
        (both == 2).then_some(())
    })
    .await?;
    order.commit().await?;
    eventually("both are committed", SOON, async || {
        s.shop.is_settled(&[1, 2]).await
    })
    .await?;
    end(s.shop, s.agent).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_before_the_commit_rolls_back() -> anyhow::Result<()> {
    let s = surroundings().await?;
    for number in [1, 2] {
        let order = s.shop.transactions.begin(Options::new("lost")).await?;
        let backend = order
            .scope(insert(&s.shop.stock, "parcels", number))
            .await?;
        sqlx::query("SELECT pg_terminate_backend($1, 5000)")
            .bind(backend)
            .execute(s.shop.stock.plain())
            .await?;
        if number == 2 {
            order.scope(insert(&s.shop.money, "bills", number)).await?;
        }
        let error = order.commit().await.expect_err("its session is gone");
        let CommitError::RolledBack(back) = error else {
            panic!("{error}");
        };
        assert_eq!(back.cause, RollBackCause::BranchFailed, "{back}");
        assert!(back.to_string().contains("is gone"), "{back}");
    }
    eventually("nothing is left", SOON, async || {
        s.shop.is_settled(&[]).await
    })
    .await?;
    end(s.shop, s.agent).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_changes_no_outcome() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let mut orders = JoinSet::new();
    for number in 1..=ORDERS {
        let shop = s.shop.clone();
        orders.spawn(async move { anyhow::Ok((number, shop.order(number).await?)) });
    }
    let mut placed = Vec::new();
    let note = |ended: anyhow::Result<(i64, bool)>, placed: &mut Vec<i64>| {
        let (number, was_placed) = ended?;
        placed.extend(was_placed.then_some(number));
        anyhow::Ok(())
    };
    // Some have ended, the others are anywhere.
    for _ in 0..ORDERS / 8 {
        let ended = orders.join_next().await.expect("there are more");
        note(ended?, &mut placed)?;
    }
    s.daemon.kill()?;
    let daemon = Daemon::start(&s.data, s.port).await?;
    while let Some(ended) = orders.join_next().await {
        note(ended?, &mut placed)?;
    }
    placed.sort_unstable();
    assert!(!placed.is_empty(), "some were placed before the kill");
    eventually("all is as clients were told", SOON, async || {
        s.shop.is_settled(&placed).await
    })
    .await?;
    end(s.shop, s.agent).await;
    drop(daemon);
    Ok(())
}
