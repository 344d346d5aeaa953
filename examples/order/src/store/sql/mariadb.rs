//! The orders in MariaDB.

use shop_api::v1::CreateOrderRequest;
use sqlx::MySqlExecutor;

/// Writes an order down, whatever finishes the transaction.
pub(in crate::store) async fn write_down<T>(
    tx: &mut T,
    order: &CreateOrderRequest,
) -> sqlx::Result<Option<i64>>
where
    for<'t> &'t mut T: MySqlExecutor<'t>,
{
    let id = sqlx::query_scalar(
        "INSERT INTO orders (reference, user_id, paid) VALUES (?, ?, ?) RETURNING id",
    )
    .bind(&order.reference)
    .bind(order.user)
    .bind(order.paid)
    .fetch_one(&mut *tx)
    .await;
    let id: i64 = match id {
        // INSERT IGNORE would swallow other errors as well.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(None),
        id => id?,
    };
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
    Ok(Some(id))
}

/// Order.
pub(in crate::store) const STRIKE_ITEMS: &str = "DELETE FROM order_items WHERE order_id = ?";
/// Order.
pub(in crate::store) const STRIKE: &str = "DELETE FROM orders WHERE id = ?";
/// Reference, pieces.
pub(in crate::store) const PACK: &str = "INSERT INTO parcels (reference, pieces) VALUES (?, ?)";
/// Reference.
pub(in crate::store) const UNPACK: &str = "DELETE FROM parcels WHERE reference = ?";
