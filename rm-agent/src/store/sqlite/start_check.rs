//! Looks at start whether the database is prepared.

use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use crate::{error::Error, limits};

/// The version of the tables that this library writes.
const SCHEMA_VERSION: i64 = 1;

/// The oldest SQLite that has all that is used here: the time with its fractions.
const OLDEST: [u32; 2] = [3, 42];

/// Every column that this library uses, its type, its place in the primary key, and
/// whether it is declared NOT NULL.
const COLUMNS: &[(&str, &str, &str, i64, bool)] = &[
    ("undo_log", "xid", "INTEGER", 1, true),
    ("undo_log", "branch_id", "INTEGER", 2, true),
    ("undo_log", "rollback_info", "BLOB", 0, true),
    ("undo_log", "log_status", "INTEGER", 0, true),
    ("undo_log", "log_created", "INTEGER", 0, true),
    ("accede_meta", "database_id", "TEXT", 0, true),
    ("accede_meta", "cluster_id", "TEXT", 0, false),
    ("accede_meta", "schema_version", "INTEGER", 0, true),
];

/// The same for fences.
const FENCE_COLUMNS: &[(&str, &str, &str, i64, bool)] = &[
    ("accede_fence", "xid", "INTEGER", 1, true),
    ("accede_fence", "branch_id", "INTEGER", 2, true),
    ("accede_fence", "status", "INTEGER", 0, true),
    ("accede_fence", "resource", "TEXT", 0, true),
    ("accede_fence", "created", "INTEGER", 0, true),
];

/// Checks the database's settings, tables, columns and the undo log's key.
pub(crate) async fn check(pool: &SqlitePool) -> Result<(), Error> {
    in_time(check_all(pool)).await
}

/// Checks the table of fences, which databases of before do not have.
pub(crate) async fn check_fences(pool: &SqlitePool) -> Result<(), Error> {
    in_time(check_columns(pool, FENCE_COLUMNS)).await
}

async fn in_time(check: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    match tokio::time::timeout(limits::START_CHECK_TIMEOUT, check).await {
        Ok(result) => result,
        Err(_) => Err(Error::Database {
            doing: "checking the database at start",
            source: sqlx::Error::PoolTimedOut,
        }),
    }
}

fn failed() -> impl FnOnce(sqlx::Error) -> Error {
    Error::database("checking the database at start")
}

struct Found {
    table: String,
    column: String,
    kind: String,
    key: i64,
    not_null: bool,
}

fn read(row: &SqliteRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        table: row.try_get(0)?,
        column: row.try_get(1)?,
        kind: row.try_get(2)?,
        key: row.try_get(3)?,
        not_null: row.try_get(4)?,
    })
}

async fn check_all(pool: &SqlitePool) -> Result<(), Error> {
    check_settings(pool).await?;
    check_columns(pool, COLUMNS).await?;
    check_version(pool).await
}

fn missing(reason: String) -> Result<(), Error> {
    Err(Error::Schema { reason })
}

async fn check_columns(
    pool: &SqlitePool,
    columns: &[(&str, &str, &str, i64, bool)],
) -> Result<(), Error> {
    let rows = sqlx::query(
        "SELECT m.name, x.name, x.type, x.pk, x.\"notnull\"
         FROM main.sqlite_schema m, pragma_table_info(m.name, 'main') x
         WHERE m.type = 'table' AND m.name IN ('undo_log', 'accede_meta', 'accede_fence')",
    )
    .fetch_all(pool)
    .await
    .map_err(failed())?;
    let found: Result<Vec<Found>, sqlx::Error> = rows.iter().map(read).collect();
    let found = found.map_err(failed())?;
    for (table, column, kind, key, not_null) in columns {
        if !found.iter().any(|row| row.table == *table) {
            return missing(format!("the table {table} does not exist in the database"));
        }
        let mut rows = found.iter();
        let Some(row) = rows.find(|row| row.table == *table && row.column == *column) else {
            return missing(format!("the table {table} has no column {column}"));
        };
        if row.kind != *kind {
            return missing(format!(
                "{table}.{column} has type {}, not {kind}",
                row.kind
            ));
        }
        if *not_null && !row.not_null {
            return missing(format!("{table}.{column} is not declared NOT NULL"));
        }
        if *table != "accede_meta" && row.key != *key {
            return missing(format!(
                "the primary key of {table} is not (xid, branch_id)"
            ));
        }
    }
    Ok(())
}

async fn check_version(pool: &SqlitePool) -> Result<(), Error> {
    let version: Option<i64> = sqlx::query_scalar("SELECT MAX(schema_version) FROM accede_meta")
        .fetch_one(pool)
        .await
        .map_err(failed())?;
    match version {
        Some(SCHEMA_VERSION) => Ok(()),
        Some(newer) if newer > SCHEMA_VERSION => Err(Error::Configuration(format!(
            "accede_meta has schema version {newer}, this library knows {SCHEMA_VERSION}: \
             update the service"
        ))),
        _ => missing("accede_meta holds no row of this version".to_owned()),
    }
}

async fn check_settings(pool: &SqlitePool) -> Result<(), Error> {
    let row = sqlx::query(
        "SELECT sqlite_version(), j.journal_mode, e.encoding, s.synchronous
         FROM pragma_journal_mode j, pragma_encoding e, pragma_synchronous s",
    )
    .fetch_one(pool)
    .await
    .map_err(failed())?;
    let text = |index: usize| row.try_get_unchecked::<String, _>(index).map_err(failed());
    let wrong = |what: String| Err(Error::Configuration(what));
    let version = text(0)?;
    let numbers: Vec<u32> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .take(2)
        .collect();
    if numbers.as_slice() < OLDEST.as_slice() {
        return wrong(format!(
            "the library is SQLite {version}; 3.42 and later are supported"
        ));
    }
    let journal = text(1)?;
    if journal == "memory" || journal == "off" {
        return wrong(format!(
            "the database's journal_mode is {journal}: a crash would lose commits that were \
             reported as done; use a database in a file, in WAL mode"
        ));
    }
    if journal != "wal" {
        return wrong(format!(
            "the database's journal_mode is {journal}, in which readers keep a branch from \
             committing; run PRAGMA journal_mode = WAL once, as `accede schema create` does"
        ));
    }
    let encoding = text(2)?;
    if encoding != "UTF-8" {
        return wrong(format!(
            "the database's encoding is {encoding}; only UTF-8 keeps every text byte for byte"
        ));
    }
    let synchronous: i64 = row.try_get_unchecked(3).map_err(failed())?;
    if synchronous < 2 {
        return wrong(
            "PRAGMA synchronous is below FULL on this library's connections: a crash would lose \
             commits that were reported as done; do not set it in after_connect"
                .to_owned(),
        );
    }
    Ok(())
}
