//! The orders in SQLite.

use shop_api::v1::CreateOrderRequest;
use sqlx::SqliteExecutor;

/// Writes an order down, whatever finishes the transaction.
pub(in crate::store) async fn write_down<T>(
    tx: &mut T,
    order: &CreateOrderRequest,
) -> sqlx::Result<Option<i64>>
where
    for<'t> &'t mut T: SqliteExecutor<'t>,
{
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
}

/// Order.
pub(in crate::store) const STRIKE_ITEMS: &str = "DELETE FROM order_items WHERE order_id = ?1";
/// Order.
pub(in crate::store) const STRIKE: &str = "DELETE FROM orders WHERE id = ?1";
/// Reference, pieces.
pub(in crate::store) const PACK: &str = "INSERT INTO parcels (reference, pieces) VALUES (?1, ?2)";
/// Reference.
pub(in crate::store) const UNPACK: &str = "DELETE FROM parcels WHERE reference = ?1";
