//! XA on tables that AT writes as well: a branch of the one meets a row of the other, with a real
//! daemon and a real database.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use accede_rm_agent::{RmAgent, is_retryable, schema};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::{Options, TransactionClient};

const RESOURCE: &str = "shop-db";
const SOON: Duration = Duration::from_secs(60);

const TABLES: &str = "
    CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
    INSERT INTO stock VALUES (1, 1)";
const TAKE: &str = "UPDATE stock SET count = count + 10 WHERE product = 1";

/// An XA branch on a row that an AT branch has changed, which then rolls back: the XA branch must
/// neither build on it nor stand in its way.
#[tokio::test(flavor = "multi_thread")]
async fn xa_beside_at_builds_on_nothing_that_is_undone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = Daemon::start(&folder.path().join("data"), free_port()).await?;
    let database = server::database().await;
    schema::create(&database).await?;
    let agent = RmAgent::builder("shop")
        .coordinator(daemon.url())
        .postgres(RESOURCE, &database)
        .start()
        .await?;
    let pool = agent.pool(RESOURCE)?;
    sqlx::raw_sql(TABLES).execute(pool.plain()).await?;
    let transactions = TransactionClient::connect(daemon.url()).await?;

    let first = transactions.begin(Options::new("at")).await?;
    first.scope(sqlx::query(TAKE).execute(&pool)).await?;
    let second = transactions.begin(Options::new("xa")).await?;
    let xa = pool.xa();
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
    let number = async |sql: &'static str| -> Option<i64> {
        let number = sqlx::query_scalar(sql).fetch_one(pool.plain()).await;
        number.ok()
    };
    let undo = async {
        let waits = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND state = 'idle in transaction'";
        eventually("the second waits for the row lock", SOON, async || {
            (number(waits).await? == 1).then_some(())
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
        (number("SELECT count FROM stock WHERE product = 1").await? == 11).then_some(())
    })
    .await?;
    transactions.shutdown().await;
    agent.shutdown().await;
    pool.plain().close().await;
    Ok(())
}
