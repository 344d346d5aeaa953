//! Many transactions that take from one row of a MariaDB at the same time, with a real daemon.

#[path = "../../rm-agent/src/store/mariadb/tests/server.rs"]
mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use accede_rm_agent::{Error, RmAgent, mariadb::AtPool, schema};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{Options, TransactionClient};
use tokio::{sync::Barrier, task::JoinSet};

const RESOURCE: &str = "stock-db";
const SOON: Duration = Duration::from_secs(20);
const TAKE: &str = "UPDATE stock SET count = count - ? WHERE product = 1 AND count >= ?";
/// How many there are.
const STOCK: i64 = 1_000;
const BUYERS: i64 = 12;
const ROUNDS: i64 = 5;

async fn buy(
    pool: &AtPool,
    transactions: &TransactionClient,
    number: i64,
    all_have_theirs: &Barrier,
    sold: &AtomicI64,
) -> anyhow::Result<()> {
    for round in 1..=ROUNDS {
        let order = transactions.begin(Options::new("order")).await?;
        let mut branch = pool.begin_in(order.xid()).await?;
        sqlx::query(TAKE)
            .bind(number)
            .bind(number)
            .execute(&mut branch)
            .await?;
        branch.commit().await?;
        // With exclusive locks the second would have to wait for the end of the first.
        all_have_theirs.wait().await;
        if (number + round) % 3 == 0 {
            order.roll_back("changed my mind").await?;
        } else {
            sold.fetch_add(number, Relaxed);
            order.commit().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn none_waits_for_the_others_and_nothing_is_lost() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = Daemon::start(&folder.path().join("data"), free_port()).await?;
    let database = server::database().await;
    schema::create(&database).await?;
    let pool = AtPool::builder(&database)
        .max_connections(BUYERS as u32)
        .escrow_column("stock", "count", 0..=STOCK);
    let agent = RmAgent::builder("stock")
        .coordinator(daemon.url())
        .mariadb_pool(RESOURCE, pool)
        .start()
        .await?;
    let pool = agent.mariadb_pool(RESOURCE)?;
    sqlx::raw_sql(
        "CREATE TABLE stock (product BIGINT PRIMARY KEY, count BIGINT NOT NULL);
         INSERT INTO stock (product, count) VALUES (1, 1000), (2, 1000)",
    )
    .execute(pool.plain())
    .await?;
    let transactions = TransactionClient::connect(daemon.url()).await?;

    let all_have_theirs = Arc::new(Barrier::new(BUYERS as usize));
    let sold = Arc::new(AtomicI64::new(0));
    let mut buyers = JoinSet::new();
    for number in 1..=BUYERS {
        let (pool, transactions) = (pool.clone(), transactions.clone());
        let (all_have_theirs, sold) = (Arc::clone(&all_have_theirs), Arc::clone(&sold));
        buyers
            .spawn(async move { buy(&pool, &transactions, number, &all_have_theirs, &sold).await });
    }
    while let Some(buyer) = buyers.join_next().await {
        buyer??;
    }
    let left = STOCK - sold.load(Relaxed);
    assert!(left > 0 && left < STOCK, "{left}");
    eventually("what was not sold is back", SOON, async || {
        let counts: Vec<i64> = sqlx::query_scalar("SELECT count FROM stock ORDER BY product")
            .fetch_all(pool.plain())
            .await
            .ok()?;
        let undo: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM undo_log WHERE log_status = 0")
            .fetch_one(pool.plain())
            .await
            .ok()?;
        (counts == [left, STOCK] && undo == 0).then_some(())
    })
    .await?;

    // Nobody can take what is not there, whoever rolls back.
    let order = transactions.begin(Options::new("order")).await?;
    let mut branch = pool.begin_in(order.xid()).await?;
    let error = sqlx::query("UPDATE stock SET count = count - ? WHERE product = 1")
        .bind(left + 1)
        .execute(&mut branch)
        .await
        .expect_err("there are fewer");
    let found = Error::from_sqlx(&error);
    assert!(
        matches!(found, Some(Error::OutOfBounds { value: -1, .. })),
        "{error}"
    );
    branch.rollback().await?;
    order.roll_back("sold out").await?;

    transactions.shutdown().await;
    agent.shutdown().await;
    pool.plain().close().await;
    Ok(())
}
