//! The goods in PostgreSQL.

use sqlx::PgExecutor;

use crate::store::Outcome;

/// Takes so many pieces, whatever finishes the transaction.
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

/// Notes that what was taken is not decided yet: count, product.
pub(in crate::store) const FREEZE: &str =
    "UPDATE stock SET frozen = frozen + $1 WHERE product = $2";
/// It is decided: count, product.
pub(in crate::store) const SETTLE: &str =
    "UPDATE stock SET frozen = frozen - $1 WHERE product = $2";
/// Frozen goods go back: count, count, product.
pub(in crate::store) const RELEASE: &str =
    "UPDATE stock SET count = count + $1, frozen = frozen - $2 WHERE product = $3";
/// What was taken for good goes back: count, product.
pub(in crate::store) const GIVE_BACK: &str =
    "UPDATE stock SET count = count + $1 WHERE product = $2";
/// Whether goods are promised in the mode mixed: product.
pub(in crate::store) const IS_PROMISED: &str = "SELECT promised FROM stock WHERE product = $1";
