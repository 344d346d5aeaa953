//! What is code of the shop's own: TCC, 3PC and the step of a saga.
//!
//! In TCC an order freezes money, and it is taken or given back when it is decided. The same
//! handlers make a participant of 3PC, which hears in between that the order is decided, and then
//! needs no coordinator any more. In a saga money is taken for good at once, and given back if the
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
    steps::{self, TakeMoney, WrittenDown},
};

use super::{Outcome, Store};

/// What an order costs.
#[derive(Serialize, Deserialize)]
pub(super) struct Payment {
    user: i64,
    cents: i64,
}

pub(super) type Freeze = Tcc<Payment, NotTaken<Outcome>, Outcome>;
pub(super) type Promise = Participant<Payment, NotTaken<Outcome>, Outcome>;

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

            pub(super) struct Accounts;

            impl Accounts {
                #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
                #[three_phase(resource = "account.promise", do_commit = settle, abort = release)]
                async fn freeze(
                    &self,
                    tx: &mut $transaction,
                    wanted: Payment,
                ) -> Result<Outcome, NotTaken<Outcome>> {
                    let outcome = sql::take(tx, wanted.user, wanted.cents).await?;
                    if !matches!(outcome, Outcome::Taken { .. }) {
                        return Err(NotTaken::No(outcome));
                    }
                    sqlx::query(sql::FREEZE)
                        .bind(wanted.cents)
                        .bind(wanted.user)
                        .execute(&mut *tx)
                        .await?;
                    Ok(outcome)
                }

                async fn settle(
                    &self,
                    tx: &mut $transaction,
                    wanted: Payment,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::SETTLE)
                        .bind(wanted.cents)
                        .bind(wanted.user)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                async fn release(
                    &self,
                    tx: &mut $transaction,
                    wanted: Payment,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::RELEASE)
                        .bind(wanted.cents)
                        .bind(wanted.cents)
                        .bind(wanted.user)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                #[saga_step(resource = "account.take", compensate = give_back)]
                async fn take(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<TakeMoney>,
                ) -> Result<i64, HandlerError> {
                    let user = step.input.user;
                    let WrittenDown { paid, .. } = step.result(steps::ORDER)?;
                    let outcome = sql::take(tx, user, paid).await?;
                    outcome
                        .taken(user, paid)
                        .map_err(|error| HandlerError::definite(error.to_string()))?;
                    Ok(paid)
                }

                async fn give_back(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<TakeMoney>,
                ) -> Result<(), HandlerError> {
                    let paid: Option<i64> = step.own_result()?;
                    sqlx::query(sql::GIVE_BACK)
                        .bind(paid)
                        .bind(step.input.user)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }
            }

            pub(super) fn actions() -> Actions {
                let accounts = Arc::new(Accounts);
                Actions {
                    freeze: Accounts::freeze_tcc(&accounts),
                    promise: Accounts::freeze_three_phase(&accounts),
                    take: Accounts::take_step(&accounts),
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
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        let taken = self.call(Payment { user, cents }).await;
        taken.or_else(NotTaken::outcome)
    }
}

#[tonic::async_trait]
impl Store for Promise {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        let taken = self.call(Payment { user, cents }).await;
        taken.or_else(NotTaken::outcome)
    }
}
