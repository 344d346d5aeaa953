//! The goods in MariaDB.

use accede_rm_agent::mariadb::AtPool;
use sqlx::MySqlExecutor;

use crate::store::{Outcome, Store};

pub(super) struct MariaDb {
    pool: AtPool,
}

impl MariaDb {
    pub(super) fn new(pool: AtPool) -> Self {
        Self { pool }
    }
}

/// The SQL, whatever finishes the transaction.
pub(in crate::store) async fn take<T>(tx: &mut T, product: i64, count: i64) -> sqlx::Result<Outcome>
where
    for<'t> &'t mut T: MySqlExecutor<'t>,
{
    let updated =
        sqlx::query("UPDATE stock SET count = count - ? WHERE product = ? AND count >= ?")
            .bind(count)
            .bind(product)
            .bind(count)
            .execute(&mut *tx)
            .await?;
    let row: Option<(i64, i64)> =
        sqlx::query_as("SELECT unit_price, count FROM stock WHERE product = ?")
            .bind(product)
            .fetch_optional(&mut *tx)
            .await?;
    Ok(match row {
        None => Outcome::UnknownProduct,
        Some(_) if updated.rows_affected() == 0 => Outcome::SoldOut,
        Some((unit_price, left)) => Outcome::Taken { unit_price, left },
    })
}

#[tonic::async_trait]
impl Store for MariaDb {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        self.pool.run(|tx| Box::pin(take(tx, product, count))).await
    }
}
