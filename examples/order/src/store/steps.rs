//! Steps of sagas. In the mode saga one writes the order down for good, and strikes it out if it
//! comes to nothing. In mixed modes one packs its parcel.

use std::sync::Arc;

use accede_rm_agent::{
    saga::{HandlerError, SagaAction, StepInput},
    saga_step,
};
use shop_api::{
    database::DatabaseKind,
    steps::{PackParcel, Taken, WriteDown, WrittenDown},
    v1::{CreateOrderRequest, Item},
};

use crate::{OrderError, check};

/// The order with its price, which those know who took the goods.
fn priced(step: &StepInput<WriteDown>) -> Result<CreateOrderRequest, HandlerError> {
    let WriteDown {
        reference,
        user,
        lines,
    } = &step.input;
    let mut paid = 0_i64;
    for line in lines {
        let taken: Taken = step.result(&line.taken_by)?;
        paid = taken
            .unit_price
            .checked_mul(line.count)
            .and_then(|cost| paid.checked_add(cost))
            .ok_or_else(|| HandlerError::definite("the order is too expensive"))?;
    }
    let items = lines.iter().map(|line| Item {
        product: line.product,
        count: line.count,
    });
    let order = CreateOrderRequest {
        reference: reference.clone(),
        user: *user,
        items: items.collect(),
        paid,
    };
    check(&order).map_err(|error| definite(&error))?;
    Ok(order)
}

fn definite(error: &OrderError) -> HandlerError {
    HandlerError::definite(error.to_string())
}

/// The handlers on one kind of database: they differ in how parameters are written.
macro_rules! handlers {
    ($kind:ident, $transaction:ty) => {
        mod $kind {
            use super::*;
            use crate::store::sql::$kind as sql;

            pub(super) struct Orders;

            impl Orders {
                #[saga_step(resource = "order.write", compensate = strike)]
                async fn write(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<WriteDown>,
                ) -> Result<WrittenDown, HandlerError> {
                    let order = priced(&step)?;
                    let paid = order.paid;
                    match sql::write_down(tx, &order).await? {
                        Some(order) => Ok(WrittenDown { order, paid }),
                        None => Err(definite(&OrderError::Exists(order.reference))),
                    }
                }

                async fn strike(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<WriteDown>,
                ) -> Result<(), HandlerError> {
                    let written: Option<WrittenDown> = step.own_result()?;
                    let Some(WrittenDown { order, .. }) = written else {
                        return Err(HandlerError::definite("nobody knows the order's number"));
                    };
                    for sql in [sql::STRIKE_ITEMS, sql::STRIKE] {
                        sqlx::query(sql).bind(order).execute(&mut *tx).await?;
                    }
                    Ok(())
                }

                #[saga_step(resource = "parcel.pack", compensate = unpack)]
                async fn pack(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<PackParcel>,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::PACK)
                        .bind(step.input.reference)
                        .bind(step.input.pieces)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }

                async fn unpack(
                    &self,
                    tx: &mut $transaction,
                    step: StepInput<PackParcel>,
                ) -> Result<(), HandlerError> {
                    sqlx::query(sql::UNPACK)
                        .bind(step.input.reference)
                        .execute(&mut *tx)
                        .await?;
                    Ok(())
                }
            }

            pub(super) fn steps() -> Steps {
                let orders = Arc::new(Orders);
                Steps {
                    write: Orders::write_step(&orders),
                    pack: Orders::pack_step(&orders),
                }
            }
        }
    };
}

handlers!(postgres, accede_rm_agent::FencedTransaction);
handlers!(mariadb, accede_rm_agent::mariadb::FencedTransaction);
handlers!(sqlite, accede_rm_agent::sqlite::FencedTransaction);

/// All steps; which of them an agent serves is a matter of the mode.
pub(super) struct Steps {
    pub(super) write: SagaAction,
    pub(super) pack: SagaAction,
}

impl Steps {
    /// Those for this kind of database.
    pub(super) fn of(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Postgres => postgres::steps(),
            DatabaseKind::MariaDb => mariadb::steps(),
            DatabaseKind::Sqlite => sqlite::steps(),
        }
    }
}
