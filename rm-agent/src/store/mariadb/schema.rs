//! `accede schema create | check | print`.

use std::str::FromStr as _;

use sqlx::{
    Connection as _, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};

use super::start_check;
use crate::{error::Error, limits};

/// The migrations that this library ships; [`create`] runs the same text.
const SQL: &str = concat!(
    include_str!("../../../migrations/mariadb/0001_accede.sql"),
    "\n",
    include_str!("../../../migrations/mariadb/0002_accede_fence.sql"),
);

async fn connect(url: &str) -> Result<MySqlPool, Error> {
    let options = MySqlConnectOptions::from_str(url).map_err(|error| {
        Error::Configuration(format!("the database URL cannot be used: {error}"))
    })?;
    // A pool tries until its time is up and then only says so; one connection says why.
    let first = tokio::time::timeout(
        limits::START_CHECK_TIMEOUT,
        MySqlConnection::connect_with(&options),
    );
    first
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(Error::database("connecting to the database"))?
        .close()
        .await
        .map_err(Error::database("connecting to the database"))?;
    MySqlPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(limits::START_CHECK_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(Error::database("connecting to the database"))
}

/// Creates this library's tables where they are missing. Safe to repeat.
pub(crate) async fn create(url: &str) -> Result<(), Error> {
    let pool = connect(url).await?;
    let created = sqlx::raw_sql(SQL).execute(&pool).await;
    pool.close().await;
    created
        .map(drop)
        .map_err(Error::database("creating the tables"))
}

/// Checks that this library's tables are there and as they should be.
pub(crate) async fn check(url: &str) -> Result<(), Error> {
    let pool = connect(url).await?;
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
