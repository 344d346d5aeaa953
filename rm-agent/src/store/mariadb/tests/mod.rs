//! AT against a real MariaDB.

mod agent;
mod batches;
mod blocked;
mod concurrent;
mod crashes;
mod escrow;
mod fence;
mod global_lock;
mod narrow;
mod phase_one;
mod proof;
mod refusals;
mod rollback;
mod savepoints;
mod server;
mod shapes;
mod trips;
mod xa;

use std::sync::Arc;

use accede_link::context::{TransactionContext, scope};
use accede_proto::{Xid, XidParts};
use sqlx::{MySqlPool, Row as _};

use super::{
    AtPool, AtPoolBuilder,
    phase_two::{self},
};
use crate::store::{
    finish::{BranchKey, PhaseTwoError, UndoPolicy},
    test_proxy as proxy,
    test_registrar::{self as registrar, TestRegistrar},
};

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
        let fixture = Self {
            url,
            pool,
            registrar,
        };
        fixture.execute(setup).await;
        fixture
    }

    /// The whole table byte for byte, in key order.
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
        phase_two::roll_back(&self.pool, BranchKey { xid, branch }, true, policy).await
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
        if sql.trim().is_empty() {
            return;
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(self.pool.plain())
            .await
            .expect("valid SQL");
    }

    async fn undo_rows(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM undo_log")
            .fetch_one(self.pool.plain())
            .await
            .expect("readable")
    }
}

/// Every row as the hexadecimal form of all its columns.
async fn dump(pool: &MySqlPool, table: &str) -> Vec<String> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(COLUMN_NAME AS CHAR), CAST(DATA_TYPE AS CHAR)
         FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
    )
    .bind(table)
    .fetch_all(pool)
    .await
    .expect("readable");
    let shown: Vec<String> = columns
        .iter()
        .map(|(name, kind)| {
            let name = crate::at::mysql::quote(name);
            let value = match kind.as_str() {
                // All digits, and the sign of zero.
                "float" | "double" => format!("CAST(CAST({name} AS DOUBLE) AS CHAR)"),
                "enum" | "set" => format!("CONCAT({name} + 0, ':', {name})"),
                _ => format!("CAST({name} AS BINARY)"),
            };
            format!("COALESCE(HEX({value}), 'NULL')")
        })
        .collect();
    let sql = format!(
        "SELECT CONCAT_WS('|', {}) AS line FROM {} ORDER BY 1",
        shown.join(", "),
        crate::at::mysql::quote(table)
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(pool)
        .await
        .unwrap_or_else(|error| panic!("{table}: {error}"))
        .iter()
        .map(|row| row.get::<String, _>(0))
        .collect()
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
