//! The demo's own connections to a database of any kind.

use std::{str::FromStr as _, time::Duration};

use anyhow::Result;
use shop_api::database::DatabaseKind;
use sqlx::{
    AssertSqlSafe, FromRow, MySqlPool, PgPool, SqlitePool,
    mysql::{MySqlPoolOptions, MySqlRow},
    postgres::{PgPoolOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow},
};

const CONNECTIONS: u32 = 2;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connections to one database. What it is asked is the same SQL for all kinds.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Postgres(PgPool),
    MariaDb(MySqlPool),
    Sqlite(SqlitePool),
}

/// What a row can be read as, from every kind.
pub(crate) trait Row:
    for<'r> FromRow<'r, PgRow>
    + for<'r> FromRow<'r, MySqlRow>
    + for<'r> FromRow<'r, SqliteRow>
    + Send
    + Unpin
{
}

impl<T> Row for T where
    T: for<'r> FromRow<'r, PgRow>
        + for<'r> FromRow<'r, MySqlRow>
        + for<'r> FromRow<'r, SqliteRow>
        + Send
        + Unpin
{
}

impl Pool {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Ok(match DatabaseKind::of(url)? {
            DatabaseKind::Postgres => {
                let options = PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(CONNECT_LIMIT);
                Self::Postgres(options.connect(url).await?)
            }
            DatabaseKind::MariaDb => {
                let options = MySqlPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(CONNECT_LIMIT);
                Self::MariaDb(options.connect(url).await?)
            }
            DatabaseKind::Sqlite => {
                let file = SqliteConnectOptions::from_str(url)?.create_if_missing(true);
                let options = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(CONNECT_LIMIT);
                Self::Sqlite(options.connect_with(file).await?)
            }
        })
    }

    /// Runs one or several statements.
    pub(crate) async fn execute(&self, sql: String) -> Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Self::Postgres(pool) => sql.execute(pool).await.map(drop)?,
            Self::MariaDb(pool) => sql.execute(pool).await.map(drop)?,
            Self::Sqlite(pool) => sql.execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    pub(crate) async fn rows<T: Row>(&self, sql: &'static str) -> Result<Vec<T>> {
        Ok(match self {
            Self::Postgres(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
            Self::MariaDb(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
            Self::Sqlite(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
        })
    }

    /// The names of its tables.
    pub(crate) async fn tables(&self) -> Result<Vec<String>> {
        let rows: Vec<(String,)> = match self {
            Self::Postgres(_) => {
                self.rows(
                    "SELECT table_name::text FROM information_schema.tables \
                     WHERE table_schema = current_schema()",
                )
                .await?
            }
            Self::MariaDb(_) => {
                self.rows(
                    "SELECT table_name FROM information_schema.tables \
                     WHERE table_schema = DATABASE()",
                )
                .await?
            }
            Self::Sqlite(_) => {
                self.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
                    .await?
            }
        };
        let mut names: Vec<String> = rows.into_iter().map(|(name,)| name).collect();
        // Databases sort in their own ways.
        names.sort();
        Ok(names)
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::MariaDb(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}
