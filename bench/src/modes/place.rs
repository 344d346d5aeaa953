//! Two databases on one server: the goods and the money.

use std::time::Duration;

use accede_rm_agent::schema;
use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::{
    at::server::{Database, Kind},
    clock,
};

/// Rows of each table.
pub(super) const ROWS: i64 = 10_000;
/// How long branches may take to be finished, and sessions to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(3);

/// One of the databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Stock,
    Account,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Stock, Self::Account];

    /// Its name, also at the coordinator.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Account => "account",
        }
    }

    /// What an order changes in it; the parameter is the row.
    pub(super) fn change(self) -> &'static str {
        match self {
            Self::Stock => "UPDATE stock SET count = count - 1 WHERE product = $1",
            Self::Account => "UPDATE accounts SET balance = balance - 100 WHERE user_id = $1",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Stock => {
                "CREATE TABLE stock (product bigint PRIMARY KEY, name text NOT NULL,
                     count bigint NOT NULL, frozen bigint NOT NULL);
                 INSERT INTO stock SELECT n, 'product ' || n, 1000000000, 0
                     FROM generate_series(1, 10000) n"
            }
            Self::Account => {
                "CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text NOT NULL,
                     balance bigint NOT NULL, frozen bigint NOT NULL);
                 INSERT INTO accounts SELECT n, 'user ' || n, 100000000000, 0
                     FROM generate_series(1, 10000) n"
            }
        }
    }
}

/// One order: a product and a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) product: i64,
    pub(super) user: i64,
}

impl Order {
    /// Any.
    pub(super) fn random() -> Self {
        Self {
            product: rand::random_range(1..=ROWS),
            user: rand::random_range(1..=ROWS),
        }
    }

    /// The row that it changes on this side.
    pub(super) fn row(self, side: Side) -> i64 {
        match side {
            Side::Stock => self.product,
            Side::Account => self.user,
        }
    }
}

/// The running server, and how it is reached.
pub(super) struct Place {
    database: Database,
    /// A look into both databases and into the server, which counts for nothing.
    looks: [PgPool; 2],
    server: PgPool,
}

impl Place {
    /// Starts the server and fills both databases.
    ///
    /// # Errors
    /// When it is not installed or does not come up; the message says what to do.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let database = Database::start(Kind::Postgres).await?;
        let look = |name: &str| {
            let url = url(&database.address, name);
            PgPoolOptions::new().max_connections(1).connect_lazy(&url)
        };
        let place = Self {
            looks: [look(Side::Stock.name())?, look(Side::Account.name())?],
            server: look("postgres")?,
            database,
        };
        for side in Side::BOTH {
            let create = format!("CREATE DATABASE {}", side.name());
            sqlx::raw_sql(AssertSqlSafe(create))
                .execute(&place.server)
                .await?;
            let url = place.url(side);
            schema::create(&url).await?;
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::raw_sql(side.table())
                .execute(&mut connection)
                .await
                .context("cannot fill a database")?;
            connection.close().await?;
        }
        Ok(place)
    }

    /// The URL of a database.
    pub(super) fn url(&self, side: Side) -> String {
        url(&self.database.address, side.name())
    }

    /// Where the server listens, like `127.0.0.1:5432`.
    pub(super) fn address(&self) -> &str {
        &self.database.address
    }

    /// Clears away what finished branches have left.
    pub(super) async fn tidy(&self) -> anyhow::Result<()> {
        for look in &self.looks {
            for statement in ["TRUNCATE undo_log, accede_fence", "VACUUM"] {
                sqlx::raw_sql(statement).execute(look).await?;
            }
        }
        sqlx::raw_sql("CHECKPOINT").execute(&self.server).await?;
        Ok(())
    }

    /// Waits until every branch is finished.
    pub(super) async fn all_finished(&self) -> anyhow::Result<()> {
        self.until_none(
            "branches that are not finished",
            "SELECT (SELECT count(*) FROM undo_log WHERE log_status = 0)
                  + (SELECT count(*) FROM accede_fence WHERE status IN (0, 4))
                  + (SELECT count(*) FROM pg_prepared_xacts)",
        )
        .await
    }

    /// Waits until nobody else is connected: what a session did is counted by then.
    pub(super) async fn all_gone(&self) -> anyhow::Result<()> {
        self.until_none(
            "sessions",
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await
    }

    async fn until_none(&self, what: &str, sql: &'static str) -> anyhow::Result<()> {
        let until = clock::now() + PATIENCE;
        for look in &self.looks {
            loop {
                let left: i64 = sqlx::query_scalar(sql).fetch_one(look).await?;
                if left == 0 {
                    break;
                }
                if clock::now() >= until {
                    bail!("there are {left} {what} after {PATIENCE:?}");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// How often the server has forced its log to disk.
    pub(super) async fn forced_writes(&self) -> anyhow::Result<u64> {
        let count: i64 = sqlx::query_scalar("SELECT wal_sync FROM pg_stat_wal")
            .fetch_one(&self.server)
            .await?;
        Ok(count.unsigned_abs())
    }

    /// How many statements it has run for sessions that are counted.
    pub(super) async fn statements(&self) -> anyhow::Result<u64> {
        let count: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements")
                .fetch_one(&self.server)
                .await?;
        Ok(count.unsigned_abs())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        for look in self.looks.iter().chain([&self.server]) {
            look.close().await;
        }
        self.database.stop().await
    }
}

/// The URL of a database of the server at an address.
pub(super) fn url(address: &str, name: &str) -> String {
    format!("postgres://bench@{address}/{name}")
}
