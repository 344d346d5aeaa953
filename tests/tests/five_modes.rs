//! One transaction with branches in AT, XA, TCC and 3PC and a step of a saga ends one way and
//! leaves nothing: real daemon, real database, and a service in a process of its own, each killed
//! meanwhile.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;
#[path = "five_modes/service.rs"]
mod service;

use std::{path::PathBuf, sync::Arc, time::Duration};

use accede_proto::v1::{GetStatusRequest, operator_client::OperatorClient};
use accede_rm_agent::schema;
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually, order,
    service::Service,
};
use accede_tm_client::{GlobalTransaction, Options, Saga, SagaError, Step, TransactionClient};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};

use service::RESOURCE;

/// Far beyond a restart of the daemon or the service.
const SOON: Duration = Duration::from_secs(60);
/// Enough that some are under way at any moment.
const ORDERS: i64 = 48;

/// Each mode has a table of its own, in one database: `stock` in AT, `orders` in XA, `accounts` in
/// TCC, `seats` in 3PC, `parcels` by a step.
const TABLES: &str = "
    CREATE TABLE stock (id bigint PRIMARY KEY, free bigint NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY);
    CREATE TABLE accounts (id bigint PRIMARY KEY, free bigint NOT NULL, frozen bigint NOT NULL);
    CREATE TABLE seats (id bigint PRIMARY KEY, free bigint NOT NULL, frozen bigint NOT NULL);
    CREATE TABLE parcels (id bigint PRIMARY KEY);
    INSERT INTO stock SELECT n, 1 FROM generate_series(1, 48) n;
    INSERT INTO accounts SELECT n, 1, 0 FROM generate_series(1, 48) n;
    INSERT INTO seats SELECT n, 1, 0 FROM generate_series(1, 48) n";

/// Which orders each table has heard of.
const PLACED: [&str; 5] = [
    "SELECT id FROM stock WHERE free = 0 ORDER BY 1",
    "SELECT id FROM orders ORDER BY 1",
    "SELECT id FROM accounts WHERE free = 0 ORDER BY 1",
    "SELECT id FROM seats WHERE free = 0 ORDER BY 1",
    "SELECT id FROM parcels ORDER BY 1",
];

/// What is still under way in the database.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
         + (SELECT count(*) FROM undo_log WHERE log_status = 0)
         + (SELECT count(*) FROM accede_fence WHERE status IN (0, 4))
         + (SELECT sum(frozen)::bigint FROM accounts) + (SELECT sum(frozen)::bigint FROM seats)";

/// The process that the tests start is this one once more, with this test alone.
#[test]
fn service_process() {
    service::run_if_asked();
}

struct World {
    data: PathBuf,
    port: u16,
    /// `None`: it is down.
    daemon: Option<Daemon>,
    url: String,
    database: String,
    pool: PgPool,
    /// The service that runs now.
    service: watch::Sender<Arc<Service>>,
    transactions: TransactionClient,
    _folder: TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (data, port) = (folder.path().join("data"), free_port());
        let daemon = Daemon::start(&data, port).await?;
        let url = daemon.url();
        let database = server::database().await;
        schema::create(&database).await?;
        let pool = PgPool::connect(&database).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let service = Arc::new(Service::start(&[&url, &database])?);
        let transactions = TransactionClient::connect(&url).await?;
        Ok(Self {
            data,
            port,
            daemon: Some(daemon),
            url,
            database,
            pool,
            service: watch::Sender::new(service),
            transactions,
            _folder: folder,
        })
    }

    async fn restart_daemon(&mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::kill)?;
        self.daemon = Some(Daemon::start(&self.data, self.port).await?);
        Ok(())
    }

    /// Its successor knows nothing but what is in the database.
    fn restart_service(&self) -> anyhow::Result<()> {
        self.service.borrow().kill()?;
        let next = Service::start(&[&self.url, &self.database])?;
        self.service.send_replace(Arc::new(next));
        Ok(())
    }

    fn shop(&self) -> Shop {
        Shop {
            service: self.service.subscribe(),
            transactions: self.transactions.clone(),
        }
    }

    async fn numbers(&self, sql: &'static str) -> Option<Vec<i64>> {
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.ok()
    }

    /// Waits until each mode did what was decided about these orders, and nothing is left over,
    /// in the database or at the coordinator.
    async fn settled(&self, placed: &[i64]) -> anyhow::Result<()> {
        let settled = eventually("all is settled", SOON, async || {
            for sql in PLACED {
                if self.numbers(sql).await? != placed {
                    return None;
                }
            }
            let mut operator = OperatorClient::connect(self.url.clone()).await.ok()?;
            let status = operator.get_status(GetStatusRequest {}).await.ok()?;
            let status = status.into_inner();
            let held = (status.row_locks, status.waiting_requests);
            (self.numbers(LEFT).await? == [0] && held == (0, 0)).then_some(())
        })
        .await;
        let Err(unsettled) = settled else {
            return Ok(());
        };
        let mut found = format!("{placed:?} were placed");
        for sql in PLACED.into_iter().chain([LEFT]) {
            found += &format!("\n{sql}: {:?}", self.numbers(sql).await);
        }
        Err(unsettled.context(found))
    }

    async fn end(self) {
        self.transactions.shutdown().await;
        self.pool.close().await;
    }
}

