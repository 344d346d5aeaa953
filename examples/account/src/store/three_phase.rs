//! In 3PC: an order is promised its money by what TCC does to freeze them, hears that it is
//! decided, and takes them, with or without the coordinator.

use std::sync::Arc;

use accede_rm_agent::{RmAgent, RmAgentBuilder, three_phase::Participant};
use shop_api::database::DatabaseKind;

use super::{
    Outcome, RESOURCE, Store,
    tcc::{FreezeError, Payment, mariadb, postgres, sqlite},
};

struct Promised {
    promise: Participant<Payment, FreezeError, Outcome>,
}

pub(super) async fn open(
    agent: RmAgentBuilder,
    kind: DatabaseKind,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let promise = match kind {
        DatabaseKind::Postgres => {
            postgres::Accounts::freeze_three_phase(&Arc::new(postgres::Accounts))
        }
        DatabaseKind::MariaDb => {
            mariadb::Accounts::freeze_three_phase(&Arc::new(mariadb::Accounts))
        }
        DatabaseKind::Sqlite => sqlite::Accounts::freeze_three_phase(&Arc::new(sqlite::Accounts)),
    };
    let agent = agent.three_phase(RESOURCE, &promise).start().await?;
    Ok((agent, Box::new(Promised { promise })))
}

#[tonic::async_trait]
impl Store for Promised {
    async fn take(&self, user: i64, cents: i64) -> sqlx::Result<Outcome> {
        let taken = self.promise.call(Payment { user, cents }).await;
        taken.or_else(FreezeError::outcome)
    }
}
