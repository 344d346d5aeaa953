//! The accounts in MariaDB.

use sqlx::MySqlExecutor;

use crate::store::Outcome;

/// Takes so much money, whatever finishes the transaction.
pub(in crate::store) async fn take<T>(tx: &mut T, user: i64, cents: i64) -> sqlx::Result<Outcome>
where
    for<'t> &'t mut T: MySqlExecutor<'t>,
{
    let updated =
        sqlx::query("UPDATE accounts SET balance = balance - ? WHERE user_id = ? AND balance >= ?")
            .bind(cents)
            .bind(user)
            .bind(cents)
            .execute(&mut *tx)
            .await?;
    let balance: Option<i64> = sqlx::query_scalar("SELECT balance FROM accounts WHERE user_id = ?")
        .bind(user)
        .fetch_optional(&mut *tx)
        .await?;
    Ok(match balance {
        None => Outcome::UnknownUser,
        Some(balance) if updated.rows_affected() == 0 => Outcome::NotEnough { balance },
        Some(left) => Outcome::Taken { left },
    })
}

/// Notes that what was taken is not decided yet: cents, user.
pub(in crate::store) const FREEZE: &str =
    "UPDATE accounts SET frozen = frozen + ? WHERE user_id = ?";
/// It is decided: cents, user.
pub(in crate::store) const SETTLE: &str =
    "UPDATE accounts SET frozen = frozen - ? WHERE user_id = ?";
/// Frozen money goes back: cents, cents, user.
pub(in crate::store) const RELEASE: &str =
    "UPDATE accounts SET balance = balance + ?, frozen = frozen - ? WHERE user_id = ?";
/// What was taken for good goes back: cents, user.
pub(in crate::store) const GIVE_BACK: &str =
    "UPDATE accounts SET balance = balance + ? WHERE user_id = ?";
