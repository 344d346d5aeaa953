//! The goods in PostgreSQL.

use accede_rm_agent::AtPool;
use sqlx::PgExecutor;

use crate::store::{Outcome, Store};

pub(super) struct Postgres {
    pool: AtPool,
}

impl Postgres {
    pub(super) fn new(pool: AtPool) -> Self {
        Self { pool }
    }
}

/// The SQL, whatever finishes the transaction.
pub(in crate::store) async fn take<T>(tx: &mut T, product: i64, count: i64) -> sqlx::Result<Outcome>
where
    for<'t> &'t mut T: PgExecutor<'t>,
{
    let row: Option<(i64, i64)> = sqlx::query_as(
        "UPDATE stock SET count = count - $1 WHERE product = $2 AND count >= $1 \
         RETURNING unit_price, count",
    )
    .bind(count)
    .bind(product)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some((unit_price, left)) = row {
        return Ok(Outcome::Taken { unit_price, left });
    }
    let known: Option<i64> = sqlx::query_scalar("SELECT product FROM stock WHERE product = $1")
        .bind(product)
        .fetch_optional(&mut *tx)
        .await?;
    Ok(match known {
        Some(_) => Outcome::SoldOut,
        None => Outcome::UnknownProduct,
    })
}

#[tonic::async_trait]
impl Store for Postgres {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        self.pool.run(|tx| Box::pin(take(tx, product, count))).await
    }
}
