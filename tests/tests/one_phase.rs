//! Transactions of XA branches with a real daemon and real databases: one with a single branch
//! commits in one phase, one with two prepares, and each ends as its client was told, also when the
//! daemon or the database's sessions are killed meanwhile.

#[path = "one_phase/ground.rs"]
mod ground;
#[path = "../../rm-agent/src/store/mariadb/tests/server.rs"]
mod mariadb_server;
#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod postgres_server;

use std::{path::PathBuf, time::Duration};

use accede_rm_agent::{Error, RmAgent, schema};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually, order,
};
use accede_tm_client::{CommitError, Options, RollBackCause, TransactionClient};
use ground::Ground;
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
struct Shop<G> {
    stock: G,
    money: G,
    transactions: TransactionClient,
}

impl<G: Ground> Shop<G> {
    /// Every second order has one branch, the others two; every fifth is given up. Whether it was
    /// placed.
    async fn order(&self, number: i64) -> anyhow::Result<bool> {
        let order = self.transactions.begin(Options::new("order")).await?;
        let work = order.scope(async {
            self.stock.insert("parcels", number).await?;
            if number % 2 == 0 {
                self.money.insert("bills", number).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
        let commit = work.await.is_ok() && number % 5 != 0;
        order::end(&self.transactions, order, commit, SOON).await
    }

    async fn is_settled(&self, placed: &[i64]) -> Option<()> {
        let parcels = self.stock.numbers("SELECT id FROM parcels ORDER BY 1");
        let parcels = parcels.await?;
        let bills = self
            .money
            .numbers("SELECT id FROM bills ORDER BY 1")
            .await?;
        let both: Vec<i64> = placed.iter().copied().filter(|n| n % 2 == 0).collect();
        let left = self.stock.prepared().await? + self.money.prepared().await?;
        (parcels == placed && bills == both && left == 0).then_some(())
    }
}

struct Surroundings<G> {
    data: PathBuf,
    port: u16,
    daemon: Daemon,
    agent: RmAgent,
    shop: Shop<G>,
    _folder: TempDir,
}

async fn surroundings<G: Ground>() -> anyhow::Result<Surroundings<G>> {
    let folder = tempfile::tempdir()?;
    let (data, port) = (folder.path().join("data"), free_port());
    let daemon = Daemon::start(&data, port).await?;
    let (stock, money) = (G::database().await, G::database().await);
    for database in [&stock, &money] {
        schema::create(database).await?;
    }
    let agent = RmAgent::builder("shop").coordinator(daemon.url());
    let agent = G::serve(agent, "stock-db", &stock);
    let agent = G::serve(agent, "money-db", &money).start().await?;
    let (stock, money) = (G::of(&agent, "stock-db")?, G::of(&agent, "money-db")?);
    for pool in [&stock, &money] {
        pool.execute(TABLES.to_owned()).await?;
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

async fn end<G: Ground>(shop: Shop<G>, agent: RmAgent) {
    shop.transactions.shutdown().await;
    agent.shutdown().await;
    for pool in [&shop.stock, &shop.money] {
        pool.close().await;
    }
}

async fn a_single_branch_is_never_prepared_and_two_are<G: Ground>() -> anyhow::Result<()> {
    let s = surroundings::<G>().await?;
    let order = s.shop.transactions.begin(Options::new("one")).await?;
    order.scope(s.shop.stock.insert("parcels", 1)).await?;
    let status = s.agent.status();
    assert_eq!(status.open_branches, 1, "it is kept open");
    order.commit().await?;
    assert_eq!(s.agent.status().open_branches, 0);
    // Whoever hears of the commit sees it.
    let parcels = s.shop.stock.numbers("SELECT id FROM parcels").await;
    assert_eq!(parcels, Some(vec![1]));
    assert_eq!(s.shop.stock.prepared().await, Some(0));

    let order = s.shop.transactions.begin(Options::new("two")).await?;
    order
        .scope(async {
            s.shop.stock.insert("parcels", 2).await?;
            s.shop.money.insert("bills", 2).await
        })
        .await?;
    eventually("both are prepared", SOON, async || {
        let both = s.shop.stock.prepared().await? + s.shop.money.prepared().await?;
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

async fn a_session_that_is_lost_before_the_commit_rolls_back<G: Ground>() -> anyhow::Result<()> {
    let s = surroundings::<G>().await?;
    for number in [1, 2] {
        let order = s.shop.transactions.begin(Options::new("lost")).await?;
        let backend = order.scope(s.shop.stock.insert("parcels", number)).await?;
        s.shop.stock.terminate(backend).await?;
        if number == 2 {
            // The second branch has the first one asked for. If it is known to be gone before this
            // one has ended, this one is refused.
            let second = order.scope(s.shop.money.insert("bills", number)).await;
            if let Err(error) = second {
                let refused = Error::from_sqlx(&error);
                let is_late = matches!(
                    refused,
                    Some(Error::RolledBackMeanwhile { .. } | Error::Refused(_))
                );
                assert!(is_late, "{error}");
            }
        }
        let error = order.commit().await.expect_err("its session is gone");
        let CommitError::RolledBack(back) = error else {
            panic!("{error}");
        };
        assert_eq!(back.cause, RollBackCause::BranchFailed, "{back}");
        let why = back.to_string();
        // A session that still says it was killed is as certain as one that is gone.
        assert!(why.contains("is gone") || why.contains("killed"), "{why}");
    }
    eventually("nothing is left", SOON, async || {
        s.shop.is_settled(&[]).await
    })
    .await?;
    end(s.shop, s.agent).await;
    Ok(())
}

async fn a_killed_coordinator_changes_no_outcome<G: Ground>() -> anyhow::Result<()> {
    let s = surroundings::<G>().await?;
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

macro_rules! on {
    ($($database:ident: $pool:ty),* $(,)?) => {
        $(mod $database {
            #[tokio::test(flavor = "multi_thread")]
            async fn a_single_branch_is_never_prepared_and_two_are() -> anyhow::Result<()> {
                super::a_single_branch_is_never_prepared_and_two_are::<$pool>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_session_that_is_lost_before_the_commit_rolls_back() -> anyhow::Result<()> {
                super::a_session_that_is_lost_before_the_commit_rolls_back::<$pool>().await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_killed_coordinator_changes_no_outcome() -> anyhow::Result<()> {
                super::a_killed_coordinator_changes_no_outcome::<$pool>().await
            }
        })*
    };
}

on!(
    postgres: accede_rm_agent::AtPool,
    mariadb: accede_rm_agent::mariadb::AtPool,
);
