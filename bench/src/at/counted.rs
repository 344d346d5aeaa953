//! What one AT branch sends to its database: counted, not estimated.

use std::time::Duration;

use accede_rm_agent::AtPool;
use anyhow::Context as _;
use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    database::Database,
    proxy::Proxy,
    ways::{branch, local_pool, xid},
};

/// Branches before counting: connections open, statements are prepared, tables are known.
const WARM_UP: u64 = 20;
/// Branches that are counted.
const BRANCHES: u64 = 200;
/// How long a connection may take to be given back to its pool.
const SETTLE: Duration = Duration::from_secs(5);
/// Ids start above those of the measurements.
const FIRST_ID: u64 = 1 << 40;

/// Averages for one branch in phase one.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerBranch {
    /// How often the client waited for the database.
    pub(super) round_trips: f64,
    /// Statements that the database ran, `BEGIN` and `COMMIT` included.
    pub(super) statements: f64,
}

/// Runs branches over one connection, through a proxy that counts trips, with the database's own
/// count of statements.
///
/// # Errors
/// When a branch fails, or the database has no `pg_stat_statements`.
pub(super) async fn count(database: &Database) -> anyhow::Result<PerBranch> {
    let proxy = Proxy::start(database.address.clone()).await?;
    let options: PgConnectOptions = database.url.parse()?;
    let counted = options
        .clone()
        .port(proxy.port)
        .options([("pg_stat_statements.track", "top")]);
    let phase_two = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options.clone());
    let builder = AtPool::builder(&database.url).connect_options(counted);
    let (pool, deleter) = local_pool(builder, phase_two, 1)?;
    for number in 0..WARM_UP {
        branch(&pool, xid(FIRST_ID + number)?, 1).await?;
    }
    let mut admin = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql("SELECT pg_stat_statements_reset()")
        .execute(&mut admin)
        .await
        .context("pg_stat_statements is not there: install PostgreSQL's contrib package")?;
    settled(pool.plain()).await?;
    let before = proxy.trips();
    for number in WARM_UP..WARM_UP + BRANCHES {
        branch(&pool, xid(FIRST_ID + number)?, 1).await?;
    }
    settled(pool.plain()).await?;
    let trips = proxy.trips() - before;
    let statements: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements")
            .fetch_one(&mut admin)
            .await?;
    pool.plain().close().await;
    drop(pool);
    // The registrar went with the pool: the task deletes what is left and ends.
    deleter.await?;
    admin.close().await?;
    Ok(PerBranch {
        round_trips: trips as f64 / BRANCHES as f64,
        statements: statements as f64 / BRANCHES as f64,
    })
}

/// Waits until the connection is back in its pool, which tests it first: that trip counts too.
async fn settled(pool: &PgPool) -> anyhow::Result<()> {
    let idle = async {
        while pool.num_idle() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SETTLE, idle)
        .await
        .context("the connection was not given back to its pool")
}
