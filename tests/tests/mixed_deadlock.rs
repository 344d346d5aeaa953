//! A deadlock of which the coordinator sees one half and PostgreSQL the other, with a real daemon
//! and a real database.

#[path = "../../rm-agent/tests/agent/postgres.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod postgres;

use std::time::Duration;

use accede_proto::{
    Xid,
    v1::{
        GetTransactionRequest, ListRowLocksRequest, Mode, RegisterBranch, RequestId,
        branches_client::BranchesClient, operator_client::OperatorClient,
    },
};
use accede_rm_agent::{AtPool, Error, RefusalCode, RmAgent, is_retryable, schema};
use accede_tests::{
    clock,
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{Options, TransactionClient};

const RESOURCE: &str = "stock-db";
const SOON: Duration = Duration::from_secs(20);
/// Of every branch's waits; long, so that nothing ends by it that can end otherwise.
const LOCK_WAIT: Duration = Duration::from_secs(8);

struct Surroundings {
    _daemon: Daemon,
    _folder: tempfile::TempDir,
    postgres: postgres::Postgres,
    agent: RmAgent,
    pool: AtPool,
    transactions: TransactionClient,
    url: String,
}

impl Surroundings {
    async fn new(lock_wait: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let daemon = Daemon::start(&folder.path().join("data"), free_port()).await?;
        let postgres = postgres::Postgres::start();
        let database = postgres.url("postgres");
        schema::create(&database).await?;
        let url = daemon.url();
        let agent = RmAgent::builder("stock")
            .coordinator(url.clone())
            .pool(RESOURCE, AtPool::builder(&database).lock_wait(lock_wait))
            .start()
            .await?;
        let pool = agent.pool(RESOURCE)?;
        sqlx::raw_sql(
            "CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
             INSERT INTO stock VALUES (1, 100), (2, 100)",
        )
        .execute(pool.plain())
        .await?;
        Ok(Self {
            _daemon: daemon,
            _folder: folder,
            postgres,
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

    async fn end(self) {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        self.pool.plain().close().await;
        self.postgres.down();
    }
}

/// Takes one of a product.
async fn take(tx: &mut accede_rm_agent::AtTransaction, product: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = $1")
        .bind(product)
        .execute(tx)
        .await
        .map(drop)
}

/// X holds the row lock on product 1. Y has product 2 locked in the database and waits at the
/// coordinator for product 1. Then X wants product 2.
#[tokio::test(flavor = "multi_thread")]
async fn one_lets_go_long_before_any_time_out() -> anyhow::Result<()> {
    let s = Surroundings::new(LOCK_WAIT).await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;

    let mut waiting = s.pool.begin_in(y.xid()).await?;
    take(&mut waiting, 2).await?;
    take(&mut waiting, 1).await?;
    let waiting = tokio::spawn(waiting.commit());
    s.waits_at_the_coordinator(y.xid()).await?;

    let began = clock::now();
    let mut second = s.pool.begin_in(x.xid()).await?;
    take(&mut second, 2).await?;
    second.commit().await?;
    let took = clock::now() - began;
    let refused = waiting.await?.expect_err("it had to let go");
    assert!(took < LOCK_WAIT / 4, "{took:?}");
    assert!(took >= Duration::from_millis(100), "{took:?}: no deadlock");
    let Some(Error::Refused(why)) = Error::from_sqlx(&refused) else {
        panic!("{refused}");
    };
    assert_eq!(why.code, RefusalCode::HolderBlocked);
    assert_eq!(why.holder, Some(x.xid()));
    assert!(is_retryable(&refused));

    x.commit().await?;
    // Now nobody is in its way.
    let mut again = s.pool.begin_in(y.xid()).await?;
    take(&mut again, 2).await?;
    take(&mut again, 1).await?;
    again.commit().await?;
    y.commit().await?;
    assert_eq!(s.counts().await, [98, 98]);
    s.end().await;
    Ok(())
}

/// The same when the one that waits does not say that it holds local locks: nobody can tell it to
/// let go, so the database's time-out ends the circle.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_see_ends_by_the_lock_time_out() -> anyhow::Result<()> {
    let patience = Duration::from_millis(1_500);
    let s = Surroundings::new(patience).await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;

    let mut operator = OperatorClient::connect(s.url.clone()).await?;
    let listed = operator
        .list_row_locks(ListRowLocksRequest::default())
        .await?;
    let listed = listed.into_inner().row_locks.into_iter();
    let keys = listed.map(|lock| lock.key).collect();
    let mut local = s.pool.plain().begin().await?;
    sqlx::query("SELECT * FROM stock WHERE product = 2 FOR UPDATE")
        .execute(&mut *local)
        .await?;
    let waits = RegisterBranch {
        xid: y.xid().as_u64(),
        request: Some(RequestId {
            client: 7,
            sequence: 1,
        }),
        resource: RESOURCE.to_owned(),
        mode: Mode::At.into(),
        row_locks: keys,
        wait_limit_ms: 20_000,
        holds_local_locks: false,
        agent: 7,
        ..RegisterBranch::default()
    };
    let mut branches = BranchesClient::connect(s.url.clone()).await?;
    let waits = tokio::spawn(async move { branches.register(waits).await.map(drop) });
    s.waits_at_the_coordinator(y.xid()).await?;

    let began = clock::now();
    let mut second = s.pool.begin_in(x.xid()).await?;
    let error = take(&mut second, 2).await.expect_err("it waits in vain");
    let took = clock::now() - began;
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::LocalLockTimedOut { .. })
        ),
        "{error}"
    );
    assert!(took >= patience / 2 && took < SOON, "{took:?}");
    second.rollback().await?;
    assert!(!waits.is_finished(), "it was never told to let go");

    x.roll_back("a row was locked").await?;
    waits.await??;
    local.rollback().await?;
    y.roll_back("never done").await?;
    s.end().await;
    Ok(())
}
