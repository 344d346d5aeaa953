//! 3PC with a real daemon and a real database: who has heard that the commit is decided needs no
//! coordinator any more, who has not waits for it, and all end one way.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use accede_rm_agent::{
    AgentLimits, FencedTransaction, RmAgent, schema,
    three_phase::{HandlerError, Participant},
};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{Options, Outcome, TransactionClient, Xid};
use sqlx::PgPool;
use tempfile::TempDir;

const RESOURCE: &str = "shop-db";
/// Far beyond a restart of the daemon and a new leader's grace.
const SOON: Duration = Duration::from_secs(60);

const TABLES: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, free bigint NOT NULL, frozen bigint NOT NULL);
    INSERT INTO accounts VALUES (1, 10, 0), (2, 10, 0)";

/// Promises one of an account.
struct Accounts {
    account: i64,
    /// Does not get through what it hears of the commit.
    deaf: AtomicBool,
}

macro_rules! accounts {
    ($name:literal, $promise:ident, $announce:ident, $settle:ident, $release:ident) => {
        impl Accounts {
            #[accede_rm_agent::three_phase(
                resource = $name, pre_commit = $announce, do_commit = $settle, abort = $release
            )]
            async fn $promise(&self, tx: &mut FencedTransaction, _: ()) -> Result<(), sqlx::Error> {
                self.change(tx, "free = free - 1, frozen = frozen + 1").await
            }

            async fn $announce(&self, _: &mut FencedTransaction, _: ()) -> Result<(), HandlerError> {
                match self.deaf.load(Ordering::SeqCst) {
                    true => Err(HandlerError::retry("not now")),
                    false => Ok(()),
                }
            }

            async fn $settle(&self, tx: &mut FencedTransaction, _: ()) -> Result<(), HandlerError> {
                Ok(self.change(tx, "frozen = frozen - 1").await?)
            }

            async fn $release(&self, tx: &mut FencedTransaction, _: ()) -> Result<(), HandlerError> {
                Ok(self.change(tx, "free = free + 1, frozen = frozen - 1").await?)
            }
        }
    };
}

accounts!("account.one", one, announce_one, settle_one, release_one);
accounts!("account.two", two, announce_two, settle_two, release_two);

impl Accounts {
    fn new(account: i64) -> Arc<Self> {
        let deaf = AtomicBool::new(false);
        Arc::new(Self { account, deaf })
    }

    async fn change(&self, tx: &mut FencedTransaction, how: &str) -> Result<(), sqlx::Error> {
        let sql = format!("UPDATE accounts SET {how} WHERE id = {}", self.account);
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut *tx)
            .await?;
        Ok(())
    }
}

/// The service: its agent, and what it can be called for.
struct Service {
    agent: RmAgent,
    one: Participant<(), sqlx::Error>,
    two: Participant<(), sqlx::Error>,
    /// Behind the second participant.
    second: Arc<Accounts>,
}

impl Service {
    async fn start(coordinator: String, database: &str) -> anyhow::Result<Self> {
        let second = Accounts::new(2);
        let one = Accounts::one_three_phase(&Accounts::new(1));
        let two = Accounts::two_three_phase(&second);
        let limits = AgentLimits {
            three_phase_timeout: Duration::from_millis(800),
            ..AgentLimits::default()
        };
        let agent = RmAgent::builder("shop")
            .coordinator(coordinator)
            .postgres(RESOURCE, database)
            .three_phase(RESOURCE, &one)
            .three_phase(RESOURCE, &two)
            .limits(limits)
            .start()
            .await?;
        Ok(Self {
            agent,
            one,
            two,
            second,
        })
    }

    /// What is told about the promises of a participant: how many wait, how many steps were done
    /// alone.
    fn promises(&self, action: &str) -> (u64, u64) {
        let status = self.agent.status();
        let mut resources = status.resources.iter();
        let resource = resources.find(|resource| resource.name == action);
        resource.map_or((0, 0), |resource| (resource.promises, resource.alone))
    }
}

