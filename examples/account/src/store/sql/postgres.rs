//! The accounts in PostgreSQL.

use sqlx::PgExecutor;

use crate::store::Outcome;

/// Takes so much money, whatever finishes the transaction.
pub(in crate::store) async fn take<T>(tx: &mut T, user: i64, cents: i64) -> sqlx::Result<Outcome>
where
    for<'t> &'t mut T: PgExecutor<'t>,
{
    let left: Option<i64> = sqlx::query_scalar(
        "UPDATE accounts SET balance = balance - $1 \
         WHERE user_id = $2 AND balance >= $1 RETURNING balance",
    )
    .bind(cents)
    .bind(user)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(left) = left {
        return Ok(Outcome::Taken { left });
    }
    let balance: Option<i64> =
        sqlx::query_scalar("SELECT balance FROM accounts WHERE user_id = $1")
            .bind(user)
            .fetch_optional(&mut *tx)
            .await?;
    Ok(match balance {
        Some(balance) => Outcome::NotEnough { balance },
        None => Outcome::UnknownUser,
    })
}

/// Notes that what was taken is not decided yet: cents, user.
pub(in crate::store) const FREEZE: &str =
    "UPDATE accounts SET frozen = frozen + $1 WHERE user_id = $2";
/// It is decided: cents, user.
pub(in crate::store) const SETTLE: &str =
    "UPDATE accounts SET frozen = frozen - $1 WHERE user_id = $2";
/// Frozen money goes back: cents, cents, user.
pub(in crate::store) const RELEASE: &str =
    "UPDATE accounts SET balance = balance + $1, frozen = frozen - $2 WHERE user_id = $3";
/// What was taken for good goes back: cents, user.
pub(in crate::store) const GIVE_BACK: &str =
    "UPDATE accounts SET balance = balance + $1 WHERE user_id = $2";
