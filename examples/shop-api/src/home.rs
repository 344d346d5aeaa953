//! Where a service keeps its data, and how its local transactions begin there.

use std::time::Duration;

use accede_rm_agent::{AtPool, Error, RmAgent, RmAgentBuilder, XaPool, mariadb, sqlite};

use crate::database::DatabaseKind;

/// In XA rows stay locked in the database until the order is decided. Two orders that wait for each
/// other give in after this time.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// A service's database.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// The operator's name for it.
    pub resource: &'static str,
    /// Its kind.
    pub kind: DatabaseKind,
    /// Where it is.
    pub url: &'a str,
    /// Whether local transactions are prepared by it, or undone from images.
    pub xa: bool,
}

/// Local transactions in AT or XA, on any kind of database: what users of sqlx know as pools.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum Branches {
    Postgres(AtPool),
    PostgresXa(XaPool),
    MariaDb(mariadb::AtPool),
    MariaDbXa(mariadb::XaPool),
    Sqlite(sqlite::AtPool),
}

impl Home<'_> {
    /// Tells the agent of it.
    pub fn with(&self, agent: RmAgentBuilder) -> RmAgentBuilder {
        let Self { resource, url, .. } = *self;
        match (self.kind, self.xa) {
            (DatabaseKind::Postgres, false) => agent.postgres(resource, url),
            (DatabaseKind::Postgres, true) => {
                agent.pool(resource, AtPool::builder(url).lock_wait(LOCK_WAIT))
            }
            (DatabaseKind::MariaDb, false) => agent.mariadb(resource, url),
            (DatabaseKind::MariaDb, true) => {
                let pool = mariadb::AtPool::builder(url).lock_wait(LOCK_WAIT);
                agent.mariadb_pool(resource, pool)
            }
            (DatabaseKind::Sqlite, _) => agent.sqlite(resource, url),
        }
    }

    /// Makes the service's tables by the SQL for its kind of database.
    ///
    /// # Errors
    /// What the database says.
    pub async fn create_tables(
        &self,
        agent: &RmAgent,
        sql: fn(DatabaseKind) -> &'static str,
    ) -> Result<(), sqlx::Error> {
        let (sql, resource) = (sqlx::raw_sql(sql(self.kind)), self.resource);
        match self.kind {
            DatabaseKind::Postgres => sql.execute(agent.pool(resource)?.plain()).await.map(drop),
            DatabaseKind::MariaDb => {
                let pool = agent.mariadb_pool(resource)?;
                sql.execute(pool.plain()).await.map(drop)
            }
            DatabaseKind::Sqlite => {
                let pool = agent.sqlite_pool(resource)?;
                sql.execute(pool.plain()).await.map(drop)
            }
        }
    }

    /// How local transactions begin.
    ///
    /// # Errors
    /// The agent has no such database.
    pub fn branches(&self, agent: &RmAgent) -> Result<Branches, Error> {
        let resource = self.resource;
        Ok(match (self.kind, self.xa) {
            (DatabaseKind::Postgres, false) => Branches::Postgres(agent.pool(resource)?),
            (DatabaseKind::Postgres, true) => Branches::PostgresXa(agent.pool(resource)?.xa()),
            (DatabaseKind::MariaDb, false) => Branches::MariaDb(agent.mariadb_pool(resource)?),
            (DatabaseKind::MariaDb, true) => {
                Branches::MariaDbXa(agent.mariadb_pool(resource)?.xa())
            }
            (DatabaseKind::Sqlite, _) => Branches::Sqlite(agent.sqlite_pool(resource)?),
        })
    }
}
