//! A schema twice: one is worked on through branches, its shadow by plain SQL.

use std::{collections::BTreeMap, sync::Arc};

use accede_proto::Xid;
use futures_util::TryStreamExt as _;
use sqlx::{
    Column as _, Connection as _, Executor as _, Row as _, SqliteConnection, SqlitePool,
    sqlite::SqliteConnectOptions,
};

use super::{
    super::{AtPool, BranchKey, UndoPolicy, dump, folder, phase_two},
    schema::Schema,
    statements::Statement,
};
use crate::{
    Error,
    at::image::Value,
    store::{
        sqlite::{AtTransaction, FOREIGN_KEY, error_number, rows},
        test_registrar::TestRegistrar,
    },
};

/// What became of the statements.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) ran: u64,
    pub(super) refused: u64,
    /// The database refused them, here and in the shadow.
    pub(super) failed: u64,
    pub(super) shapes: BTreeMap<&'static str, [u64; 3]>,
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    pub(super) left_undo_rows: u64,
    pub(super) left_locks: u64,
    pub(super) mismatches: Vec<String>,
}

/// What a statement did: its counts and its rows, in no order.
#[derive(Debug, PartialEq, Eq)]
struct Effect {
    affected: u64,
    inserted: i64,
    rows: Vec<Vec<Value>>,
}

pub(super) struct World<'a> {
    registrar: Arc<TestRegistrar>,
    pool: AtPool,
    shadow_pool: SqlitePool,
    shadow: SqliteConnection,
    schema: &'a Schema,
    _folder: tempfile::TempDir,
}

/// How one statement ended.
enum End {
    Ran,
    Refused,
    Failed,
}

impl<'a> World<'a> {
    pub(super) async fn new(schema: &'a Schema, fill: &[String]) -> Self {
        let folder = folder();
        let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
        let mut connections = Vec::new();
        for name in ["live.db", "shadow.db"] {
            crate::schema::create(&url(name)).await.expect("created");
            let mut connection = SqliteConnection::connect(&url(name)).await.expect("opened");
            run_raw(&mut connection, &schema.create)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", schema.create));
            for sql in fill {
                // Some do not fit, in both copies the same.
                let _ = run_raw(&mut connection, sql).await;
            }
            connections.push(connection);
        }
        let shadow = connections.pop().expect("the second one");
        let registrar = Arc::new(TestRegistrar::default());
        let pool = AtPool::builder(&url("live.db"))
            .resource("proof")
            .max_connections(2)
            .build(registrar.clone())
            .expect("a pool");
        let options: SqliteConnectOptions = url("shadow.db").parse().expect("a URL");
        Self {
            registrar,
            pool,
            shadow_pool: SqlitePool::connect_lazy_with(options),
            shadow,
            schema,
            _folder: folder,
        }
    }

    /// Runs a global transaction of some branches and ends it either way.
    pub(super) async fn transaction(
        &mut self,
        xid: Xid,
        branches: &[Vec<Statement>],
        commit: bool,
        counts: &mut Counts,
    ) {
        run_raw(&mut self.shadow, "BEGIN").await.expect("begin");
        let mut commit = commit;
        for statements in branches {
            if let Err(reason) = self.branch(xid, statements, counts).await {
                counts.mismatches.extend(reason);
                commit = false;
                break;
            }
        }
        let end = if commit { "COMMIT" } else { "ROLLBACK" };
        run_raw(&mut self.shadow, end).await.expect("end");
        self.finish(xid, commit, counts).await;
        let tables = self.schema.tables.iter().map(|table| table.plain_name);
        for table in tables.chain(["audit"]) {
            let live = dump(self.pool.plain(), table).await;
            let shadow = dump(&self.shadow_pool, table).await;
            if live != shadow {
                counts.mismatches.push(format!(
                    "after {end} {table} differs\n{}\nthere are\n{}\nmissing are\n{}",
                    texts(branches),
                    missing_in(&shadow, &live),
                    missing_in(&live, &shadow)
                ));
            }
        }
        self.take_over_numbers().await;
    }

    /// Numbers that AUTOINCREMENT has given are never taken back; plain SQL does so.
    async fn take_over_numbers(&mut self) {
        const THERE: &str = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'";
        let live = self.pool.plain();
        if sqlx::query(THERE)
            .fetch_optional(live)
            .await
            .expect("readable")
            .is_none()
        {
            return;
        }
        let numbers: Vec<(String, i64)> = sqlx::query_as("SELECT name, seq FROM sqlite_sequence")
            .fetch_all(live)
            .await
            .expect("readable");
        run_raw(&mut self.shadow, "DELETE FROM sqlite_sequence")
            .await
            .expect("writable");
        for (name, number) in numbers {
            sqlx::query("INSERT INTO sqlite_sequence VALUES (?, ?)")
                .bind(name)
                .bind(number)
                .execute(&mut self.shadow)
                .await
                .expect("writable");
        }
    }

