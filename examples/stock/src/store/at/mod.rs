//! In AT: one file for each kind of database, with its SQL and nothing else.

pub(super) mod mariadb;
pub(super) mod postgres;
mod sqlite;

use accede_rm_agent::{RmAgent, RmAgentBuilder};
use shop_api::database::DatabaseKind;

use super::{RESOURCE, Store};

pub(super) async fn open(
    agent: RmAgentBuilder,
    kind: DatabaseKind,
) -> anyhow::Result<(RmAgent, Box<dyn Store>)> {
    let agent = agent.start().await?;
    let store: Box<dyn Store> = match kind {
        DatabaseKind::Postgres => Box::new(postgres::Postgres::new(agent.pool(RESOURCE)?)),
        DatabaseKind::MariaDb => Box::new(mariadb::MariaDb::new(agent.mariadb_pool(RESOURCE)?)),
        DatabaseKind::Sqlite => Box::new(sqlite::Sqlite::new(agent.sqlite_pool(RESOURCE)?)),
    };
    Ok((agent, store))
}
