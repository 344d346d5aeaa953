//! The service: a branch in each mode but a saga's, and the steps of sagas.

use std::sync::Arc;

use accede_rm_agent::{
    AtPool, FencedTransaction, RmAgent, TransactionContext,
    saga::{HandlerError, StepInput},
    saga_step, scope, tcc,
    tcc::Tcc,
    three_phase,
    three_phase::Participant,
};
use accede_tests::service;

/// The operator's name for the database.
pub(crate) const RESOURCE: &str = "shop-db";

struct Accounts;

async fn run(tx: &mut FencedTransaction, sql: &'static str, id: i64) -> sqlx::Result<()> {
    sqlx::query(sql).bind(id).execute(&mut *tx).await.map(drop)
}

impl Accounts {
    #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
    async fn freeze(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), sqlx::Error> {
        let sql = "UPDATE accounts SET free = free - 1, frozen = frozen + 1 WHERE id = $1";
        run(tx, sql, id).await
    }

    async fn settle(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }

    async fn release(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET free = free + 1, frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }
}

struct Seats;

impl Seats {
    #[three_phase(resource = "seat.promise", do_commit = sell, abort = give_back)]
    async fn promise(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), sqlx::Error> {
        let sql = "UPDATE seats SET free = free - 1, frozen = frozen + 1 WHERE id = $1";
        run(tx, sql, id).await
    }

    async fn sell(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE seats SET frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }

    async fn give_back(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE seats SET free = free + 1, frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }
}

struct Parcels;

impl Parcels {
    #[saga_step(resource = "parcel.pack", compensate = unpack)]
    async fn pack(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        Ok(run(tx, "INSERT INTO parcels VALUES ($1)", step.input).await?)
    }

    async fn unpack(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        Ok(run(tx, "DELETE FROM parcels WHERE id = $1", step.input).await?)
    }
}

/// What the process has.
#[derive(Clone)]
struct Serving {
    pool: AtPool,
    freeze: Tcc<i64, sqlx::Error>,
    promise: Participant<i64, sqlx::Error>,
}

impl Serving {
    async fn start(coordinator: &str, database: &str) -> anyhow::Result<(RmAgent, Self)> {
        let freeze = Accounts::freeze_tcc(&Arc::new(Accounts));
        let promise = Seats::promise_three_phase(&Arc::new(Seats));
        let agent = RmAgent::builder("shop")
            .coordinator(coordinator)
            .postgres(RESOURCE, database)
            .tcc(RESOURCE, &freeze)
            .three_phase(RESOURCE, &promise)
            .saga_step(RESOURCE, &Parcels::pack_step(&Arc::new(Parcels)))
            .start()
            .await?;
        let pool = agent.pool(RESOURCE)?;
        let serving = Self {
            pool,
            freeze,
            promise,
        };
        Ok((agent, serving))
    }

    /// One branch in each mode but a saga, which the coordinator leads.
    async fn branches(&self, number: i64) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE stock SET free = free - 1 WHERE id = $1")
            .bind(number)
            .execute(&self.pool)
            .await?;
        let mut order = self.pool.xa().begin().await?;
        sqlx::query("INSERT INTO orders VALUES ($1)")
            .bind(number)
            .execute(&mut order)
            .await?;
        order.commit().await?;
        self.freeze.call(number).await?;
        self.promise.call(number).await
    }
}

/// Serves until the standard input ends, if this process was started for that.
pub(crate) fn run_if_asked() {
    let Some(words) = service::asked() else {
        return;
    };
    let [coordinator, database] = &words[..] else {
        panic!("two URLs, not {words:?}");
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let serving = runtime.block_on(Serving::start(coordinator, database));
    let (_agent, serving) = serving.expect("the service starts");
    service::serve(&runtime, |xid, number| {
        let serving = serving.clone();
        async move {
            let context = TransactionContext::new(xid);
            let worked = scope(Some(context), serving.branches(number)).await;
            worked.map_err(|error| error.to_string())
        }
    });
}
