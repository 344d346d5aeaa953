//! TCC whoever is killed: a service at each of its steps, the daemon amid many that are being
//! finished. Real daemon, real database, and the service in a process of its own.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;
#[path = "tcc/service.rs"]
mod service;

use std::{path::PathBuf, sync::Arc, time::Duration};

use accede_rm_agent::schema;
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually, order,
    service::Service,
};
use accede_tm_client::{
    CommitError, GlobalTransaction, Options, RollBackError, TransactionClient, Xid,
};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::task::JoinSet;

use service::{Life, Point};

/// Far beyond a restart of the daemon or the service.
const SOON: Duration = Duration::from_secs(60);
/// Enough that many are open when a few are finished: three are finished at a time.
const MANY: i64 = 48;
/// So many of them are finished when the daemon is killed.
const A_FEW: i64 = 6;

/// An account for each order, which takes one from it.
const TABLES: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, free bigint NOT NULL, frozen bigint NOT NULL,
        spent bigint NOT NULL);
    INSERT INTO accounts SELECT n, 5, 0, 0 FROM generate_series(1, 48) n";

/// What an account and its order's fence hold.
type Books = (i64, i64, i64, Option<i16>);
const BOOKS: &str = "
    SELECT free, frozen, spent, (SELECT status FROM accede_fence WHERE xid = $2)
    FROM accounts WHERE id = $1";

/// What the books must say.
const SPENT: Books = (4, 0, 1, Some(1));
const CANCELLED: Books = (5, 0, 0, Some(2));
/// The cancel came before the try, which may not come any more.
const BARRED: Books = (5, 0, 0, Some(3));

const FENCES: &str = "SELECT count(*) FROM accede_fence";
const FINISHED: &str = "SELECT count(*) FROM accede_fence WHERE status IN (1, 2)";
/// Orders that are held up.
const WAITING: &str =
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())";

/// The process that the tests start is this one once more, with this test alone.
#[test]
fn service_process() {
    service::run_if_asked();
}

struct World {
    data: PathBuf,
    port: u16,
    daemon: Daemon,
    url: String,
    database: String,
    pool: PgPool,
    transactions: TransactionClient,
    service: Arc<Service>,
    _folder: TempDir,
}

impl World {
    async fn start(life: Life) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (data, port) = (folder.path().join("data"), free_port());
        let daemon = Daemon::start(&data, port).await?;
        let url = daemon.url();
        let database = server::database().await;
        schema::create(&database).await?;
        let pool = PgPool::connect(&database).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        Ok(Self {
            data,
            port,
            daemon,
            service: Arc::new(Service::start(&[&url, &database, &life.word()])?),
            transactions: TransactionClient::connect(&url).await?,
            url,
            database,
            pool,
            _folder: folder,
        })
    }

    /// In the place of the one before, which is killed if it is not dead. It knows nothing but
    /// what is in the database.
    fn next_service(&mut self, life: Life) -> anyhow::Result<()> {
        self.service.kill()?;
        let words = [&*self.url, &self.database, &life.word()];
        self.service = Arc::new(Service::start(&words)?);
        Ok(())
    }

    async fn begin(&self) -> anyhow::Result<GlobalTransaction> {
        let options = Options::new("order").timeout(SOON / 2);
        Ok(self.transactions.begin(options).await?)
    }

    async fn number(&self, sql: &'static str) -> Option<i64> {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.ok()
    }

    async fn books(&self, number: i64, xid: Xid) -> Option<Books> {
        let select = sqlx::query_as(BOOKS).bind(number);
        let select = select.bind(xid.as_u64().cast_signed());
        select.fetch_one(&self.pool).await.ok()
    }

    /// Waits until an order's account and fence say this.
    async fn settled(&self, number: i64, xid: Xid, books: Books) -> anyhow::Result<()> {
        let settled = eventually("the books are in order", SOON, async || {
            (self.books(number, xid).await? == books).then_some(())
        });
        let Err(late) = settled.await else {
            return Ok(());
        };
        let found = self.books(number, xid).await;
        Err(late.context(format!("order {number}: {found:?}, not {books:?}")))
    }

    /// Waits until nothing at all is left of what was done, and ends.
    async fn end(mut self) -> anyhow::Result<()> {
        self.next_service(Life::Sweeping)?;
        let swept = eventually("no fence is left", SOON, async || {
            (self.number(FENCES).await? == 0).then_some(())
        });
        swept.await?;
        assert_eq!(
            self.number("SELECT sum(frozen)::bigint FROM accounts")
                .await,
            Some(0)
        );
        self.transactions.shutdown().await;
        self.pool.close().await;
        Ok(())
    }
}

