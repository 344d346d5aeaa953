//! What all of Accede's modes need: an agent with both databases, and global transactions.

use std::time::Duration;

use accede_rm_agent::{AtPool, RmAgent, RmAgentBuilder};
use accede_tm_client::{Options, TransactionClient};
use anyhow::Context as _;
use tokio::time::timeout;

use super::{place::Side, way::Reach};
use crate::coordinator::Coordinator;

/// How long sessions may take to open.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Accede {
    agent: RmAgent,
    transactions: TransactionClient,
}

impl Accede {
    /// `more` adds what the mode has beside the databases.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub(super) async fn open(
        reach: &Reach,
        coordinator: &Coordinator,
        more: impl FnOnce(RmAgentBuilder) -> RmAgentBuilder,
    ) -> anyhow::Result<Self> {
        let agent = RmAgent::builder("bench").coordinator(&coordinator.address);
        let agent = Side::BOTH.into_iter().fold(agent, |agent, side| {
            let pool = AtPool::builder(&reach.url(side)).max_connections(reach.connections);
            agent.pool(side.name(), pool)
        });
        let agent = more(agent).start().await?;
        let transactions = TransactionClient::builder(&coordinator.address)
            .name("bench")
            .build()?;
        timeout(PATIENCE, transactions.ready())
            .await
            .context("client and coordinator do not come together")??;
        Ok(Self {
            agent,
            transactions,
        })
    }

    pub(super) fn transactions(&self) -> &TransactionClient {
        &self.transactions
    }

    pub(super) fn pool(&self, side: Side) -> anyhow::Result<AtPool> {
        Ok(self.agent.pool(side.name())?)
    }

    /// Runs it in a global transaction, which it commits.
    ///
    /// # Errors
    /// Those of the work and of the commit.
    pub(super) async fn in_transaction(
        &self,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let global = self.transactions.begin(Options::new("bench")).await?;
        global.scope(work).await?;
        global.commit().await?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        for side in Side::BOTH {
            if let Ok(pool) = self.agent.pool(side.name()) {
                pool.plain().close().await;
            }
        }
    }
}
