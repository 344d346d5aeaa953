//! The goods in their database: one file for each kind, with its SQL and nothing else.

mod mariadb;
mod postgres;
mod sqlite;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::database::DatabaseKind;

/// The operator's name for the database.
const RESOURCE: &str = "stock-db";

/// What came of taking goods.
pub(crate) enum Outcome {
    Taken { unit_price: i64, left: i64 },
    SoldOut,
    UnknownProduct,
}

/// What the service wants of its database.
#[tonic::async_trait]
pub(crate) trait Store: Send + Sync {
    /// Takes so many pieces, or none if there are fewer.
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome>;
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