/// Places orders, whoever serves them.
#[derive(Clone)]
struct Shop {
    service: watch::Receiver<Arc<Service>>,
    transactions: TransactionClient,
}

fn parcel(number: i64) -> anyhow::Result<Saga> {
    let step = Step::new("parcel", "parcel.pack").input(&number)?;
    Ok(Saga::builder("parcel").step(step.retry_forward()).build()?)
}

impl Shop {
    /// The branches in four modes, then the step.
    async fn work(&self, order: &GlobalTransaction, number: i64) -> anyhow::Result<()> {
        let service = Arc::clone(&self.service.borrow());
        service.work(order.xid(), number).await?;
        parcel(number)?.run_in(order).await?;
        Ok(())
    }

    /// Places an order, or changes its mind about every third; whether it was placed.
    async fn order(&self, number: i64) -> anyhow::Result<bool> {
        let options = Options::new("order").timeout(SOON / 2);
        let order = self.transactions.begin(options).await?;
        let worked = self.work(&order, number).await;
        self.end(order, worked.is_ok() && number % 3 != 0).await
    }

    /// Commits or rolls back; whether it was committed.
    async fn end(&self, order: GlobalTransaction, commit: bool) -> anyhow::Result<bool> {
        order::end(&self.transactions, order, commit, SOON).await
    }
}

/// Who dies when all branches are done and nothing is decided.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    Nobody,
    Daemon,
    Service,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_ends_one_way_whoever_is_killed_before_its_end() -> anyhow::Result<()> {
    let mut w = World::start().await?;
    let mut placed = Vec::new();
    let cases = [Killed::Nobody, Killed::Daemon, Killed::Service];
    let cases = cases
        .into_iter()
        .flat_map(|who| [(who, true), (who, false)]);
    for (number, (killed, commits)) in (1..).zip(cases) {
        let shop = w.shop();
        let order = shop.transactions.begin(Options::new("order")).await?;
        shop.work(&order, number).await?;
        match killed {
            Killed::Nobody => {}
            Killed::Daemon => w.restart_daemon().await?,
            Killed::Service => w.restart_service()?,
        }
        let committed = shop.end(order, commits).await?;
        assert_eq!(committed, commits, "{killed:?}: all branches were done");
        placed.extend(committed.then_some(number));
        w.settled(&placed).await?;
    }
    w.end().await;
    Ok(())
}

/// Places all orders at once, and has something done while they are anywhere.
async fn while_orders_are_placed(
    w: &mut World,
    meanwhile: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<i64>> {
    let mut orders = JoinSet::new();
    for number in 1..=ORDERS {
        let shop = w.shop();
        orders.spawn(async move { anyhow::Ok((number, shop.order(number).await?)) });
    }
    let mut placed = Vec::new();
    let mut note = |ended: anyhow::Result<(i64, bool)>| {
        let (number, was_placed) = ended?;
        placed.extend(was_placed.then_some(number));
        anyhow::Ok(())
    };
    for _ in 0..ORDERS / 8 {
        let ended = orders.join_next().await.expect("there are more");
        note(ended?)?;
    }
    meanwhile(w).await?;
    while let Some(ended) = orders.join_next().await {
        note(ended?)?;
    }
    placed.sort_unstable();
    assert!(!placed.is_empty(), "some were placed before");
    assert!(placed.iter().all(|number| number % 3 != 0), "{placed:?}");
    Ok(placed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_tears_no_order() -> anyhow::Result<()> {
    let mut w = World::start().await?;
    let placed = while_orders_are_placed(&mut w, async |w| w.restart_daemon().await).await?;
    w.settled(&placed).await?;
    w.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_tears_no_order() -> anyhow::Result<()> {
    let mut w = World::start().await?;
    let placed = while_orders_are_placed(&mut w, async |w| w.restart_service()).await?;
    w.settled(&placed).await?;
    w.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_mixes_are_refused() -> anyhow::Result<()> {
    let w = World::start().await?;
    let shop = w.shop();
    let order = shop.transactions.begin(Options::new("order")).await?;
    shop.work(&order, 1).await?;
    // One saga: a second one is not taken for the first, not even one with the same steps.
    let refused = |told: Result<_, SagaError>| match told {
        Err(SagaError::Refused { refusal, .. }) => refusal.to_string(),
        other => panic!("{other:?}: not refused"),
    };
    for second in [1, 2] {
        let told = refused(parcel(second)?.run_in(&order).await);
        assert!(told.contains("has a saga already"), "{told}");
    }
    assert!(shop.end(order, true).await?, "that does no harm");

    // No step in a database.
    let order = shop.transactions.begin(Options::new("order")).await?;
    let step = Step::new("parcel", RESOURCE);
    let saga = Saga::builder("parcel").step(step).build()?;
    let told = refused(saga.run_in(&order).await);
    assert!(
        told.contains("has ever served the action \"shop-db\""),
        "{told}"
    );
    assert!(!shop.end(order, false).await?);
    w.settled(&[1]).await?;
    w.end().await;
    Ok(())
}
