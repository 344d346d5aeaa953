//! A schema twice: one is worked on through branches, its shadow by plain SQL.

use std::collections::BTreeMap;

use accede_proto::Xid;
use futures_util::TryStreamExt as _;
use sqlx::{
    Column as _, Connection as _, Executor as _, MySqlConnection, MySqlPool, Row as _,
    mysql::{MySqlColumn, MySqlPoolOptions},
};

use super::{
    super::{AtPool, BranchKey, Fixture, UndoPolicy, dump, phase_two},
    schema::Schema,
    statements::Statement,
};
use crate::{
    Error, at::analysis::RESERVED_PREFIX, error::sql_state, store::mariadb::AtTransaction,
};

/// Time stands still, so that both copies get the same one.
const TIME: &str = "SET SESSION timestamp = 1767225600.5";

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
    inserted: u64,
    rows: Vec<Vec<Option<Vec<u8>>>>,
}

pub(super) struct World<'a> {
    fixture: &'a Fixture,
    pool: AtPool,
    shadow_pool: MySqlPool,
    shadow: MySqlConnection,
    schema: &'a Schema,
}

/// How one statement ended.
enum End {
    Ran,
    Refused,
    Failed,
}

async fn fill_copy(connection: &mut MySqlConnection, schema: &Schema, fill: &[String]) {
    run_raw(connection, TIME).await.expect("a session");
    run_raw(connection, &schema.create)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", schema.create));
    for sql in fill {
        // Some do not fit, in both copies the same.
        let _ = run_raw(connection, sql).await;
    }
}

