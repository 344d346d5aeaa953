//! Through Accede, in AT.

use accede_rm_agent::AtPool;
use futures_util::future::BoxFuture;

use super::{
    accede::Accede,
    place::{Order, Side},
    way::{Reach, Way},
};
use crate::coordinator::Coordinator;

pub(super) struct At {
    accede: Accede,
    pools: [AtPool; 2],
}

impl At {
    pub(super) async fn open(reach: &Reach, coordinator: &Coordinator) -> anyhow::Result<Self> {
        let accede = Accede::open(reach, coordinator, |agent| agent).await?;
        Ok(Self {
            pools: [accede.pool(Side::Stock)?, accede.pool(Side::Account)?],
            accede,
        })
    }
}

impl Way for At {
    fn place(&self, order: Order) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.accede.in_transaction(async move {
            for (side, pool) in Side::BOTH.into_iter().zip(&self.pools) {
                pool.run(move |branch| {
                    Box::pin(async move {
                        let change = sqlx::query(side.change()).bind(order.row(side));
                        change.execute(branch).await.map(drop)
                    })
                })
                .await?;
            }
            Ok(())
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.accede.close())
    }
}
