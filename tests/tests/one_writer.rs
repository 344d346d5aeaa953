//! A database with one writer at a time: a branch that waits at the coordinator keeps every other
//! branch, and every rollback, out of the database. With a real daemon and a SQLite file.

use std::time::Duration;

use accede_proto::{
    Xid,
    v1::{GetTransactionRequest, operator_client::OperatorClient},
};
use accede_rm_agent::{
    Error, RefusalCode, RmAgent, is_retryable, schema,
    sqlite::{AtPool, AtTransaction},
};
use accede_tests::{
    clock,
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{Options, TransactionClient};

const RESOURCE: &str = "stock-db";
/// Of every branch's waits; long, so that nothing ends by it that can end otherwise.
const LOCK_WAIT: Duration = Duration::from_secs(8);
/// How long anything may take that must happen.
const SOON: Duration = Duration::from_secs(20);

struct Surroundings {
    _daemon: Daemon,
    _folder: tempfile::TempDir,
    agent: RmAgent,
    pool: AtPool,
    transactions: TransactionClient,
    url: String,
}

impl Surroundings {
    /// Starts it; a hundred of each of two products are there.
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let daemon = Daemon::start(&folder.path().join("data"), free_port()).await?;
        let database = format!("sqlite://{}", folder.path().join("stock.db").display());
        schema::create(&database).await?;
        let url = daemon.url();
        let agent = RmAgent::builder("stock")
            .coordinator(url.clone())
            .sqlite_pool(RESOURCE, AtPool::builder(&database).lock_wait(LOCK_WAIT))
            .start()
            .await?;
        let pool = agent.sqlite_pool(RESOURCE)?;
        sqlx::raw_sql(
            "CREATE TABLE stock (product INTEGER PRIMARY KEY, count INTEGER NOT NULL);
             INSERT INTO stock VALUES (1, 100), (2, 100)",
        )
        .execute(pool.plain())
        .await?;
        Ok(Self {
            _daemon: daemon,
            _folder: folder,
            agent,
            pool,
            transactions: TransactionClient::connect(url.clone()).await?,
            url,
        })
    }

    /// Waits until the transaction waits at the coordinator for row locks.
    async fn waits_at_the_coordinator(&self, xid: Xid) -> anyhow::Result<()> {
        let operator = OperatorClient::connect(self.url.clone()).await?;
        let get = GetTransactionRequest { xid: xid.as_u64() };
        eventually("a request waits for row locks", SOON, async || {
            let detail = operator.clone().get_transaction(get).await.ok()?;
            (!detail.into_inner().waiting.is_empty()).then_some(())
        })
        .await
    }

    async fn counts(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT count FROM stock ORDER BY product")
            .fetch_all(self.pool.plain())
            .await
            .expect("readable")
    }

    /// Waits until nothing is left to finish.
    async fn is_clean(&self) -> anyhow::Result<()> {
        eventually("no undo record is left", SOON, async || {
            let left = "SELECT COUNT(*) FROM undo_log WHERE log_status = 0";
            let left: i64 = sqlx::query_scalar(left)
                .fetch_one(self.pool.plain())
                .await
                .ok()?;
            (left == 0).then_some(())
        })
        .await
    }

    async fn end(self) {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        self.pool.plain().close().await;
    }
}

/// Takes one of a product.
async fn take(tx: &mut AtTransaction, product: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = ?")
        .bind(product)
        .execute(tx)
        .await
        .map(drop)
}

