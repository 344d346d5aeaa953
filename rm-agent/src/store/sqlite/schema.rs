//! `accede schema create | check | print`.

use std::str::FromStr as _;

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

use super::start_check;
use crate::{error::Error, limits};

/// The migrations that this library ships; [`create`] runs the same text.
const SQL: &str = concat!(
    include_str!("../../../migrations/sqlite/0001_accede.sql"),
    "\n",
    include_str!("../../../migrations/sqlite/0002_accede_fence.sql"),
);

fn options(url: &str) -> Result<SqliteConnectOptions, Error> {
    SqliteConnectOptions::from_str(url)
        .map_err(|error| Error::Configuration(format!("the database URL cannot be used: {error}")))
}

async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, Error> {
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(limits::START_CHECK_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(Error::database("opening the database"))
}

/// Creates the file and this library's tables where they are missing, and switches the
/// database to WAL. Safe to repeat.
pub(crate) async fn create(url: &str) -> Result<(), Error> {
    let options = options(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = connect(options).await?;
    let script = format!("BEGIN IMMEDIATE;\n{SQL}COMMIT;");
    let created = sqlx::raw_sql(sqlx::AssertSqlSafe(script))
        .execute(&pool)
        .await;
    pool.close().await;
    created
        .map(drop)
        .map_err(Error::database("creating the tables"))
}

/// Checks that this library's tables are there and as they should be.
pub(crate) async fn check(url: &str) -> Result<(), Error> {
    let pool = connect(options(url)?).await?;
    let checked = match start_check::check(&pool).await {
        Ok(()) => start_check::check_fences(&pool).await,
        wrong => wrong,
    };
    pool.close().await;
    checked
}

/// The SQL that [`create`] runs.
pub(crate) fn print() -> &'static str {
    SQL
}
