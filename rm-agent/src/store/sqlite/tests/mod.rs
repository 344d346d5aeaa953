//! AT against real SQLite files.

mod agent;
mod captures;
mod crashes;
mod fence;
mod global_lock;
mod phase_one;
mod proof;
mod refusals;
mod rollback;
mod shapes;

use std::sync::Arc;

use accede_link::context::{TransactionContext, scope};
use accede_proto::{Xid, XidParts};
use sqlx::{Row as _, SqlitePool};

use super::{
    AtPool, AtPoolBuilder,
    phase_two::{self},
};
use crate::store::{
    finish::{BranchKey, PhaseTwoError, UndoPolicy},
    test_registrar::{self as registrar, TestRegistrar},
};

/// A database of its own with this library's tables, and a pool on it.
struct Fixture {
    url: String,
    pool: AtPool,
    registrar: Arc<TestRegistrar>,
    _folder: tempfile::TempDir,
}

/// In memory where that is possible: commits are durable, which costs time.
fn folder() -> tempfile::TempDir {
    let shared = std::path::Path::new("/dev/shm");
    tempfile::Builder::new()
        .prefix("accede-rm-test-")
        .tempdir_in(if shared.is_dir() {
            shared.into()
        } else {
            std::env::temp_dir()
        })
        .expect("a folder")
}

impl Fixture {
    async fn new(setup: &str) -> Self {
        Self::with(setup, |builder| builder).await
    }

    async fn with(setup: &str, configure: impl FnOnce(AtPoolBuilder) -> AtPoolBuilder) -> Self {
        let folder = folder();
        let url = format!("sqlite://{}", folder.path().join("shop.db").display());
        crate::schema::create(&url)
            .await
            .expect("tables are created");
        let registrar = Arc::new(TestRegistrar::default());
        let builder = configure(AtPool::builder(&url).resource("test-db"));
        let pool = builder
            .connect(registrar.clone())
            .await
            .expect("the database is prepared");
        let fixture = Self {
            url,
            pool,
            registrar,
            _folder: folder,
        };
        fixture.execute(setup).await;
        fixture
    }

    /// The whole table value by value with the row numbers, in the order in which it lies
    /// there.
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

    async fn scalar(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(self.pool.plain())
            .await
            .expect("readable")
    }

    async fn undo_rows(&self) -> i64 {
        self.scalar("SELECT COUNT(*) FROM undo_log").await
    }
}

/// Every row: its number if it has one, and the class and bytes of every column, also of
/// computed ones.
async fn dump(pool: &SqlitePool, table: &str) -> Vec<String> {
    let rows = sqlx::query("SELECT name, pk FROM pragma_table_xinfo(?)")
        .bind(table)
        .fetch_all(pool)
        .await
        .expect("readable");
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let without: bool = sqlx::query_scalar("SELECT wr FROM pragma_table_list WHERE name = ?")
        .bind(table)
        .fetch_one(pool)
        .await
        .expect("readable");
    let mut shown: Vec<String> = names
        .iter()
        .map(|name| {
            let name = crate::at::table::quote(name);
            // A number's text has all that tells it from others but the sign of zero.
            format!(
                "typeof({name}) || ':' || COALESCE(CASE typeof({name}) \
                 WHEN 'real' THEN format('%!.20g', {name}) \
                 ELSE hex(CAST({name} AS BLOB)) END, '')"
            )
        })
        .collect();
    if !without {
        shown.insert(0, "_rowid_".to_owned());
    }
    let sql = format!(
        "SELECT CAST({} AS TEXT) FROM {}",
        shown.join(" || '|' || "),
        crate::at::table::quote(table)
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