    /// Runs a branch and the same in the shadow. An error ends the transaction; it
    /// holds what did not go alike.
    async fn branch(
        &mut self,
        xid: Xid,
        statements: &[Statement],
        counts: &mut Counts,
    ) -> Result<(), Option<String>> {
        let mut tx = self.pool.begin_in(xid).await.expect("begin");
        for statement in statements {
            let shape = counts.shapes.entry(statement.shape).or_default();
            match run_both(&mut tx, &mut self.shadow, statement).await {
                Ok(End::Ran) => {
                    shape[0] += 1;
                    counts.ran += 1;
                }
                Ok(End::Refused) => {
                    shape[1] += 1;
                    counts.refused += 1;
                }
                Ok(End::Failed) => {
                    shape[2] += 1;
                    counts.failed += 1;
                    tx.rollback().await.expect("rollback");
                    return Err(None);
                }
                Err(mismatch) => {
                    tx.rollback().await.expect("rollback");
                    return Err(Some(format!("{mismatch}\n{}", texts_of(statements))));
                }
            }
        }
        match tx.commit().await {
            Ok(()) => Ok(()),
            // A deferred foreign key: the shadow's are looked at when all has run.
            Err(error) if error_number(&error) == Some(FOREIGN_KEY) => Err(None),
            Err(error) => Err(Some(format!("commit: {error}\n{}", texts_of(statements)))),
        }
    }

    /// What the coordinator does once the transaction is decided.
    async fn finish(&mut self, xid: Xid, commit: bool, counts: &mut Counts) {
        let mut branches = self.registrar.done_branches(xid);
        branches.sort_unstable();
        let keys: Vec<BranchKey> = branches
            .into_iter()
            .rev()
            .map(|branch| BranchKey { xid, branch })
            .collect();
        if commit {
            counts.committed += 1;
            phase_two::delete_undo(&self.pool, &keys)
                .await
                .expect("undo records are deleted");
        } else {
            counts.rolled_back += 1;
            for &key in &keys {
                let undone = phase_two::roll_back(&self.pool, key, true, UndoPolicy::Check).await;
                if let Err(error) = undone {
                    counts.mismatches.push(format!("not undone: {error:?}"));
                }
            }
        }
        self.registrar.finish(xid);
        counts.left_locks += self.registrar.held_locks() as u64;
        let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM undo_log WHERE log_status = 0")
            .fetch_one(self.pool.plain())
            .await
            .expect("readable");
        counts.left_undo_rows += u64::try_from(left).unwrap_or_default();
        sqlx::query("DELETE FROM undo_log")
            .execute(self.pool.plain())
            .await
            .expect("writable");
        self.registrar.release();
    }

    pub(super) async fn close(self) {
        self.pool.plain().close().await;
        self.pool.branches().close().await;
        self.pool.phase_two().close().await;
        self.shadow_pool.close().await;
        let _ = self.shadow.close().await;
    }
}

/// Runs a statement in the branch and in the shadow; an error says how they differ.
async fn run_both(
    tx: &mut AtTransaction,
    shadow: &mut SqliteConnection,
    statement: &Statement,
) -> Result<End, String> {
    let sql = &statement.sql;
    let here = effect(&mut *tx, statement).await;
    if let Err(error) = &here
        && matches!(
            Error::from_sqlx(error),
            Some(Error::Statement { .. } | Error::Table { .. })
        )
    {
        return Ok(End::Refused);
    }
    let there = effect(shadow, statement).await;
    match (here, there) {
        (Ok(here), Ok(there)) if here == there => Ok(End::Ran),
        (Ok(here), Ok(there)) => Err(format!("{sql}\ndid {here:?}\nshould do {there:?}")),
        (Err(here), Err(there))
            if class(&here).is_some()
                && class(&here) == class(&there)
                && Error::from_sqlx(&here).is_none() =>
        {
            Ok(End::Failed)
        }
        (here, there) => Err(format!("{sql}\nended as {here:?}\nshould end as {there:?}")),
    }
}

/// The kind of a database's error: which constraint is violated first is not defined.
fn class(error: &sqlx::Error) -> Option<i32> {
    error_number(error).map(|number| number & 0xff)
}

async fn effect<'c>(
    executor: impl sqlx::Executor<'c, Database = sqlx::Sqlite>,
    statement: &Statement,
) -> Result<Effect, sqlx::Error> {
    let mut effect = Effect {
        affected: 0,
        inserted: 0,
        rows: Vec::new(),
    };
    let text = sqlx::AssertSqlSafe(statement.sql.clone());
    let mut steps = match statement.parameters {
        Some((one, two)) => executor.fetch_many(sqlx::query(text).bind(one).bind(two)),
        None => executor.fetch_many(sqlx::query(text)),
    };
    while let Some(step) = steps.try_next().await? {
        match step {
            sqlx::Either::Left(done) => {
                effect.affected += done.rows_affected();
                effect.inserted = done.last_insert_rowid();
            }
            sqlx::Either::Right(row) => {
                let values = row
                    .columns()
                    .iter()
                    .map(|column| rows::value(&row, column.ordinal()).expect("it is there"));
                effect.rows.push(values.collect());
            }
        }
    }
    effect.rows.sort();
    // What the connection did before is of no interest.
    if statement.shape == "SELECT" {
        effect.affected = 0;
    }
    if !statement.numbers || effect.affected == 0 {
        effect.inserted = 0;
    }
    Ok(effect)
}

async fn run_raw(connection: &mut SqliteConnection, sql: &str) -> Result<(), sqlx::Error> {
    connection
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())))
        .await
        .map(drop)
}

fn texts(branches: &[Vec<Statement>]) -> String {
    let all: Vec<String> = branches.iter().map(|branch| texts_of(branch)).collect();
    all.join("\n-- next branch\n")
}

fn texts_of(statements: &[Statement]) -> String {
    let all: Vec<&str> = statements.iter().map(|s| s.sql.as_str()).collect();
    all.join(";\n")
}

/// The rows that only the second one has, shortened.
fn missing_in(one: &[String], other: &[String]) -> String {
    let rows = other.iter().filter(|row| !one.contains(row));
    let texts: Vec<String> = rows.map(|row| row.chars().take(600).collect()).collect();
    texts.join("\n")
}
