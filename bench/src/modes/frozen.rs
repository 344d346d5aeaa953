//! In TCC and 3PC: goods and money are frozen, then taken, by the same handlers.

use std::sync::Arc;

use accede_rm_agent::{
    FencedTransaction, tcc,
    tcc::{HandlerError, Tcc},
    three_phase,
    three_phase::Participant,
};
use serde::{Deserialize, Serialize};

use super::place::Side;

/// What is wanted: one of this product, or one euro of this user.
#[derive(Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) row: i64,
}

pub(super) type Freeze = Tcc<Wanted, anyhow::Error, ()>;
pub(super) type Promise = Participant<Wanted, anyhow::Error, ()>;

struct Shop;

/// What freezes on this side, in TCC.
pub(super) fn freeze(side: Side) -> Freeze {
    let shop = Arc::new(Shop);
    match side {
        Side::Stock => Shop::freeze_goods_tcc(&shop),
        Side::Account => Shop::freeze_money_tcc(&shop),
    }
}

/// The same in 3PC.
pub(super) fn promise(side: Side) -> Promise {
    let shop = Arc::new(Shop);
    match side {
        Side::Stock => Shop::freeze_goods_three_phase(&shop),
        Side::Account => Shop::freeze_money_three_phase(&shop),
    }
}

impl Shop {
    #[tcc(resource = "stock.freeze", confirm = take_goods, cancel = release_goods)]
    #[three_phase(resource = "stock.promise", do_commit = take_goods, abort = release_goods)]
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
    #[three_phase(resource = "account.promise", do_commit = take_money, abort = release_money)]
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
