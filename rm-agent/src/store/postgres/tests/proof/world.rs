//! A schema twice: one is worked on through branches, its shadow by plain SQL.

use std::collections::BTreeMap;

use accede_proto::Xid;
use sqlx::{
    Column as _, Connection as _, Executor as _, PgConnection, Row as _, postgres::PgConnectOptions,
};

use super::{
    super::{AtPool, Fixture, roll_back_as_agents_do},
    schema::Schema,
    statements::{self, Statement},
};
use crate::{
    Error,
    at::analysis::RESERVED_PREFIX,
    error::sql_state,
    store::postgres::{
        phase_two::{self, BranchKey, UndoPolicy},
        transaction::AtTransaction,
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

/// What a statement did: its count and its rows, in no order.
#[derive(Debug, PartialEq, Eq)]
struct Effect {
    affected: u64,
    rows: Vec<Vec<Option<Vec<u8>>>>,
}

pub(super) struct World<'a> {
    fixture: &'a Fixture,
    pool: AtPool,
    live: PgConnection,
    shadow: PgConnection,
    schema: &'a Schema,
}

/// How one statement ended.
enum End {
    Ran,
    Refused,
    Failed,
}

impl<'a> World<'a> {
    pub(super) async fn new(fixture: &'a Fixture, schema: &'a Schema, fill: &[String]) -> Self {
        let options = |path: &str| -> PgConnectOptions {
            let options: PgConnectOptions = fixture.url.parse().expect("a URL");
            options.options([("search_path", path)])
        };
        fixture
            .execute(
                "DROP SCHEMA IF EXISTS live, shadow CASCADE; CREATE SCHEMA live; CREATE SCHEMA shadow",
            )
            .await;
        let connect = |path: &'static str| {
            let options = options(path);
            async move { PgConnection::connect_with(&options).await }
        };
        let mut live = connect("live,public").await.expect("connect");
        let mut shadow = connect("shadow,public").await.expect("connect");
        for connection in [&mut live, &mut shadow] {
            run_raw(connection, &schema.create)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", schema.create));
            for sql in fill {
                // Some meet a row that is there already, in both the same.
                let _ = run_raw(connection, sql).await;
            }
        }
        let pool = AtPool::builder(&fixture.url)
            .resource("proof")
            .connect_options(options("live,public"))
            .max_connections(2)
            .build(fixture.registrar.clone())
            .expect("a pool");
        Self {
            fixture,
            pool,
            live,
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
        let what = || texts(branches);
        let (live, shadow) = (self.dump(true).await, self.dump(false).await);
        if live != shadow {
            counts.mismatches.push(format!(
                "after {end} the tables differ\n{}\nthere are\n{}\nmissing are\n{}",
                what(),
                missing_in(&shadow, &live),
                missing_in(&live, &shadow)
            ));
        }
    }

    /// Runs a branch and the same in the shadow. An error ends the transaction;
    /// it holds what did not go alike.
    async fn branch(
        &mut self,
        xid: Xid,
        statements: &[Statement],
        counts: &mut Counts,
    ) -> Result<(), Option<String>> {
        let mut tx = self.pool.begin_in(xid).await.expect("begin");
        let mut open = false;
        for statement in statements {
            match statement.shape {
                "SAVEPOINT" => open = true,
                "RELEASE" => open = false,
                _ => {}
            }
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
                    // A savepoint takes the failure back, here as there.
                    let back = Statement::new("ROLLBACK TO", "ROLLBACK TO one".to_owned());
                    if open && run_both(&mut tx, &mut self.shadow, &back).await.is_ok() {
                        continue;
                    }
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
                let pool = self.pool.phase_two();
                // Both ways must leave the same bytes.
                let undone = if counts.rolled_back.is_multiple_of(2) {
                    roll_back_as_agents_do(pool, key, true).await
                } else {
                    phase_two::roll_back(pool, key, true, UndoPolicy::Check).await
                };
                if let Err(error) = undone {
                    counts.mismatches.push(format!("not undone: {error:?}"));
                }
            }
        }
        self.fixture.registrar.finish(xid);
        counts.left_locks += self.fixture.registrar.held_locks() as u64;
        let left = "WITH gone AS (DELETE FROM public.undo_log RETURNING log_status)
            SELECT count(*) FROM gone WHERE log_status = 0";
        let left: i64 = sqlx::query_scalar(left)
            .fetch_one(&mut self.live)
            .await
            .expect("readable");
        counts.left_undo_rows += u64::try_from(left).unwrap_or_default();
        self.fixture.registrar.release();
    }

    async fn dump(&mut self, live: bool) -> Vec<Vec<String>> {
        let connection = if live {
            &mut self.live
        } else {
            &mut self.shadow
        };
        let mut tables = Vec::new();
        for table in &self.schema.tables {
            let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(table.dump_sql()))
                .fetch_all(&mut *connection)
                .await;
            tables.push(rows.unwrap_or_else(|error| panic!("{}: {error}", table.name)));
        }
        tables
    }

    pub(super) async fn close(self) {
        self.pool.plain().close().await;
        self.pool.phase_two().close().await;
        let _ = self.live.close().await;
        let _ = self.shadow.close().await;
    }
}

