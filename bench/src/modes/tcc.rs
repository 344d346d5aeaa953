//! Through Accede, in TCC: goods and money are frozen, then taken.

use std::sync::Arc;

use accede_rm_agent::{
    FencedTransaction, tcc,
    tcc::{HandlerError, Tcc as Action},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{
    accede::Accede,
    place::{Order, Side},
    way::{Reach, Way},
};
use crate::coordinator::Coordinator;

/// What is wanted: one of this product, or one euro of this user.
#[derive(Serialize, Deserialize)]
struct Wanted {
    row: i64,
}

struct Shop;

impl Shop {
    #[tcc(resource = "stock.freeze", confirm = take_goods, cancel = release_goods)]
    async fn freeze_goods(
        &self,
        tx: &mut FencedTransaction,
        wanted: Wanted,
    ) -> Result<(), anyhow::Error> {
        let sql = "UPDATE stock SET count = count - 1, frozen = frozen + 1 WHERE product = $1";
        Ok(run(tx, sql, wanted).await?)
    }

    async fn take_goods(
        &self,
        tx: &mut FencedTransaction,
        wanted: Wanted,
    ) -> Result<(), HandlerError> {
        let sql = "UPDATE stock SET frozen = frozen - 1 WHERE product = $1";
        Ok(run(tx, sql, wanted).await?)
    }

    async fn release_goods(
        &self,
        tx: &mut FencedTransaction,
        wanted: Wanted,
    ) -> Result<(), HandlerError> {
        let sql = "UPDATE stock SET count = count + 1, frozen = frozen - 1 WHERE product = $1";
        Ok(run(tx, sql, wanted).await?)
    }

    #[tcc(resource = "account.freeze", confirm = take_money, cancel = release_money)]
    async fn freeze_money(
        &self,
        tx: &mut FencedTransaction,
        wanted: Wanted,
    ) -> Result<(), anyhow::Error> {
        let sql = "UPDATE accounts SET balance = balance - 100, frozen = frozen + 100 \
                   WHERE user_id = $1";
        Ok(run(tx, sql, wanted).await?)
    }

    async fn take_money(
        &self,
        tx: &mut FencedTransaction,
        wanted: Wanted,
    ) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET frozen = frozen - 100 WHERE user_id = $1";
        Ok(run(tx, sql, wanted).await?)
    }

    async fn release_money(
        &self,
        tx: &mut FencedTransaction,
        wanted: Wanted,
    ) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET balance = balance + 100, frozen = frozen - 100 \
                   WHERE user_id = $1";
        Ok(run(tx, sql, wanted).await?)
    }
}

async fn run(tx: &mut FencedTransaction, sql: &'static str, wanted: Wanted) -> sqlx::Result<()> {
    let change = sqlx::query(sql).bind(wanted.row);
    change.execute(&mut *tx).await.map(drop)
}

pub(super) struct Tcc {
    accede: Accede,
    actions: [Action<Wanted, anyhow::Error, ()>; 2],
}

impl Tcc {
    pub(super) async fn open(reach: &Reach, coordinator: &Coordinator) -> anyhow::Result<Self> {
        let shop = Arc::new(Shop);
        let actions = [Shop::freeze_goods_tcc(&shop), Shop::freeze_money_tcc(&shop)];
        let accede = Accede::open(reach, coordinator, |agent| {
            Side::BOTH
                .into_iter()
                .zip(&actions)
                .fold(agent, |agent, (side, action)| {
                    agent.tcc(side.name(), action)
                })
        });
        Ok(Self {
            accede: accede.await?,
            actions,
        })
    }
}

impl Way for Tcc {
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.accede.in_transaction(async move {
            for (side, action) in Side::BOTH.into_iter().zip(&self.actions) {
                let row = order.row(side);
                action.call(Wanted { row }).await?;
            }
            Ok(())
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.accede.close())
    }
}
