//! In XA: the SQL of AT, which the database prepares.

use std::time::Duration;

use accede_rm_agent::{AtPool, RmAgent, RmAgentBuilder, XaPool, mariadb};
use shop_api::database::DatabaseKind;

use super::{Outcome, RESOURCE, Store, at};

/// Rows stay locked in the database until the order is decided. Two orders that wait for each other
/// give in after this time.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Tells the agent of the database behind the URL.
pub(super) fn database(agent: RmAgentBuilder, kind: DatabaseKind, url: &str) -> RmAgentBuilder {
    match kind {
        DatabaseKind::MariaDb => {
            let pool = mariadb::AtPool::builder(url).lock_wait(LOCK_WAIT);
            agent.mariadb_pool(RESOURCE, pool)
        }
        // There is no mode XA on SQLite.
        DatabaseKind::Postgres | DatabaseKind::Sqlite => {
            agent.pool(RESOURCE, AtPool::builder(url).lock_wait(LOCK_WAIT))
        }
    }
}

struct Postgres {
    pool: XaPool,
}

struct MariaDb {
    pool: mariadb::XaPool,
}

pub(super) async fn open(
    agent: RmAgentBuilder,
    kind: DatabaseKind,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let agent = agent.start().await?;
    let store: Box<dyn Store> = match kind {
        DatabaseKind::MariaDb => Box::new(MariaDb {
            pool: agent.mariadb_pool(RESOURCE)?.xa(),
        }),
        DatabaseKind::Postgres | DatabaseKind::Sqlite => Box::new(Postgres {
            pool: agent.pool(RESOURCE)?.xa(),
        }),
    };
    Ok((agent, store))
}

#[tonic::async_trait]
impl Store for Postgres {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        self.pool
            .run(|tx| Box::pin(at::postgres::take(tx, user, cents)))
            .await
    }
}

#[tonic::async_trait]
impl Store for MariaDb {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        self.pool
            .run(|tx| Box::pin(at::mariadb::take(tx, user, cents)))
            .await
    }
}
