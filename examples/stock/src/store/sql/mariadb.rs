//! The goods in MariaDB.

use sqlx::MySqlExecutor;

use crate::store::Outcome;

/// Takes so many pieces, whatever finishes the transaction.
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

/// Notes that what was taken is not decided yet: count, product.
pub(in crate::store) const FREEZE: &str = "UPDATE stock SET frozen = frozen + ? WHERE product = ?";
/// It is decided: count, product.
pub(in crate::store) const SETTLE: &str = "UPDATE stock SET frozen = frozen - ? WHERE product = ?";
/// Frozen goods go back: count, count, product.
pub(in crate::store) const RELEASE: &str =
    "UPDATE stock SET count = count + ?, frozen = frozen - ? WHERE product = ?";
/// What was taken for good goes back: count, product.
pub(in crate::store) const GIVE_BACK: &str = "UPDATE stock SET count = count + ? WHERE product = ?";
/// Whether goods are promised in the mode mixed: product.
pub(in crate::store) const IS_PROMISED: &str = "SELECT promised FROM stock WHERE product = ?";
