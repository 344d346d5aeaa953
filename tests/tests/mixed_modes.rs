//! One transaction with branches in AT, XA and TCC ends one way, with a real daemon and a real
//! database, also when the daemon is killed meanwhile.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use accede_rm_agent::{
    AtPool, FencedTransaction, RmAgent, is_retryable, schema,
    tcc::{HandlerError, Tcc},
};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{CommitError, Options, Outcome, RollBackError, TransactionClient, Xid};
use tempfile::TempDir;
use tokio::task::JoinSet;

const RESOURCE: &str = "shop-db";
/// Far beyond a restart of the daemon.
const SOON: Duration = Duration::from_secs(60);
/// Enough that some are under way at any moment.
const ORDERS: i64 = 48;

const TABLES: &str = "
    CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
    CREATE TABLE parcels (id bigint PRIMARY KEY);
    CREATE TABLE accounts (id bigint PRIMARY KEY, free bigint NOT NULL, frozen bigint NOT NULL);
    INSERT INTO stock SELECT n, 1 FROM generate_series(1, 48) n;
    INSERT INTO accounts SELECT n, 1, 0 FROM generate_series(1, 48) n";

struct Accounts;

impl Accounts {
    #[accede_rm_agent::tcc(resource = "account.freeze", confirm = settle, cancel = release)]
    async fn freeze(&self, tx: &mut FencedTransaction, account: i64) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE accounts SET free = free - 1, frozen = frozen + 1 WHERE id = $1")
            .bind(account)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    async fn settle(&self, tx: &mut FencedTransaction, account: i64) -> Result<(), HandlerError> {
        sqlx::query("UPDATE accounts SET frozen = frozen - 1 WHERE id = $1")
            .bind(account)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    async fn release(&self, tx: &mut FencedTransaction, account: i64) -> Result<(), HandlerError> {
        sqlx::query("UPDATE accounts SET free = free + 1, frozen = frozen - 1 WHERE id = $1")
            .bind(account)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Shop {
    pool: AtPool,
    freeze: Tcc<i64, sqlx::Error>,
    transactions: TransactionClient,
}

impl Shop {
    /// One branch in each mode.
    async fn branches(&self, number: i64) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE stock SET count = count - 1 WHERE product = $1")
            .bind(number)
            .execute(&self.pool)
            .await?;
        let mut parcel = self.pool.xa().begin().await?;
        sqlx::query("INSERT INTO parcels VALUES ($1)")
            .bind(number)
            .execute(&mut parcel)
            .await?;
        parcel.commit().await?;
        self.freeze.call(number).await
    }

    /// Places an order, or changes its mind about every third; whether it was placed.
    async fn order(&self, number: i64) -> anyhow::Result<bool> {
        let order = self.transactions.begin(Options::new("order")).await?;
        let xid = order.xid();
        if order.scope(self.branches(number)).await.is_err() || number % 3 == 0 {
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

    /// What became of it, once somebody knows.
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

    async fn numbers(&self, sql: &'static str) -> Option<Vec<i64>> {
        let all = sqlx::query_scalar(sql).fetch_all(self.pool.plain()).await;
        all.ok()
    }

    /// Whether each mode did what was decided about these orders, and nothing is left over.
    async fn is_settled(&self, placed: &[i64]) -> Option<()> {
        let stock = self.numbers("SELECT product FROM stock WHERE count = 0 ORDER BY 1");
        let parcels = self.numbers("SELECT id FROM parcels ORDER BY 1");
        let accounts = self.numbers("SELECT id FROM accounts WHERE free = 0 ORDER BY 1");
        let left = self.numbers(
            "SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
                  + (SELECT count(*) FROM undo_log WHERE log_status = 0)
                  + (SELECT count(*) FROM accede_fence WHERE status = 0)
                  + (SELECT sum(frozen)::bigint FROM accounts)",
        );
        let settled = stock.await? == placed
            && parcels.await? == placed
            && accounts.await? == placed
            && left.await? == [0];
        settled.then_some(())
    }
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
    let database = server::database().await;
    schema::create(&database).await?;
    let freeze = Accounts::freeze_tcc(&Arc::new(Accounts));
    let agent = RmAgent::builder("shop")
        .coordinator(daemon.url())
        .postgres(RESOURCE, &database)
        .tcc(RESOURCE, &freeze)
        .start()
        .await?;
    let pool = agent.pool(RESOURCE)?;
    sqlx::raw_sql(TABLES).execute(pool.plain()).await?;
    let transactions = TransactionClient::connect(daemon.url()).await?;
    let shop = Shop {
        pool,
        freeze,
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
    shop.pool.plain().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_branches_end_as_it_was_decided() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let mut placed = Vec::new();
    for number in 1..=3 {
        if s.shop.order(number).await? {
            placed.push(number);
        }
    }
    assert_eq!(placed, [1, 2], "the third was rolled back");
    eventually("all branches are finished", SOON, async || {
        s.shop.is_settled(&placed).await
    })
    .await?;
    end(s.shop, s.agent).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_changes_no_decision() -> anyhow::Result<()> {
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
    eventually("all branches are finished", SOON, async || {
        s.shop.is_settled(&placed).await
    })
    .await?;
    end(s.shop, s.agent).await;
    drop(daemon);
    Ok(())
}

/// An XA branch on a row that an AT branch has changed, which then rolls back: the XA branch must
/// neither build on it nor stand in its way.
#[tokio::test(flavor = "multi_thread")]
async fn xa_beside_at_builds_on_nothing_that_is_undone() -> anyhow::Result<()> {
    const TAKE: &str = "UPDATE stock SET count = count + 10 WHERE product = 1";
    let s = surroundings().await?;
    let shop = &s.shop;
    let first = shop.transactions.begin(Options::new("at")).await?;
    first.scope(sqlx::query(TAKE).execute(&shop.pool)).await?;

    let second = shop.transactions.begin(Options::new("xa")).await?;
    let xa = shop.pool.xa();
    let tries = AtomicU32::new(0);
    let take = second.scope(async {
        loop {
            tries.fetch_add(1, Ordering::Relaxed);
            let mut tx = xa.begin_beside_at().await?;
            sqlx::query(TAKE).execute(&mut tx).await?;
            match tx.commit().await {
                Err(error) if is_retryable(&error) => {}
                result => return result,
            }
        }
    });
    let undo = async {
        let waits = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND state = 'idle in transaction'";
        eventually("the second waits for the row lock", SOON, async || {
            (shop.numbers(waits).await? == [1]).then_some(())
        })
        .await?;
        first.roll_back("changed my mind").await?;
        anyhow::Ok(())
    };
    let (taken, undone) = tokio::join!(take, undo);
    undone?;
    taken?;
    assert!(tries.into_inner() > 1, "it let the undo pass");
    second.commit().await?;
    eventually("the row is as the second left it", SOON, async || {
        (shop
            .numbers("SELECT count FROM stock WHERE product = 1")
            .await?
            == [11])
        .then_some(())
    })
    .await?;
    end(s.shop, s.agent).await;
    Ok(())
}