/// X holds the row lock on product 1; Y has the database's write lock and waits for product 1. The
/// rollback of X needs the write lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_lets_go_when_the_holder_rolls_back() -> anyhow::Result<()> {
    let s = Surroundings::new().await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;
    let mut waiting = s.pool.begin_in(y.xid()).await?;
    take(&mut waiting, 1).await?;
    let waiting = tokio::spawn(waiting.commit());
    s.waits_at_the_coordinator(y.xid()).await?;

    let began = clock::now();
    x.roll_back("changed its mind").await?;
    let refused = waiting.await?.expect_err("it had to let go");
    let Some(Error::Refused(why)) = Error::from_sqlx(&refused) else {
        panic!("{refused}");
    };
    assert_eq!(why.code, RefusalCode::HolderRollingBack);
    assert!(is_retryable(&refused));
    s.is_clean().await?;
    let took = clock::now() - began;
    assert!(took < LOCK_WAIT / 2, "{took:?}");
    assert_eq!(s.counts().await, [100, 100]);

    let mut again = s.pool.begin_in(y.xid()).await?;
    take(&mut again, 1).await?;
    again.commit().await?;
    y.commit().await?;
    s.is_clean().await?;
    assert_eq!(s.counts().await, [99, 100]);
    s.end().await;
    Ok(())
}

/// The same, but X wants to go on in the same database: it waits for Y, which waits for X.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_lets_go_when_the_holder_stands_still() -> anyhow::Result<()> {
    let s = Surroundings::new().await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;
    let mut waiting = s.pool.begin_in(y.xid()).await?;
    take(&mut waiting, 1).await?;
    let waiting = tokio::spawn(waiting.commit());
    s.waits_at_the_coordinator(y.xid()).await?;

    let began = clock::now();
    let mut second = s.pool.begin_in(x.xid()).await?;
    take(&mut second, 2).await?;
    second.commit().await?;
    let took = clock::now() - began;
    assert!(took < LOCK_WAIT / 2, "{took:?}");
    let refused = waiting.await?.expect_err("it had to let go");
    let Some(Error::Refused(why)) = Error::from_sqlx(&refused) else {
        panic!("{refused}");
    };
    assert_eq!(why.code, RefusalCode::HolderBlocked);
    x.commit().await?;
    y.roll_back("not needed").await?;
    s.is_clean().await?;
    assert_eq!(s.counts().await, [99, 99]);
    s.end().await;
    Ok(())
}

/// The decision to commit frees the rows by itself: Y goes on, and what X leaves behind is cleared
/// away when Y has let the database go.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_goes_on_when_the_holder_commits() -> anyhow::Result<()> {
    let s = Surroundings::new().await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;
    let mut waiting = s.pool.begin_in(y.xid()).await?;
    take(&mut waiting, 1).await?;
    let waiting = tokio::spawn(waiting.commit());
    s.waits_at_the_coordinator(y.xid()).await?;
    x.commit().await?;
    waiting.await??;
    y.commit().await?;
    s.is_clean().await?;
    assert_eq!(s.counts().await, [98, 100]);
    s.end().await;
    Ok(())
}

/// Many transactions over few rows, some of which roll back: none is lost or counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_share_the_file() -> anyhow::Result<()> {
    let s = Surroundings::new().await?;
    let mut tasks = Vec::new();
    for number in 0..24_u32 {
        let (pool, transactions) = (s.pool.clone(), s.transactions.clone());
        tasks.push(tokio::spawn(async move {
            let transaction = transactions.begin(Options::new("one of many")).await?;
            let xid = transaction.xid();
            let taken = accede_rm_agent::scope(
                Some(accede_rm_agent::TransactionContext::new(xid)),
                pool.run(|tx| {
                    Box::pin(async move {
                        take(tx, i64::from(1 + number % 2)).await?;
                        take(tx, i64::from(2 - number % 2)).await
                    })
                }),
            )
            .await;
            if taken.is_err() || number % 3 == 0 {
                transaction.roll_back("as planned").await?;
                return anyhow::Ok(0);
            }
            transaction.commit().await?;
            anyhow::Ok(1)
        }));
    }
    let mut committed = 0;
    for task in tasks {
        committed += task.await??;
    }
    s.is_clean().await?;
    assert!(committed > 0, "nothing went through");
    assert_eq!(s.counts().await, [100 - committed; 2]);
    s.end().await;
    Ok(())
}
