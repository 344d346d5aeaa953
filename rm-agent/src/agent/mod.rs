//! The running agent: the session with the coordinator, branches that register,
//! orders that are carried out, leftovers that are swept.
//!
//! One agent per process serves all databases of the process. Each database is a
//! *resource* with workers of its own, so that one which is down delays no other.

mod alone;
mod attach;
mod builder;
mod database;
mod hunter;
mod limits;
mod mariadb;
mod orders;
mod participant;
mod phase_two;
mod postgres;
mod registrar;
mod resource;
mod role;
mod running;
mod sqlite;
mod status;
mod sweeper;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub use accede_link::session::{SessionLimits, SessionStatus};
pub use builder::RmAgentBuilder;
pub use limits::AgentLimits;
pub(crate) use orders::{Ended, Job};
pub(crate) use participant::{DoStep, Finish};
pub use resource::ResourceState;
pub use status::{AgentStatus, ResourceStatus};
use tokio::time::timeout;

use crate::{AtPool, Error, Registrar};
use running::Running;

/// The resource manager of a process: its databases' branches register and are
/// finished through it. Clones share it; keep one for as long as the process
/// serves, and call [`shutdown`](Self::shutdown) in the end.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use accede_rm_agent::RmAgent;
///
/// let agent = RmAgent::builder("stock")
///     .coordinator("http://127.0.0.1:7700")
///     .postgres("stock-db", "postgres://stock@127.0.0.1/stock")
///     .start()
///     .await?;
/// let pool = agent.pool("stock-db")?;
/// // … serve …
/// agent.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RmAgent {
    inner: Arc<Inner>,
}

struct Inner {
    running: Running,
    pools: Pools,
}

/// The pools of an agent, by the operator's names.
#[derive(Default)]
pub(crate) struct Pools {
    pub(crate) postgres: BTreeMap<String, AtPool>,
    pub(crate) mariadb: BTreeMap<String, crate::mariadb::AtPool>,
    pub(crate) sqlite: BTreeMap<String, crate::sqlite::AtPool>,
}

impl Pools {
    pub(crate) fn unknown(&self, kind: &str, resource: &str) -> Error {
        let known: Vec<&str> = self
            .postgres
            .keys()
            .chain(self.mariadb.keys())
            .chain(self.sqlite.keys())
            .map(String::as_str)
            .collect();
        Error::Configuration(format!(
            "this agent has no {kind}resource {resource:?}, it has {}",
            known.join(", ")
        ))
    }
}

impl fmt::Debug for RmAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RmAgent")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl RmAgent {
    /// Starts to describe an agent. Operators see the name, with the host's.
    pub fn builder(name: &str) -> RmAgentBuilder {
        RmAgentBuilder::new(name)
    }

    fn new(running: Running, pools: Pools) -> Self {
        Self {
            inner: Arc::new(Inner { running, pools }),
        }
    }

    /// The pool of a PostgreSQL database, by the operator's name for it.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the agent was not given this database.
    pub fn pool(&self, resource: &str) -> Result<AtPool, Error> {
        let pools = &self.inner.pools;
        let found = pools.postgres.get(resource).cloned();
        found.ok_or_else(|| pools.unknown("", resource))
    }

    /// The pool of a MariaDB database, by the operator's name for it.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the agent was not given this database.
    pub fn mariadb_pool(&self, resource: &str) -> Result<crate::mariadb::AtPool, Error> {
        let pools = &self.inner.pools;
        let found = pools.mariadb.get(resource).cloned();
        found.ok_or_else(|| pools.unknown("MariaDB ", resource))
    }

    /// The pool of a SQLite database, by the operator's name for it.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the agent was not given this database.
    pub fn sqlite_pool(&self, resource: &str) -> Result<crate::sqlite::AtPool, Error> {
        let pools = &self.inner.pools;
        let found = pools.sqlite.get(resource).cloned();
        found.ok_or_else(|| pools.unknown("SQLite ", resource))
    }

    /// What registers this agent's branches with the coordinator. The pools use
    /// it by themselves; it is for branches that are worked on in another way and
    /// keep their undo records in the same table.
    #[must_use]
    pub fn registrar(&self) -> Arc<dyn Registrar> {
        self.inner.running.registrar()
    }

    /// Where the agent stands, for health checks and metrics.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.inner.running.status()
    }

    /// Stops to take orders, lets open branches and orders in hand end within
    /// [`AgentLimits::shutdown`], and closes the session. The pools go on
    /// serving work outside of global transactions.
    pub async fn shutdown(&self) {
        // They may wait for orders that do not come any more.
        let patience = self.inner.running.patience();
        for pool in self.inner.pools.postgres.values() {
            let _ = timeout(patience, pool.end_open()).await;
        }
        for pool in self.inner.pools.mariadb.values() {
            let _ = timeout(patience, pool.end_open()).await;
        }
        self.inner.running.shutdown().await;
    }
}
