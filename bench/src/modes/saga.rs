//! Through Accede, as a saga: the coordinator has each database changed for good, one after the
//! other.

use std::{sync::Arc, time::Duration};

use accede_rm_agent::{
    FencedTransaction,
    saga::{HandlerError, StepInput},
    saga_step,
};
use accede_tm_client::{SagaError, Step};
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use super::{
    accede::{Accede, PATIENCE},
    place::{Order, Side},
    way::{Reach, Way},
};
use crate::coordinator::Coordinator;

/// Pause between two looks whether the agent is known.
const LOOK: Duration = Duration::from_millis(20);

struct Shop;

async fn run(tx: &mut FencedTransaction, sql: &'static str, row: i64) -> Result<(), HandlerError> {
    sqlx::query(sql).bind(row).execute(&mut *tx).await?;
    Ok(())
}

impl Shop {
    #[saga_step(resource = "stock.take", compensate = give_back_goods)]
    async fn take_goods(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        run(tx, Side::Stock.change(), step.input).await
    }

    async fn give_back_goods(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        let sql = "UPDATE stock SET count = count + 1 WHERE product = $1";
        run(tx, sql, step.input).await
    }

    #[saga_step(resource = "account.take", compensate = give_back_money)]
    async fn take_money(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        run(tx, Side::Account.change(), step.input).await
    }

    async fn give_back_money(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET balance = balance + 100 WHERE user_id = $1";
        run(tx, sql, step.input).await
    }
}

pub(super) struct Saga {
    accede: Accede,
}

impl Saga {
    pub(super) async fn open(reach: &Reach, coordinator: &Coordinator) -> anyhow::Result<Self> {
        let shop = Arc::new(Shop);
        let accede = Accede::open(reach, coordinator, |agent| {
            agent
                .saga_step(Side::Stock.name(), &Shop::take_goods_step(&shop))
                .saga_step(Side::Account.name(), &Shop::take_money_step(&shop))
        });
        let way = Self {
            accede: accede.await?,
        };
        // A saga does not wait for an action that nobody has served yet.
        let known = async {
            while let Err(SagaError::Refused { .. }) = way.run(Order::random()).await {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, known).await?;
        Ok(way)
    }

    async fn run(&self, order: Order) -> Result<(), SagaError> {
        let step = |side: Side| {
            let step = Step::new(side.name(), format!("{}.take", side.name()));
            step.input(&order.row(side))
        };
        let saga = accede_tm_client::Saga::builder("bench")
            .step(step(Side::Stock)?)
            .step(step(Side::Account)?)
            .build()?;
        saga.run(self.accede.transactions()).await.map(drop)
    }
}

impl Way for Saga {
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move { Ok(self.run(order).await?) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.accede.close())
    }
}
