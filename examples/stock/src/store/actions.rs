//! What is code of the shop's own: TCC, 3PC and steps of sagas.
//!
//! In TCC an order freezes goods, and they are taken or given back when it is decided. The same
//! handlers make a participant of 3PC, which hears in between that the order is decided, and then
//! needs no coordinator any more. In a saga goods are taken for good at once, and given back if the
//! order comes to nothing.

use std::sync::Arc;

use accede_rm_agent::{
    saga::{HandlerError, SagaAction, StepInput},
    saga_step, tcc,
    tcc::Tcc,
    three_phase,
    three_phase::Participant,
};
use serde::{Deserialize, Serialize};
use shop_api::{
    database::DatabaseKind,
    service::NotTaken,
    steps::{TakeGoods, Taken},
};

use super::{Outcome, Store};

/// What an order wants frozen.
#[derive(Serialize, Deserialize)]
pub(super) struct Wanted {
    product: i64,
    count: i64,
}

pub(super) type Freeze = Tcc<Wanted, NotTaken<Outcome>, Outcome>;
pub(super) type Promise = Participant<Wanted, NotTaken<Outcome>, Outcome>;

/// All there are; which of them an agent serves is a matter of the mode.
pub(super) struct Actions {
    pub(super) freeze: Freeze,
    pub(super) promise: Promise,
    pub(super) take: SagaAction,
}

/// The handlers on one kind of database: they differ in how parameters are written.
macro_rules! handlers {
    ($kind:ident, $transaction:ty) => {
        mod $kind {
            use super::*;
            use crate::store::sql::$kind as sql;

            pub(super) struct Goods;

            impl Goods {
                #[tcc(resource = "stock.freeze", confirm = settle, cancel = release)]
                #[three_phase(resource = "stock.promise", do_commit = settle, abort = release)]
                async fn freeze(
                    &self,
                    tx: &mut $transaction,
                    wanted: Wanted,
                ) -> Result<Outcome, NotTaken<Outcome>> {
                    let outcome = sql::take(tx, wanted.product, wanted.count).await?;
                    if !matches!(outcome, Outcome::Taken { .. }) {
                        return Err(NotTaken::No(outcome));
                    }
                    sqlx::query(sql::FREEZE)
                        .bind(wanted.count)
                        .bind(wanted.product)
                        .execute(&mut *tx)
                        .await?;
                    Ok(outcome)
                }

                async fn settle(
                    &self,
                    tx: &mut $transaction,
                    wanted: Wanted,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::SETTLE)
                        .bind(wanted.count)
                        .bind(wanted.product)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                async fn release(
                    &self,
                    tx: &mut $transaction,
                    wanted: Wanted,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::RELEASE)
                        .bind(wanted.count)
                        .bind(wanted.count)
                        .bind(wanted.product)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                #[saga_step(resource = "stock.take", compensate = give_back)]
                async fn take(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<TakeGoods>,
                ) -> Result<Taken, HandlerError> {
                    let TakeGoods { product, count } = step.input;
                    let outcome = sql::take(tx, product, count).await?;
                    let (unit_price, _) = outcome
                        .taken(product)
                        .map_err(|error| HandlerError::definite(error.to_string()))?;
                    Ok(Taken { unit_price })
                }

                async fn give_back(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<TakeGoods>,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::GIVE_BACK)
                        .bind(step.input.count)
                        .bind(step.input.product)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }
            }

            pub(super) fn actions() -> Actions {
                let goods = Arc::new(Goods);
                Actions {
                    freeze: Goods::freeze_tcc(&goods),
                    promise: Goods::freeze_three_phase(&goods),
                    take: Goods::take_step(&goods),
                }
            }
        }
    };
}

handlers!(postgres, accede_rm_agent::FencedTransaction);
handlers!(mariadb, accede_rm_agent::mariadb::FencedTransaction);
handlers!(sqlite, accede_rm_agent::sqlite::FencedTransaction);

impl Actions {
    /// Those for this kind of database.
    pub(super) fn of(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Postgres => postgres::actions(),
            DatabaseKind::MariaDb => mariadb::actions(),
            DatabaseKind::Sqlite => sqlite::actions(),
        }
    }
}

#[tonic::async_trait]
impl Store for Freeze {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        let taken = self.call(Wanted { product, count }).await;
        taken.or_else(NotTaken::outcome)
    }
}

#[tonic::async_trait]
impl Store for Promise {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        let taken = self.call(Wanted { product, count }).await;
        taken.or_else(NotTaken::outcome)
    }
}