struct World {
    data: PathBuf,
    port: u16,
    url: String,
    database: String,
    /// `None`: it is down.
    daemon: Option<Daemon>,
    service: Service,
    pool: PgPool,
    transactions: TransactionClient,
    _folder: TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (data, port) = (folder.path().join("data"), free_port());
        let daemon = Daemon::start(&data, port).await?;
        let database = server::database().await;
        schema::create(&database).await?;
        let pool = PgPool::connect(&database).await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let url = daemon.url();
        let service = Service::start(url.clone(), &database).await?;
        let transactions = TransactionClient::connect(daemon.url()).await?;
        Ok(Self {
            data,
            port,
            url,
            database,
            daemon: Some(daemon),
            service,
            pool,
            transactions,
            _folder: folder,
        })
    }

    fn kill_daemon(&mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::kill)
    }

    /// Free and frozen of both accounts, and the status of both fences.
    async fn is(&self, money: [i64; 4], fences: [i16; 2]) -> Option<()> {
        let found: Vec<(i64, i64)> =
            sqlx::query_as("SELECT free, frozen FROM accounts ORDER BY id")
                .fetch_all(&self.pool)
                .await
                .ok()?;
        let found: Vec<i64> = found.into_iter().flat_map(|(a, b)| [a, b]).collect();
        let kept: Vec<i16> =
            sqlx::query_scalar("SELECT status FROM accede_fence ORDER BY branch_id")
                .fetch_all(&self.pool)
                .await
                .ok()?;
        (found == money && kept == fences).then_some(())
    }

    async fn until(&self, what: &str, money: [i64; 4], fences: [i16; 2]) -> anyhow::Result<()> {
        eventually(what, SOON, async || self.is(money, fences).await).await
    }

    async fn outcome(&self, xid: Xid) -> anyhow::Result<Outcome> {
        eventually("its outcome is told", SOON, async || {
            let outcome = self.transactions.outcome(xid).await.ok()?;
            (outcome != Outcome::Active).then_some(outcome)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_heard_of_the_commit_needs_no_coordinator() -> anyhow::Result<()> {
    let mut w = World::start().await?;
    let order = w.transactions.begin(Options::new("order")).await?;
    let xid = order.xid();
    let calls = async {
        w.service.one.call(()).await?;
        w.service.two.call(()).await
    };
    order.scope(calls).await?;
    w.until("both promised", [9, 1, 9, 1], [0, 0]).await?;
    w.service.second.deaf.store(true, Ordering::SeqCst);
    order.commit().await?;
    w.until("one has heard", [9, 1, 9, 1], [4, 0]).await?;
    w.kill_daemon()?;

    // One commits alone; the other waits, which can be seen.
    w.until("one commits alone", [9, 0, 9, 1], [1, 0]).await?;
    eventually("the other waits visibly", SOON, async || {
        let seen = (
            w.service.promises("account.one"),
            w.service.promises("account.two"),
        );
        (seen == ((0, 1), (1, 0))).then_some(())
    })
    .await?;
    assert_eq!(w.is([9, 0, 9, 1], [1, 0]).await, Some(()));

    w.service.second.deaf.store(false, Ordering::SeqCst);
    w.daemon = Some(Daemon::start(&w.data, w.port).await?);
    w.until("both have committed", [9, 0, 9, 0], [1, 1]).await?;
    let outcome = w.outcome(xid).await?;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    w.service.agent.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_decision_nobody_commits() -> anyhow::Result<()> {
    let mut w = World::start().await?;
    let options = Options::new("order").timeout(Duration::from_secs(6));
    let order = w.transactions.begin(options).await?;
    let xid = order.xid();
    let calls = async {
        w.service.one.call(()).await?;
        w.service.two.call(()).await
    };
    order.scope(calls).await?;
    w.until("both promised", [9, 1, 9, 1], [0, 0]).await?;
    w.kill_daemon()?;
    eventually("both wait visibly", SOON, async || {
        let seen = (
            w.service.promises("account.one"),
            w.service.promises("account.two"),
        );
        (seen == ((1, 0), (1, 0))).then_some(())
    })
    .await?;
    assert_eq!(w.is([9, 1, 9, 1], [0, 0]).await, Some(()));
    w.daemon = Some(Daemon::start(&w.data, w.port).await?);
    w.until("both aborted", [10, 0, 10, 0], [2, 2]).await?;
    let outcome = w.outcome(xid).await?;
    assert!(matches!(outcome, Outcome::RolledBack(_)), "{outcome:?}");
    drop(order);
    w.service.agent.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_after_its_yes_holds_up_nobody_for_long() -> anyhow::Result<()> {
    let mut w = World::start().await?;
    let order = w.transactions.begin(Options::new("order")).await?;
    let calls = async {
        w.service.one.call(()).await?;
        w.service.two.call(()).await
    };
    order.scope(calls).await?;
    w.until("both promised", [9, 1, 9, 1], [0, 0]).await?;
    // Its process would end in the same way: without a word.
    let url = w.url.clone();
    drop(w.service);
    order.commit().await?;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM accede_fence WHERE status = 0")
            .fetch_one(&w.pool)
            .await?,
        2,
        "it is decided without them"
    );
    w.service = Service::start(url, &w.database).await?;
    let (money, fences) = ([9, 0, 9, 0], [1, 1]);
    eventually("its successor commits", SOON, async || {
        let found: Vec<i16> =
            sqlx::query_scalar("SELECT status FROM accede_fence ORDER BY branch_id")
                .fetch_all(&w.pool)
                .await
                .ok()?;
        (found == fences).then_some(())
    })
    .await?;
    assert_eq!(w.is(money, fences).await, Some(()));
    w.service.agent.shutdown().await;
    Ok(())
}
