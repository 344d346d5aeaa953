//! The orders in their database: one file for each kind, with its SQL and nothing else.

mod mariadb;
mod postgres;
mod sqlite;

use std::sync::Arc;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::{database::DatabaseKind, v1::CreateOrderRequest};

/// The operator's name for the database.
const RESOURCE: &str = "order-db";

/// What the service wants of its database.
#[tonic::async_trait]
pub(crate) trait Store: Send + Sync {
    /// Writes the order down and returns its number, or nothing if there is one
    /// with its reference already.
    async fn write_down(&self, order: &Arc<CreateOrderRequest>) -> sqlx::Result<Option<i64>>;
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
