//! The orders in SQLite.

use std::sync::Arc;

use accede_rm_agent::sqlite::AtPool;
use shop_api::v1::CreateOrderRequest;

use super::Store;

pub(super) struct Sqlite {
    pool: AtPool,
}

impl Sqlite {
    pub(super) async fn open(pool: AtPool) -> sqlx::Result<Self> {
        sqlx::raw_sql(include_str!("../../migrations/sqlite/0001_orders.sql"))
            .execute(pool.plain())
            .await?;
        Ok(Self { pool })
    }
}

#[tonic::async_trait]
impl Store for Sqlite {
    async fn write_down(&self, order: &Arc<CreateOrderRequest>) -> sqlx::Result<Option<i64>> {
        self.pool
            .run(|tx| {
                let order = Arc::clone(order);
                Box::pin(async move {
                    let id: Option<i64> = sqlx::query_scalar(
                        "INSERT INTO orders (reference, user_id, paid) VALUES (?1, ?2, ?3) \
                         ON CONFLICT (reference) DO NOTHING RETURNING id",
                    )
                    .bind(&order.reference)
                    .bind(order.user)
                    .bind(order.paid)
                    .fetch_optional(&mut *tx)
                    .await?;
                    let Some(id) = id else {
                        return Ok(None);
                    };
                    for (position, item) in (1_i64..).zip(&order.items) {
                        sqlx::query(
                            "INSERT INTO order_items (order_id, position, product, count) \
                             VALUES (?1, ?2, ?3, ?4)",
                        )
                        .bind(id)
                        .bind(position)
                        .bind(item.product)
                        .bind(item.count)
                        .execute(&mut *tx)
                        .await?;
                    }
                    Ok(Some(id))
                })
            })
            .await
    }
}