/// Runs a statement in the branch and in the shadow; an error says how they differ.
async fn run_both(
    tx: &mut AtTransaction,
    shadow: &mut PgConnection,
    statement: &Statement,
) -> Result<End, String> {
    let sql = &statement.sql;
    let several = statement.shape == statements::SEVERAL;
    let here = effect(&mut *tx, statement, several).await;
    if let Err(error) = &here
        && matches!(
            Error::from_sqlx(error),
            Some(Error::Statement { .. } | Error::Table { .. })
        )
    {
        return Ok(End::Refused);
    }
    let there = effect(shadow, statement, several).await;
    match (here, there) {
        (Ok(here), Ok(there)) if here == there => Ok(End::Ran),
        (Ok(here), Ok(there)) => Err(format!("{sql}\ndid {here:?}\nshould do {there:?}")),
        (Err(here), Err(there))
            if class(&here) == class(&there) && Error::from_sqlx(&here).is_none() =>
        {
            Ok(End::Failed)
        }
        // Which of two rows meets the other one first is not defined.
        (Ok(_), Err(error)) | (Err(error), Ok(_))
            if sql_state(&error).as_deref() == Some("23505") =>
        {
            Ok(End::Failed)
        }
        (here, there) => Err(format!("{sql}\nended as {here:?}\nshould end as {there:?}")),
    }
}

/// The kind of a database's error: which constraint is violated first is not defined.
fn class(error: &sqlx::Error) -> Option<String> {
    sql_state(error).map(|state| state[..2].to_owned())
}

async fn effect<'c>(
    executor: impl sqlx::Executor<'c, Database = sqlx::Postgres>,
    statement: &Statement,
    several: bool,
) -> Result<Effect, sqlx::Error> {
    use futures_util::TryStreamExt as _;

    let mut effect = Effect {
        affected: 0,
        rows: Vec::new(),
    };
    let text = sqlx::AssertSqlSafe(statement.sql.clone());
    let mut steps = match statement.parameters {
        Some((one, two)) => executor.fetch_many(sqlx::query(text).bind(one).bind(two)),
        None if several => executor.fetch_many(sqlx::raw_sql(text)),
        None => executor.fetch_many(sqlx::query(text)),
    };
    while let Some(step) = steps.try_next().await? {
        match step {
            sqlx::Either::Left(done) => effect.affected += done.rows_affected(),
            sqlx::Either::Right(row) => {
                let own = |column: &&sqlx::postgres::PgColumn| {
                    !column.name().starts_with(RESERVED_PREFIX)
                };
                let values = row.columns().iter().filter(own).map(|column| {
                    let value = row.try_get_raw(column.ordinal()).expect("it is there");
                    value.as_bytes().ok().map(<[u8]>::to_vec)
                });
                effect.rows.push(values.collect());
            }
        }
    }
    effect.rows.sort();
    Ok(effect)
}

async fn run_raw(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
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
fn missing_in(one: &[Vec<String>], other: &[Vec<String>]) -> String {
    let rows = one
        .iter()
        .zip(other)
        .flat_map(|(one, other)| other.iter().filter(|row| !one.contains(row)));
    let texts: Vec<String> = rows.map(|row| row.chars().take(600).collect()).collect();
    texts.join("\n")
}