/// Commits or rolls back, in vain perhaps.
async fn end(order: GlobalTransaction, commit: bool) -> anyhow::Result<()> {
    if !commit {
        return match order.roll_back("changed my mind").await {
            Ok(_) | Err(RollBackError::Unknown { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    match order.commit().await {
        Ok(_) | Err(CommitError::RolledBack(_) | CommitError::Unknown { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_at_any_step_tears_no_order() -> anyhow::Result<()> {
    // What the client wants, and how it ends whatever it wants.
    let cases = [
        (Point::InTry, true, BARRED),
        (Point::InTry, false, BARRED),
        (Point::AfterTry, true, CANCELLED),
        (Point::AfterTry, false, CANCELLED),
        (Point::BeforeConfirm, true, SPENT),
        (Point::InConfirm, true, SPENT),
        (Point::AfterConfirm, true, SPENT),
        (Point::BeforeCancel, false, CANCELLED),
        (Point::InCancel, false, CANCELLED),
        (Point::AfterCancel, false, CANCELLED),
    ];
    let lives = (1..)
        .zip(cases)
        .map(|(number, (point, ..))| Life::Until(point, number));
    let mut lives = lives.chain([Life::Steady]);
    let first = lives.next().expect("there are cases");
    let mut w = World::start(first).await?;
    let mut orders = Vec::new();
    for ((number, (point, commits, books)), next) in (1..).zip(cases).zip(lives) {
        let order = w.begin().await?;
        let xid = order.xid();
        let worked = w.service.work(xid, number).await;
        match point {
            Point::InTry => assert!(worked.is_err(), "it died before it could tell"),
            // It may have told its client, who hears sooner than the coordinator.
            Point::AfterTry => {}
            _ => worked?,
        }
        if matches!(point, Point::InTry | Point::AfterTry) {
            w.service.died(SOON).await?;
        }
        end(order, commits).await?;
        w.service.died(SOON).await?;
        w.next_service(next)?;
        assert_eq!(
            order::ended(&w.transactions, xid, SOON).await?,
            books == SPENT,
            "{point:?}"
        );
        w.settled(number, xid, books).await?;
        orders.push((number, xid, books));
    }
    // Nobody who came later has touched what was over.
    for (number, xid, books) in orders {
        w.settled(number, xid, books).await?;
    }
    w.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_amid_confirms_and_cancels_loses_none() -> anyhow::Result<()> {
    let mut w = World::start(Life::Steady).await?;
    let mut tries = JoinSet::new();
    for number in 1..=MANY {
        let (order, service) = (w.begin().await?, Arc::clone(&w.service));
        tries.spawn(async move {
            service.work(order.xid(), number).await?;
            anyhow::Ok((number, order))
        });
    }
    let mut tried = Vec::new();
    while let Some(done) = tries.join_next().await {
        tried.push(done??);
    }

    // One confirm and one cancel stand still, the others come one after the other.
    let mut holder = w.pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(1), pg_advisory_xact_lock(3)")
        .execute(&mut *holder)
        .await?;
    let mut orders = Vec::new();
    let mut ends = JoinSet::new();
    for (number, order) in tried {
        let commits = number % 3 != 0;
        orders.push((number, order.xid(), commits));
        ends.spawn(end(order, commits));
    }
    let amid = eventually("a few are finished, two stand still", SOON, async || {
        let few = w.number(FINISHED).await? >= A_FEW;
        (few && w.number(WAITING).await? == 2).then_some(())
    });
    amid.await?;
    w.daemon.kill()?;
    holder.rollback().await?;
    w.daemon = Daemon::start(&w.data, w.port).await?;
    while let Some(ended) = ends.join_next().await {
        ended??;
    }

    for (number, xid, commits) in orders {
        // Who was not decided when the daemon died may have been given up.
        let committed = order::ended(&w.transactions, xid, SOON).await?;
        assert!(commits || !committed, "order {number}");
        let books = if committed { SPENT } else { CANCELLED };
        w.settled(number, xid, books).await?;
    }
    w.end().await
}
