//! What one statement sends to its database, plainly and as an AT branch: counted, not estimated.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};

use super::{
    proxy::Proxy,
    server::{Database, Kind},
    store::{self, Store, Work},
    ways::xid,
};
use crate::report::{Sample, median};

/// Statements before counting: connections open, statements are prepared, tables are known.
const WARM_UP: u64 = 20;
/// Statements that are counted.
const COUNTED: u64 = 200;
/// The same of batches.
const COUNTED_BATCHES: u64 = 20;
/// How long a connection may take to be given back to its pool.
const SETTLE: Duration = Duration::from_secs(5);
/// Ids start above those of the measurements; each count has some of its own.
const FIRST_ID: u64 = 1 << 40;

/// What one transaction takes in phase one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// How often a plain transaction waits for the database.
    pub(super) plain_round_trips: f64,
    /// How often a branch waits for it.
    pub(super) round_trips: f64,
    /// Statements of a branch that the database ran, `BEGIN` and `COMMIT` included; nothing where
    /// it does not count them.
    pub(super) statements: Option<f64>,
}

/// Runs this work over one connection, through a proxy that counts trips, with PostgreSQL's own
/// count of statements.
///
/// # Errors
/// When a transaction fails, or PostgreSQL has no `pg_stat_statements`.
pub(super) async fn count(database: &Database, work: Work) -> anyhow::Result<Counts> {
    let proxy = Proxy::start(database.address.clone()).await?;
    let mut url = database.url_at(&format!("127.0.0.1:{}", proxy.port));
    if database.kind == Kind::Postgres {
        url += "?options[pg_stat_statements.track]=top";
    }
    let (store, deleter) = store::local(database.kind, &url, 1, &database.url())?;
    let counted = match work {
        Work::Random => COUNTED,
        Work::Insert1000 | Work::Update1000 => COUNTED_BATCHES,
    };
    let plain = async |_: u64| store.plain(work.job()).await;
    let branch = async |number: u64| {
        let first = FIRST_ID * (1 + work as u64);
        let xid = xid(first + number).map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        store.branch_in(xid, work.job()).await
    };
    let mut counter = Counter {
        proxy,
        statements: match database.kind {
            Kind::Postgres => Some(PgConnection::connect(&database.url()).await?),
            Kind::MariaDb => None,
        },
    };
    let (plain_round_trips, _) = counter.count(store.as_ref(), counted, plain).await?;
    let (round_trips, statements) = counter.count(store.as_ref(), counted, branch).await?;
    store.close().await;
    drop(store);
    // The registrar went with the store: the task deletes what is left and ends.
    deleter.await?;
    Ok(Counts {
        plain_round_trips,
        round_trips,
        statements,
    })
}

fn exact(value: f64) -> Sample {
    Sample {
        value,
        noisy: false,
    }
}

struct Counter {
    proxy: Proxy,
    /// To ask for the database's own count.
    statements: Option<PgConnection>,
}

impl Counter {
    /// Round trips and statements of a transaction: the median, as now and then a table's
    /// description is read again and a connection visits its pool.
    async fn count(
        &mut self,
        store: &dyn Store,
        counted: u64,
        one: impl AsyncFn(u64) -> sqlx::Result<()>,
    ) -> anyhow::Result<(f64, Option<f64>)> {
        for number in 0..WARM_UP {
            one(number).await?;
        }
        settle(store).await?;
        let (mut trips, mut statements) = (Vec::new(), Vec::new());
        let mut before = (self.proxy.trips(), self.statements().await?);
        for number in WARM_UP..WARM_UP + counted {
            one(number).await?;
            let after = (self.proxy.trips(), self.statements().await?);
            trips.push(exact((after.0 - before.0) as f64));
            let both = after.1.zip(before.1);
            statements.extend(both.map(|(after, before)| exact((after - before) as f64)));
            before = after;
        }
        let counts_statements = !statements.is_empty();
        let statements = counts_statements.then(|| median(statements));
        Ok((median(trips), statements))
    }

    async fn statements(&mut self) -> anyhow::Result<Option<i64>> {
        let Some(connection) = &mut self.statements else {
            return Ok(None);
        };
        let sum: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements")
                .fetch_one(connection)
                .await
                .context("pg_stat_statements is not there: install PostgreSQL's contrib package")?;
        Ok(Some(sum))
    }
}

/// Waits until the connections are back in their pools, which test them first: that trip counts
/// too.
async fn settle(store: &dyn Store) -> anyhow::Result<()> {
    tokio::time::timeout(SETTLE, store.settled())
        .await
        .context("a connection was not given back to its pool")
}
