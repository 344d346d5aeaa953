//! In 3PC: an order is promised its goods by what TCC does to freeze them, hears that it is
//! decided, and takes them, with or without the coordinator.

use std::sync::Arc;

use accede_rm_agent::{RmAgent, RmAgentBuilder, three_phase::Participant};
use shop_api::database::DatabaseKind;

use super::{
    Outcome, RESOURCE, Store,
    tcc::{FreezeError, Wanted, mariadb, postgres, sqlite},
};

struct Promised {
    promise: Participant<Wanted, FreezeError, Outcome>,
}

pub(super) async fn open(
    agent: RmAgentBuilder,
    kind: DatabaseKind,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let promise = match kind {
        DatabaseKind::Postgres => postgres::Goods::freeze_three_phase(&Arc::new(postgres::Goods)),
        DatabaseKind::MariaDb => mariadb::Goods::freeze_three_phase(&Arc::new(mariadb::Goods)),
        DatabaseKind::Sqlite => sqlite::Goods::freeze_three_phase(&Arc::new(sqlite::Goods)),
    };
    let agent = agent.three_phase(RESOURCE, &promise).start().await?;
    Ok((agent, Box::new(Promised { promise })))
}

#[tonic::async_trait]
impl Store for Promised {
    async fn take(&self, product: i64, count: i64) -> sqlx::Result<Outcome> {
        let taken = self.promise.call(Wanted { product, count }).await;
        taken.or_else(FreezeError::outcome)
    }
}
