//! A step of a saga on a database all of whose pool's connections are held by branches that wait for
//! the step's transaction: real coordinator, real database.

#[path = "../../rm-agent/src/store/postgres/tests/server.rs"]
mod server;

use std::{sync::Arc, time::Duration};

use accede_proto::v1::{GetTransactionRequest, operator_client::OperatorClient};
use accede_rm_agent::{
    AtPool, AtTransaction, FencedTransaction, RmAgent,
    saga::{HandlerError, StepInput},
    saga_step, schema,
};
use accede_server::{Server, ServerConfig};
use accede_tests::eventually;
use accede_tm_client::{Options, Saga, Step, TransactionClient};

const SOON: Duration = Duration::from_secs(60);
/// All that the application has.
const CONNECTIONS: u32 = 2;

struct Parcels;

impl Parcels {
    #[saga_step(resource = "parcel.pack", compensate = unpack)]
    async fn pack(
        &self,
        tx: &mut FencedTransaction,
        _step: StepInput<()>,
    ) -> Result<(), HandlerError> {
        sqlx::query("INSERT INTO parcel VALUES (1)")
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    async fn unpack(
        &self,
        tx: &mut FencedTransaction,
        _step: StepInput<()>,
    ) -> Result<(), HandlerError> {
        sqlx::query("DELETE FROM parcel").execute(&mut *tx).await?;
        Ok(())
    }
}

async fn take(tx: &mut AtTransaction, product: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = $1")
        .bind(product)
        .execute(tx)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_that_hold_the_whole_pool_keep_no_step_from_its_end() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut config = ServerConfig::new(folder.path().join("data"));
    config.listen.set_port(0);
    let coordinator = Server::start(config).await?;
    let url = format!("http://{}", coordinator.addr());
    let database = server::database().await;
    schema::create(&database).await?;
    let pool = AtPool::builder(&database)
        .max_connections(CONNECTIONS)
        .lock_wait(SOON);
    let agent = RmAgent::builder("shop")
        .coordinator(url.clone())
        .pool("shop-db", pool)
        .saga_step("shop-db", &Parcels::pack_step(&Arc::new(Parcels)))
        .start()
        .await?;
    let pool = agent.pool("shop-db")?;
    sqlx::raw_sql(
        "CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
         INSERT INTO stock VALUES (1, 100), (2, 100);
         CREATE TABLE parcel (number bigint PRIMARY KEY)",
    )
    .execute(pool.plain())
    .await?;
    let transactions = TransactionClient::connect(url.clone()).await?;

    let order = transactions
        .begin(Options::new("order").timeout(SOON))
        .await?;
    let mut branch = pool.begin_in(order.xid()).await?;
    take(&mut branch, 1).await?;
    take(&mut branch, 2).await?;
    branch.commit().await?;
    let operator = OperatorClient::connect(url).await?;
    let mut others = Vec::new();
    for product in 1..=i64::from(CONNECTIONS) {
        let other = transactions
            .begin(Options::new("other").timeout(SOON))
            .await?;
        let mut branch = pool.begin_in(other.xid()).await?;
        take(&mut branch, product).await?;
        let waiting = tokio::spawn(branch.commit());
        let get = GetTransactionRequest {
            xid: other.xid().as_u64(),
        };
        eventually("it waits for the order's row lock", SOON, async || {
            let detail = operator.clone().get_transaction(get).await.ok()?;
            (!detail.into_inner().waiting.is_empty()).then_some(())
        })
        .await?;
        others.push((other, waiting));
    }

    let parcel = Step::new("parcel", "parcel.pack").retry_backward(1);
    let parcel = Saga::builder("parcel").step(parcel).build()?;
    parcel.run_in(&order).await?;
    for (_, waiting) in &others {
        assert!(!waiting.is_finished(), "nobody had to let go");
    }
    order.commit().await?;
    for (other, waiting) in others {
        waiting.await??;
        other.commit().await?;
    }
    transactions.shutdown().await;
    agent.shutdown().await;
    coordinator.shutdown().await?;
    Ok(())
}
