//! The goods in their database, and what changes them in which mode.
//!
//! | mode | goods |
//! |---|---|
//! | at, xa | plain SQL, in [`branches`] |
//! | tcc, 3pc | frozen, in [`actions`] |
//! | saga | taken by a step, in [`actions`] |
//! | mixed | in AT; seats, which must not hang when the coordinator does, in 3PC |

mod actions;
mod branches;
mod sql;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::{
    database::DatabaseKind,
    home::{Branches, Home},
    mode::ShopMode,
};

use crate::StockError;
use actions::{Actions, Promise};

/// The operator's name for the database.
const RESOURCE: &str = "stock-db";

/// What came of taking goods.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// `unit_price` is in cents, `left` is how many pieces are left.
    Taken {
        unit_price: i64,
        left: i64,
    },
    SoldOut,
    UnknownProduct,
}

impl Outcome {
    /// Price and what is left, or why there was nothing to take.
    pub(crate) fn taken(self, product: i64) -> Result<(i64, i64), StockError> {
        match self {
            Self::Taken { unit_price, left } => Ok((unit_price, left)),
            Self::SoldOut => Err(StockError::SoldOut(product)),
            Self::UnknownProduct => Err(StockError::UnknownProduct(product)),
        }
    }
}

/// What the service wants of its database.
#[tonic::async_trait]
pub(crate) trait Store: Send + Sync {
    /// Takes so many pieces out of the stock, or none if there are fewer.
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
    let home = Home {
        resource: RESOURCE,
        kind,
        url,
        xa: mode == ShopMode::Xa,
    };
    let Actions {
        freeze,
        promise,
        take,
    } = Actions::of(kind);
    let agent = home.with(agent);
    let agent = match mode {
        ShopMode::At | ShopMode::Xa => agent,
        ShopMode::Tcc => agent.tcc(RESOURCE, &freeze),
        ShopMode::ThreePhase | ShopMode::Mixed => agent.three_phase(RESOURCE, &promise),
        ShopMode::Saga => agent.saga_step(RESOURCE, &take),
    };
    let agent = agent.start().await?;
    home.create_tables(&agent, tables).await?;
    let goods = home.branches(&agent)?;
    let store: Box<dyn Store> = match mode {
        // Steps are ordered by the coordinator; whoever calls the service is served as in AT.
        ShopMode::At | ShopMode::Xa | ShopMode::Saga => Box::new(goods),
        ShopMode::Tcc => Box::new(freeze),
        ShopMode::ThreePhase => Box::new(promise),
        ShopMode::Mixed => Box::new(Mixed {
            goods,
            seats: promise,
        }),
    };
    Ok((agent, store))
}

fn tables(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Postgres => include_str!("../../migrations/postgres/0001_stock.sql"),
        DatabaseKind::MariaDb => include_str!("../../migrations/mariadb/0001_stock.sql"),
        DatabaseKind::Sqlite => include_str!("../../migrations/sqlite/0001_stock.sql"),
    }
}

/// Each product as it suits it.
struct Mixed {
    goods: Branches,
    seats: Promise,
}

impl Mixed {
    /// Whether the product is one that is promised. Looked up outside of the transaction, which
    /// has no branch in AT for it then.
    async fn is_promised(&self, product: i64) -> sqlx::Result<bool> {
        let promised: Option<bool> = match &self.goods {
            Branches::Postgres(pool) => {
                let sql = sqlx::query_scalar(sql::postgres::IS_PROMISED).bind(product);
                sql.fetch_optional(pool.plain()).await?
            }
            Branches::MariaDb(pool) => {
                let sql = sqlx::query_scalar(sql::mariadb::IS_PROMISED).bind(product);
                sql.fetch_optional(pool.plain()).await?
            }
            // Not in this mode.
            Branches::Sqlite(_) | Branches::PostgresXa(_) | Branches::MariaDbXa(_) => None,
        };
        Ok(promised.unwrap_or_default())
    }
}

#[tonic::async_trait]
impl Store for Mixed {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        if self.is_promised(product).await? {
            self.seats.take(product, count).await
        } else {
            self.goods.take(product, count).await
        }
    }
}
