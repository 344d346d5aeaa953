//! In XA: the SQL of AT on PostgreSQL, which prepares it.

use std::time::Duration;

use accede_rm_agent::{AtPool, AtPoolBuilder, RmAgent, RmAgentBuilder, XaPool};

use super::{Outcome, RESOURCE, Store, at::postgres::take};

/// Rows stay locked in the database until the order is decided. Two orders that wait for each other
/// give in after this time.
const LOCK_WAIT: Duration = Duration::from_secs(3);

pub(super) fn pool(url: &str) -> AtPoolBuilder {
    AtPool::builder(url).lock_wait(LOCK_WAIT)
}

struct Prepared {
    pool: XaPool,
}

pub(super) async fn open(agent: RmAgentBuilder) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let agent = agent.start().await?;
    let pool = agent.pool(RESOURCE)?.xa();
    Ok((agent, Box::new(Prepared { pool })))
}

#[tonic::async_trait]
impl Store for Prepared {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        self.pool.run(|tx| Box::pin(take(tx, user, cents))).await
    }
}
