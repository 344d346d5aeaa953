//! The accounts in PostgreSQL.

use accede_rm_agent::AtPool;
use sqlx::PgExecutor;

use crate::store::{Outcome, Store};

pub(super) struct Postgres {
    pool: AtPool,
}

impl Postgres {
    pub(super) fn new(pool: AtPool) -> Self {
        Self { pool }
    }
}

/// The SQL, whatever finishes the transaction.
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

#[tonic::async_trait]
impl Store for Postgres {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        self.pool.run(|tx| Box::pin(take(tx, user, cents))).await
    }
}
