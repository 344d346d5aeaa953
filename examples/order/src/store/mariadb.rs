//! The orders in MariaDB.

use std::sync::Arc;

use accede_rm_agent::mariadb::AtPool;
use shop_api::v1::CreateOrderRequest;

use super::Store;

pub(super) struct MariaDb {
    pool: AtPool,
}

impl MariaDb {
    pub(super) async fn open(pool: AtPool) -> sqlx::Result<Self> {
        sqlx::raw_sql(include_str!("../../migrations/mariadb/0001_orders.sql"))
            .execute(pool.plain())
            .await?;
        Ok(Self { pool })
    }
}

#[tonic::async_trait]
impl Store for MariaDb {
    async fn write_down(&self, order: &Arc<CreateOrderRequest>) -> sqlx::Result<Option<i64>> {
        let written = self
            .pool
            .run(|tx| {
                let order = Arc::clone(order);
                Box::pin(async move {
                    let id: i64 = sqlx::query_scalar(
                        "INSERT INTO orders (reference, user_id, paid) VALUES (?, ?, ?) \
                         RETURNING id",
                    )
                    .bind(&order.reference)
                    .bind(order.user)
                    .bind(order.paid)
                    .fetch_one(&mut *tx)
                    .await?;
                    for (position, item) in (1_i64..).zip(&order.items) {
                        sqlx::query(
                            "INSERT INTO order_items (order_id, position, product, count) \
                             VALUES (?, ?, ?, ?)",
                        )
                        .bind(id)
                        .bind(position)
                        .bind(item.product)
                        .bind(item.count)
                        .execute(&mut *tx)
                        .await?;
                    }
                    Ok(id)
                })
            })
            .await;
        match written {
            // INSERT IGNORE would swallow other errors as well.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(None),
            written => written.map(Some),
        }
    }
}
