//! The orders in their database, and what changes them in which mode.
//!
//! | mode | orders |
//! |---|---|
//! | at, tcc, 3pc | in AT, in [`branches`]: there is nothing to reserve |
//! | xa, mixed | in XA, in [`branches`]: nobody sees an order before it is one |
//! | saga | written down by a step, in [`steps`] |
//!
//! In the mode mixed an order also has a parcel, which a step packs.

mod branches;
mod sql;
mod steps;

use std::sync::Arc;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::{database::DatabaseKind, home::Home, mode::ShopMode, v1::CreateOrderRequest};

use self::steps::Steps;

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
    mode: ShopMode,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let kind = DatabaseKind::of(url)?;
    mode.check(kind).map_err(anyhow::Error::msg)?;
    let home = Home {
        resource: RESOURCE,
        kind,
        url,
        xa: matches!(mode, ShopMode::Xa | ShopMode::Mixed),
    };
    let agent = home.with(agent);
    let agent = match mode {
        ShopMode::Saga => agent.saga_step(RESOURCE, &Steps::of(kind).write),
        ShopMode::Mixed => agent.saga_step(RESOURCE, &Steps::of(kind).pack),
        _ => agent,
    };
    let agent = agent.start().await?;
    home.create_tables(&agent, tables).await?;
    let store = home.branches(&agent)?;
    Ok((agent, Box::new(store)))
}

fn tables(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Postgres => include_str!("../../migrations/postgres/0001_orders.sql"),
        DatabaseKind::MariaDb => include_str!("../../migrations/mariadb/0001_orders.sql"),
        DatabaseKind::Sqlite => include_str!("../../migrations/sqlite/0001_orders.sql"),
    }
}
