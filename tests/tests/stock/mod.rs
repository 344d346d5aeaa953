//! A real daemon, a real PostgreSQL and an agent between them, with a table of two products.

#[path = "../../../rm-agent/tests/agent/postgres.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod postgres;

use std::time::Duration;

use accede_proto::{
    Xid,
    v1::{GetTransactionRequest, operator_client::OperatorClient},
};
use accede_rm_agent::{AtPool, AtPoolBuilder, RmAgent, schema};
use accede_tests::{
    daemon::{Daemon, free_port},
    eventually,
};
use accede_tm_client::TransactionClient;

/// The operator's name for the database.
pub(crate) const RESOURCE: &str = "stock-db";
/// How long anything may take that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// All that runs.
pub(crate) struct Surroundings {
    _daemon: Daemon,
    _folder: tempfile::TempDir,
    postgres: postgres::Postgres,
    agent: RmAgent,
    pub(crate) pool: AtPool,
    pub(crate) transactions: TransactionClient,
    pub(crate) url: String,
}

impl Surroundings {
    /// Starts it; a hundred of each product are there.
    pub(crate) async fn new(
        configure: impl FnOnce(AtPoolBuilder) -> AtPoolBuilder,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let daemon = Daemon::start(&folder.path().join("data"), free_port()).await?;
        let postgres = postgres::Postgres::start();
        let database = postgres.url("postgres");
        schema::create(&database).await?;
        let url = daemon.url();
        let agent = RmAgent::builder("stock")
            .coordinator(url.clone())
            .pool(RESOURCE, configure(AtPool::builder(&database)))
            .start()
            .await?;
        let pool = agent.pool(RESOURCE)?;
        sqlx::raw_sql(
            "CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
             INSERT INTO stock VALUES (1, 100), (2, 100)",
        )
        .execute(pool.plain())
        .await?;
        Ok(Self {
            _daemon: daemon,
            _folder: folder,
            postgres,
            agent,
            pool,
            transactions: TransactionClient::connect(url.clone()).await?,
            url,
        })
    }

    /// Waits until the transaction waits at the coordinator for row locks.
    pub(crate) async fn waits_at_the_coordinator(&self, xid: Xid) -> anyhow::Result<()> {
        let operator = OperatorClient::connect(self.url.clone()).await?;
        let get = GetTransactionRequest { xid: xid.as_u64() };
        eventually("a request waits for row locks", SOON, async || {
            let detail = operator.clone().get_transaction(get).await.ok()?;
            (!detail.into_inner().waiting.is_empty()).then_some(())
        })
        .await
    }

    /// How many there are.
    pub(crate) async fn counts(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT count FROM stock ORDER BY product")
            .fetch_all(self.pool.plain())
            .await
            .expect("readable")
    }

    /// Ends it all.
    pub(crate) async fn end(self) {
        self.transactions.shutdown().await;
        self.agent.shutdown().await;
        self.pool.plain().close().await;
        self.postgres.down();
    }
}

/// Takes one of a product.
pub(crate) async fn take(
    tx: &mut accede_rm_agent::AtTransaction,
    product: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = $1")
        .bind(product)
        .execute(tx)
        .await
        .map(drop)
}
