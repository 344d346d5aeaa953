//! In AT and XA: the same SQL in a local transaction, which is undone from images or prepared.

use std::sync::Arc;

use shop_api::{home::Branches, v1::CreateOrderRequest};

use super::{
    Store,
    sql::{mariadb, postgres, sqlite},
};

/// A transaction may be run again, so each time with an order of its own.
macro_rules! write_down {
    ($pool:ident, $sql:ident, $order:ident) => {
        $pool
            .run(|tx| {
                let order = Arc::clone($order);
                Box::pin(async move { $sql::write_down(tx, &order).await })
            })
            .await
    };
}

#[tonic::async_trait]
impl Store for Branches {
    async fn write_down(&self, order: &Arc<CreateOrderRequest>) -> sqlx::Result<Option<i64>> {
        match self {
            Self::Postgres(pool) => write_down!(pool, postgres, order),
            Self::PostgresXa(pool) => write_down!(pool, postgres, order),
            Self::MariaDb(pool) => write_down!(pool, mariadb, order),
            Self::MariaDbXa(pool) => write_down!(pool, mariadb, order),
            Self::Sqlite(pool) => write_down!(pool, sqlite, order),
        }
    }
}
