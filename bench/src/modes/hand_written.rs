//! Two-phase commit by one client, as one writes it by hand: whoever finds what it has prepared
//! when it dies in between is another story.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::future::{BoxFuture, try_join};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::{
    place::{Order, Side},
    plain,
    way::{Reach, Way},
};

pub(super) struct HandWritten {
    stock: PgPool,
    account: PgPool,
}

/// Names of prepared transactions are the server's.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl HandWritten {
    pub(super) fn open(reach: &Reach) -> anyhow::Result<Self> {
        Ok(Self {
            stock: plain::pool(reach, Side::Stock)?,
            account: plain::pool(reach, Side::Account)?,
        })
    }
}

async fn send(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql));
    sql.execute(connection).await.map(drop)
}

async fn change(connection: &mut PgConnection, side: Side, order: Order) -> sqlx::Result<()> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    sqlx::query(side.change())
        .bind(order.row(side))
        .execute(connection)
        .await
        .map(drop)
}

impl Way for HandWritten {
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let number = NEXT.fetch_add(1, Relaxed);
            let name = |side: Side| format!("{}-{number}", side.name());
            let mut stock = self.stock.acquire().await?;
            let mut account = self.account.acquire().await?;
            change(&mut stock, Side::Stock, order).await?;
            change(&mut account, Side::Account, order).await?;
            for verb in ["PREPARE TRANSACTION", "COMMIT PREPARED"] {
                let both = Side::BOTH.map(|side| format!("{verb} '{}'", name(side)));
                let [one, other] = both;
                try_join(send(&mut stock, one), send(&mut account, other)).await?;
            }
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stock.close().await;
            self.account.close().await;
        })
    }
}