impl<'a> World<'a> {
    pub(super) async fn new(fixture: &'a Fixture, schema: &'a Schema, fill: &[String]) -> Self {
        let shadow_url = format!("{}_shadow", fixture.url);
        let (_, name) = shadow_url.rsplit_once('/').expect("the URL has a database");
        fixture
            .execute(&format!(
                "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET utf8mb4"
            ))
            .await;
        let mut live = MySqlConnection::connect(&fixture.url)
            .await
            .expect("connect");
        let mut shadow = MySqlConnection::connect(&shadow_url)
            .await
            .expect("connect");
        drop_tables(&mut live, schema).await;
        fill_copy(&mut live, schema, fill).await;
        fill_copy(&mut shadow, schema, fill).await;
        let _ = live.close().await;
        let options = MySqlPoolOptions::new()
            .max_connections(2)
            .after_connect(|connection, _| {
                Box::pin(async move { run_raw(connection, TIME).await })
            });
        let pool = AtPool::builder(&fixture.url)
            .resource("proof")
            .pool_options(options)
            .build(fixture.registrar.clone())
            .expect("a pool");
        let shadow_pool = MySqlPoolOptions::new()
            .max_connections(1)
            .connect_lazy(&shadow_url);
        Self {
            fixture,
            pool,
            shadow_pool: shadow_pool.expect("a pool"),
            shadow,
            schema,
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
        for table in &self.schema.tables {
            let live = dump(self.pool.plain(), table.plain_name).await;
            let shadow = dump(&self.shadow_pool, table.plain_name).await;
            if live != shadow {
                counts.mismatches.push(format!(
                    "after {end} {} differs\n{}\nthere are\n{}\nmissing are\n{}",
                    table.name,
                    texts(branches),
                    missing_in(&shadow, &live),
                    missing_in(&live, &shadow)
                ));
            }
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
        tx.commit()
            .await
            .map_err(|error| Some(format!("commit: {error}\n{}", texts_of(statements))))
    }

    /// What the coordinator does once the transaction is decided.
    async fn finish(&mut self, xid: Xid, commit: bool, counts: &mut Counts) {
        let mut branches = self.fixture.registrar.done_branches(xid);
        branches.sort_unstable();
        let keys: Vec<BranchKey> = branches
            .into_iter()
            .rev()
            .map(|branch| BranchKey { xid, branch })
            .collect();
        if commit {
            counts.committed += 1;
            phase_two::delete_undo(self.pool.phase_two(), &keys)
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
        self.fixture.registrar.finish(xid);
        counts.left_locks += self.fixture.registrar.held_locks() as u64;
        let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM undo_log WHERE log_status = 0")
            .fetch_one(self.pool.plain())
            .await
            .expect("readable");
        counts.left_undo_rows += u64::try_from(left).unwrap_or_default();
        self.fixture.execute("DELETE FROM undo_log").await;
        self.fixture.registrar.release();
    }

    pub(super) async fn close(self) {
        let mut live = MySqlConnection::connect(&self.fixture.url)
            .await
            .expect("connect");
        drop_tables(&mut live, self.schema).await;
        self.pool.plain().close().await;
        self.pool.phase_two().close().await;
        self.shadow_pool.close().await;
        let _ = self.shadow.close().await;
        let _ = live.close().await;
    }
}

/// References go before what they reference.
async fn drop_tables(connection: &mut MySqlConnection, schema: &Schema) {
    for table in schema.tables.iter().rev() {
        let sql = format!("DROP TABLE IF EXISTS {}", table.name);
        run_raw(connection, &sql).await.expect("dropped");
    }
}

/// Runs a statement in the branch and in the shadow; an error says how they differ.
async fn run_both(
    tx: &mut AtTransaction,
    shadow: &mut MySqlConnection,
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
        (Ok(here), Ok(there)) if here == there || counts_otherwise(sql, &here, &there) => {
            Ok(End::Ran)
        }
        (Ok(here), Ok(there)) => Err(format!("{sql}\ndid {here:?}\nshould do {there:?}")),
        (Err(here), Err(there))
            if class(&here) == class(&there) && Error::from_sqlx(&here).is_none() =>
        {
            Ok(End::Failed)
        }
        // Which of two rows meets the other one first is not defined.
        (Ok(_), Err(error)) | (Err(error), Ok(_)) if class(&error).as_deref() == Some("23") => {
            Ok(End::Failed)
        }
        // Strict mode does not look at the condition of the locking read.
        (Ok(_), Err(error)) if class(&error).as_deref() == Some("22") => Ok(End::Failed),
        // So it went on, and met something else.
        (Err(here), Err(there))
            if class(&there).as_deref() == Some("22") && Error::from_sqlx(&here).is_none() =>
        {
            Ok(End::Failed)
        }
        // Two of its rows met each other.
        (Err(error), _) if matches!(Error::from_sqlx(&error), Some(Error::RowsMoved { .. })) => {
            Ok(End::Failed)
        }
        // It has run, but its rows were not found again, or a REPLACE met another row by a value
        // that compares inexactly (a large BIT): the branch is broken, and says so.
        (Err(error), Ok(_))
            if ["not found under", "takes its place"]
                .iter()
                .any(|reason| error.to_string().contains(reason)) =>
        {
            Ok(End::Failed)
        }
        (here, there) => Err(format!("{sql}\nended as {here:?}\nshould end as {there:?}")),
    }
}

/// Whether only the count differs, and may. MariaDB looks at what lies beneath a NULL when it
/// compares a row that an upsert met with what becomes of it, and may name a generated key
/// that no row got; and it looks at whether it can do an UPDATE in place of a REPLACE by an
/// equal row.
fn counts_otherwise(sql: &str, here: &Effect, there: &Effect) -> bool {
    let upsert = sql.contains("ON DUPLICATE KEY UPDATE");
    let (least, most) = if upsert {
        (here.affected, here.affected * 2)
    } else if sql.starts_with("REPLACE") {
        (here.affected.div_ceil(2), here.affected)
    } else {
        return false;
    };
    here.rows == there.rows
        && (upsert || here.inserted == there.inserted)
        && (least..=most).contains(&there.affected)
}

/// The kind of a database's error: which constraint is violated first is not defined.
fn class(error: &sqlx::Error) -> Option<String> {
    sql_state(error).map(|state| state[..2].to_owned())
}

async fn effect<'c>(
    executor: impl sqlx::Executor<'c, Database = sqlx::MySql>,
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
                effect.inserted = done.last_insert_id();
            }
            sqlx::Either::Right(row) => {
                let own = |column: &&MySqlColumn| !column.name().starts_with(RESERVED_PREFIX);
                let values = row.columns().iter().filter(own).map(|column| {
                    row.try_get_unchecked::<Option<Vec<u8>>, _>(column.ordinal())
                        .expect("it is there")
                });
                effect.rows.push(values.collect());
            }
        }
    }
    effect.rows.sort();
    Ok(effect)
}

async fn run_raw(connection: &mut MySqlConnection, sql: &str) -> Result<(), sqlx::Error> {
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
