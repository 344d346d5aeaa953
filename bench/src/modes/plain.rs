//! Two local transactions, one after the other. If the second one fails, the first one stays.

use futures_util::future::BoxFuture;
use sqlx::{PgPool, postgres::PgPoolOptions};

use super::{
    place::{Order, Side},
    way::{Reach, Way},
};

pub(super) struct Plain {
    pools: [PgPool; 2],
}

impl Plain {
    pub(super) fn open(reach: &Reach) -> anyhow::Result<Self> {
        let pool = |side| pool(reach, side);
        Ok(Self {
            pools: [pool(Side::Stock)?, pool(Side::Account)?],
        })
    }
}

/// sqlx's own pool; as the library's, it does not test a connection before each use.
pub(super) fn pool(reach: &Reach, side: Side) -> sqlx::Result<PgPool> {
    PgPoolOptions::new()
        .max_connections(reach.connections)
        .test_before_acquire(false)
        .connect_lazy(&reach.url(side))
}

impl Way for Plain {
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            for (side, pool) in Side::BOTH.into_iter().zip(&self.pools) {
                let mut transaction = pool.begin().await?;
                sqlx::query(side.change())
                    .bind(order.row(side))
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
            }
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for pool in &self.pools {
                pool.close().await;
            }
        })
    }
}
