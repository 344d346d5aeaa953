//! AT against a real PostgreSQL.

mod blocked;
mod cancellation;
mod concurrent;
mod crashes;
mod escrow;
mod executor;
mod fence;
mod global_lock;
mod images;
mod lending;
mod locking;
mod merging;
mod narrow;
mod order;
mod phase_one;
mod proof;
mod refusals;
mod rollback;
mod savepoints;
mod server;
mod shapes;
mod sizes;
mod together;
mod trips;
mod xa;

use std::sync::Arc;

use accede_link::context::{TransactionContext, scope};
use accede_proto::{Xid, XidParts};
use sqlx::PgPool;

use super::{
    AtPool, AtPoolBuilder,
    phase_two::{self, BranchKey, PhaseTwoError, UndoPolicy},
};
use crate::store::{test_proxy as proxy, test_registrar as registrar};
use registrar::TestRegistrar;

/// A database of its own with this library's tables, and a pool on it.
struct Fixture {
    url: String,
    pool: AtPool,
    registrar: Arc<TestRegistrar>,
}

impl Fixture {
    async fn new(setup: &str) -> Self {
        Self::with(setup, |builder| builder).await
    }

    async fn with(setup: &str, configure: impl FnOnce(AtPoolBuilder) -> AtPoolBuilder) -> Self {
        let url = server::database().await;
        crate::schema::create(&url)
            .await
            .expect("tables are created");
        let registrar = Arc::new(TestRegistrar::default());
        let builder = configure(
            AtPool::builder(&url)
                .resource("test-db")
                .max_connections(20),
        );
        let pool = builder
            .connect(registrar.clone())
            .await
            .expect("the database is prepared");
        sqlx::raw_sql(sqlx::AssertSqlSafe(setup.to_owned()))
            .execute(pool.plain())
            .await
            .expect("the test's setup is valid SQL");
        Self {
            url,
            pool,
            registrar,
        }
    }

    /// The whole table as text, in key order.
    async fn dump(&self, table: &str) -> Vec<String> {
        dump(self.pool.plain(), table).await
    }

    async fn roll_back(&self, xid: Xid, branch: u32) -> Result<(), PhaseTwoError> {
        self.roll_back_by(xid, branch, UndoPolicy::Check).await
    }

    async fn roll_back_by(
        &self,
        xid: Xid,
        branch: u32,
        policy: UndoPolicy,
    ) -> Result<(), PhaseTwoError> {
        phase_two::roll_back(
            self.pool.phase_two(),
            BranchKey { xid, branch },
            true,
            policy,
        )
        .await
    }

    /// Runs SQL statements one by one in a branch of `xid` and commits it.
    async fn branch(&self, xid: Xid, statements: &[&str]) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin_in(xid).await?;
        for &sql in statements {
            sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
                .execute(&mut tx)
                .await?;
        }
        tx.commit().await
    }

    async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(self.pool.plain())
            .await
            .expect("valid SQL");
    }
}

/// As an agent does it: together with others if that can be, else alone.
async fn roll_back_as_agents_do(
    pool: &PgPool,
    key: BranchKey,
    was_done: bool,
) -> Result<(), PhaseTwoError> {
    let together = phase_two::roll_back_together(pool, &[key]).await;
    if together.is_ok_and(|undone| undone == [key]) {
        return Ok(());
    }
    phase_two::roll_back(pool, key, was_done, UndoPolicy::Check).await
}

async fn dump(pool: &PgPool, table: &str) -> Vec<String> {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT whole::text FROM {table} whole ORDER BY 1"
    )))
    .fetch_all(pool)
    .await
    .expect("the table can be read")
}

fn xid(number: u64) -> Xid {
    Xid::from_parts(XidParts {
        time_ms: number,
        sequence: 1,
        worker: 1,
    })
    .expect("it fits")
}

/// Runs a future inside the global transaction.
async fn inside<F: Future>(xid: Xid, future: F) -> F::Output {
    scope(Some(TransactionContext::new(xid)), future).await
}
