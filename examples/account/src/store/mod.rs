//! The accounts in their database: one file for each kind, with its SQL and nothing else.

mod mariadb;
mod postgres;
mod sqlite;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::database::DatabaseKind;

/// The operator's name for the database.
const RESOURCE: &str = "account-db";

/// What came of taking money. All amounts are in cents.
pub(crate) enum Outcome {
    Taken { left: i64 },
    NotEnough { balance: i64 },
    UnknownUser,
}

/// What the service wants of its database.
#[tonic::async_trait]
pub(crate) trait Store: Send + Sync {
    /// Takes so much money, or none if there is less.
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome>;
}

/// Starts the agent with the database behind the URL, and makes the tables.
pub(crate) async fn open(
    agent: RmAgentBuilder,
    url: &str,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    match DatabaseKind::of(url)? {
        DatabaseKind::Postgres => {
            let agent = agent.postgres(RESOURCE, url).start().await?;
            let store = postgres::Postgres::open(agent.pool(RESOURCE)?).await?;
            Ok((agent, Box::new(store)))
        }
        DatabaseKind::MariaDb => {
            let agent = agent.mariadb(RESOURCE, url).start().await?;
            let store = mariadb::MariaDb::open(agent.mariadb_pool(RESOURCE)?).await?;
            Ok((agent, Box::new(store)))
        }
        DatabaseKind::Sqlite => {
            let agent = agent.sqlite(RESOURCE, url).start().await?;
            let store = sqlite::Sqlite::open(agent.sqlite_pool(RESOURCE)?).await?;
            Ok((agent, Box::new(store)))
        }
    }
}
