//! The goods in their database: one file for each mode in which a transaction changes them.

mod at;
mod tcc;
mod three_phase;
mod xa;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::{database::DatabaseKind, mode::ShopMode};

/// The operator's name for the database.
const RESOURCE: &str = "stock-db";

/// What came of taking goods.
#[derive(Debug)]
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
    mode: ShopMode,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let kind = DatabaseKind::of(url)?;
    mode.check(kind).map_err(anyhow::Error::msg)?;
    let agent = match kind {
        _ if mode == ShopMode::Xa => xa::database(agent, kind, url),
        DatabaseKind::Postgres => agent.postgres(RESOURCE, url),
        DatabaseKind::MariaDb => agent.mariadb(RESOURCE, url),
        DatabaseKind::Sqlite => agent.sqlite(RESOURCE, url),
    };
    let (agent, store) = match mode {
        ShopMode::At => at::open(agent, kind).await?,
        ShopMode::Xa => xa::open(agent, kind).await?,
        ShopMode::Tcc => tcc::open(agent, kind).await?,
        ShopMode::ThreePhase => three_phase::open(agent, kind).await?,
    };
    create_tables(&agent, kind).await?;
    Ok((agent, store))
}

async fn create_tables(agent: &RmAgent, kind: DatabaseKind) -> anyhow::Result<()> {
    match kind {
        DatabaseKind::Postgres => {
            sqlx::raw_sql(include_str!("../../migrations/postgres/0001_stock.sql"))
                .execute(agent.pool(RESOURCE)?.plain())
                .await?;
        }
        DatabaseKind::MariaDb => {
            sqlx::raw_sql(include_str!("../../migrations/mariadb/0001_stock.sql"))
                .execute(agent.mariadb_pool(RESOURCE)?.plain())
                .await?;
        }
        DatabaseKind::Sqlite => {
            sqlx::raw_sql(include_str!("../../migrations/sqlite/0001_stock.sql"))
                .execute(agent.sqlite_pool(RESOURCE)?.plain())
                .await?;
        }
    }
    Ok(())
}
