//! The accounts in MariaDB.

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

#[tonic::async_trait]
impl Store for MariaDb {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        self.pool.run(|tx| Box::pin(take(tx, user, cents))).await
    }
}
