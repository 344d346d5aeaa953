//! Describes an agent.

use std::{collections::BTreeMap, sync::Arc};

use accede_link::session::{SessionLimits, SessionOptions, normalize_address};

use super::{
    AgentLimits, Pools, RmAgent,
    database::Database,
    limits::{MAX_NAME_BYTES, MAX_RESOURCES},
    mariadb::MariaDb,
    participant::Participant,
    postgres::Postgres,
    running::{Prepared, Rooms, Served},
    sqlite::Sqlite,
};
use crate::{
    AtPool, AtPoolBuilder, Error, Registrar,
    action::Unbound,
    mariadb,
    saga::{SagaAction, UnboundStep},
    sqlite,
    tcc::Tcc,
    three_phase,
};

/// A database to serve.
#[derive(Debug)]
enum Described {
    Postgres(Box<AtPoolBuilder>),
    MariaDb(Box<mariadb::AtPoolBuilder>),
    Sqlite(Box<sqlite::AtPoolBuilder>),
}

/// An action to serve.
struct Act {
    resource: String,
    /// Where its fences are.
    database: Option<String>,
    action: Unstarted,
}

/// What it is before the agent has started.
enum Unstarted {
    Promise(Arc<dyn Unbound>),
    Step(Arc<dyn UnboundStep>),
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Act")
            .field("resource", &self.resource)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Collects what an [`RmAgent`] needs: its name, where coordinators are, which
/// databases it serves.
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct RmAgentBuilder {
    name: String,
    coordinators: Vec<String>,
    databases: Vec<(String, Described)>,
    actions: Vec<Act>,
    limits: AgentLimits,
    session_limits: SessionLimits,
}

impl RmAgentBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            coordinators: Vec::new(),
            databases: Vec::new(),
            actions: Vec::new(),
            limits: AgentLimits::default(),
            session_limits: SessionLimits::default(),
        }
    }

    /// Adds a coordinator's address, like `http://127.0.0.1:7700`. With several,
    /// the agent finds the one that leads.
    pub fn coordinator(mut self, address: impl Into<String>) -> Self {
        self.coordinators.push(address.into());
        self
    }

    /// Adds a PostgreSQL database under the operator's name for it, by its URL
    /// (`postgres://user:password@host:port/database`). The name must be the same
    /// in all services that use the database.
    pub fn postgres(self, resource: &str, url: &str) -> Self {
        self.pool(resource, AtPool::builder(url))
    }

    /// Adds a PostgreSQL database whose pool has settings of its own; its
    /// resource name is set here.
    pub fn pool(mut self, resource: &str, pool: AtPoolBuilder) -> Self {
        let described = Described::Postgres(Box::new(pool));
        self.databases.push((resource.to_owned(), described));
        self
    }

    /// Adds a MariaDB database under the operator's name for it, by its URL
    /// (`mysql://user:password@host:port/database`). The name must be the same in all
    /// services that use the database.
    pub fn mariadb(self, resource: &str, url: &str) -> Self {
        self.mariadb_pool(resource, mariadb::AtPool::builder(url))
    }

    /// Adds a MariaDB database whose pool has settings of its own; its resource name is
    /// set here.
    pub fn mariadb_pool(mut self, resource: &str, pool: mariadb::AtPoolBuilder) -> Self {
        let described = Described::MariaDb(Box::new(pool));
        self.databases.push((resource.to_owned(), described));
        self
    }

    /// Adds a SQLite database under the operator's name for it, by its URL
    /// (`sqlite:///path/to/file.db`). The name must be the same in all services that use
    /// the database.
    pub fn sqlite(self, resource: &str, url: &str) -> Self {
        self.sqlite_pool(resource, sqlite::AtPool::builder(url))
    }

    /// Adds a SQLite database whose pool has settings of its own; its resource name is
    /// set here.
    pub fn sqlite_pool(mut self, resource: &str, pool: sqlite::AtPoolBuilder) -> Self {
        let described = Described::Sqlite(Box::new(pool));
        self.databases.push((resource.to_owned(), described));
        self
    }

    /// Adds a TCC action whose handlers work in the database of this name, which this agent has,
    /// too. The action's name must be the same in all services that can finish it.
    pub fn tcc<A: 'static, E: From<Error> + 'static, O: 'static>(
        self,
        database: &str,
        action: &Tcc<A, E, O>,
    ) -> Self {
        self.act(Some(database), action.resource(), action.unbound())
    }

    /// Adds a TCC action whose handlers work in no database of this agent's; see
    /// [`Unfenced`](crate::tcc::Unfenced) for what they must see to.
    pub fn tcc_unfenced<A: 'static, E: From<Error> + 'static, O: 'static>(
        self,
        action: &Tcc<A, E, O>,
    ) -> Self {
        self.act(None, action.resource(), action.unbound())
    }

    /// Adds an action that is a step of sagas, whose handlers work in the database of this name,
    /// which this agent has, too. The action's name must be the same in all services that do it.
    pub fn saga_step(mut self, database: &str, action: &SagaAction) -> Self {
        self.actions.push(Act {
            resource: action.resource().to_owned(),
            database: Some(database.to_owned()),
            action: Unstarted::Step(action.unbound()),
        });
        self
    }

    /// Adds a participant of 3PC that keeps its promises in the database of this name, which this
    /// agent has, too. The action's name must be the same in all services that can finish it.
    /// After [`AgentLimits::three_phase_timeout`] without news of a promise it asks, and does
    /// alone what is certain.
    pub fn three_phase<A: 'static, E: From<Error> + 'static, O: 'static>(
        self,
        database: &str,
        participant: &three_phase::Participant<A, E, O>,
    ) -> Self {
        self.act(
            Some(database),
            participant.resource(),
            participant.unbound(),
        )
    }

    fn act(mut self, database: Option<&str>, resource: &str, action: Arc<dyn Unbound>) -> Self {
        self.actions.push(Act {
            resource: resource.to_owned(),
            database: database.map(str::to_owned),
            action: Unstarted::Promise(action),
        });
        self
    }

    /// Changes bounds and times.
    pub fn limits(mut self, limits: AgentLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Changes bounds and times of the session with the coordinator.
    pub fn session_limits(mut self, limits: SessionLimits) -> Self {
        self.session_limits = limits;
        self
    }

    /// Starts the agent. Needs neither the coordinator nor the databases to be
    /// up: it connects when they come. A database that is up is checked, a coordinator
    /// that is up is asked whether the names can be had.
    ///
    /// # Errors
    /// [`Error::Configuration`] names the setting that is missing or wrong, or the resource that
    /// the coordinator knows as something else;
    /// [`Error::Schema`] when a database is up but not prepared;
    /// [`Error::OtherCluster`] when two databases belong to different clusters.
    pub async fn start(self) -> Result<RmAgent, Error> {
        let coordinators = self.check()?;
        let prepared = Prepared::new(&self.names().collect::<Vec<_>>());
        let mut pools = Pools::default();
        let mut served = Vec::with_capacity(self.databases.len() + self.actions.len());
        let mut databases: BTreeMap<String, (Arc<dyn Database>, Rooms)> = BTreeMap::new();
        for (name, described) in self.databases {
            let has_actions = self
                .actions
                .iter()
                .any(|act| act.database.as_ref() == Some(&name));
            // Branches of XA have fences, too, and may be those of an agent before.
            let keeps_fences = has_actions || !matches!(described, Described::Sqlite(_));
            let place = name.clone();
            let registrar: Arc<dyn Registrar> = Arc::clone(prepared.registrar()) as _;
            let (database, [to_finish, for_steps]): (Arc<dyn Database>, [usize; 2]) =
                match described {
                    Described::Postgres(builder) => {
                        let pool = builder.resource(&name).build(registrar)?;
                        let connections = [pool.phase_two(), pool.steps()].map(most);
                        pool.keep_open(self.limits.kept_open);
                        pools.postgres.insert(name, pool.clone());
                        (Arc::new(Postgres::new(pool)), connections)
                    }
                    Described::MariaDb(builder) => {
                        let pool = builder.resource(&name).build(registrar)?;
                        let connections = [pool.phase_two(), pool.steps()].map(most);
                        pool.keep_open(self.limits.kept_open);
                        pools.mariadb.insert(name, pool.clone());
                        (Arc::new(MariaDb::new(pool)), connections)
                    }
                    Described::Sqlite(builder) => {
                        let pool = builder.resource(&name).build(registrar)?;
                        let connections = [pool.phase_two(), pool.steps()].map(most);
                        pools.sqlite.insert(name, pool.clone());
                        (Arc::new(Sqlite::new(pool)), connections)
                    }
                };
            // One connection stays for commits.
            let rooms = Rooms::new(
                self.limits.rollbacks.min(to_finish - 1),
                self.limits.steps.min(for_steps),
            );
            databases.insert(place, (Arc::clone(&database), rooms.clone()));
            served.push(Served {
                participant: Participant::Database(database),
                rooms,
                keeps_fences,
            });
        }
        for act in self.actions {
            let registrar: Arc<dyn Registrar> = Arc::clone(prepared.registrar()) as _;
            let name = act.database.as_deref();
            let place = name.and_then(|name| databases.get(name).cloned());
            let (database, rooms) = place.unzip();
            let participant = match (act.action, database) {
                (Unstarted::Promise(action), database) => Participant::Action {
                    finish: action.bind(&pools, name, registrar)?,
                    database,
                },
                (Unstarted::Step(action), database) => {
                    let name = name.unwrap_or_default();
                    let step = action.bind(&pools, name)?;
                    let unknown = || pools.unknown("", name);
                    let database = database.ok_or_else(unknown)?;
                    Participant::Step { step, database }
                }
            };
            let alone = || Rooms::new(self.limits.rollbacks, self.limits.steps);
            served.push(Served {
                participant,
                rooms: rooms.unwrap_or_else(alone),
                keeps_fences: false,
            });
        }
        let options = SessionOptions {
            addresses: coordinators,
            cluster: None,
            limits: self.session_limits,
        };
        let shown_name = at_host(&self.name);
        let running = prepared
            .start(shown_name, served, options, self.limits)
            .await?;
        running.first_answer().await?;
        Ok(RmAgent::new(running, pools))
    }

    /// The names of all resources.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.kinds().map(|(name, _)| name)
    }

    /// The names of all resources, and what they are.
    fn kinds(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let databases = self.databases.iter();
        let databases = databases.map(|(name, _)| (name.as_str(), "a database"));
        let actions = self.actions.iter();
        let actions = actions.map(|act| (act.resource.as_str(), "an action"));
        databases.chain(actions)
    }

    fn check(&self) -> Result<Vec<String>, Error> {
        let wrong = |what: String| Err(Error::Configuration(what));
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return wrong(format!(
                "the agent's name must have 1 to {MAX_NAME_BYTES} bytes, for example \"stock\""
            ));
        }
        if self.coordinators.is_empty() {
            return wrong(
                "no coordinator was given: call .coordinator(\"http://127.0.0.1:7700\")".to_owned(),
            );
        }
        let names: Vec<_> = self.kinds().collect();
        if names.is_empty() || names.len() > MAX_RESOURCES {
            return wrong(format!(
                "an agent serves 1 to {MAX_RESOURCES} databases and actions: call \
                 .postgres(\"stock-db\", url)"
            ));
        }
        for (place, &(name, kind)) in names.iter().enumerate() {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return wrong(format!(
                    "a resource's name must have 1 to {MAX_NAME_BYTES} bytes, {name:?} has {}",
                    name.len()
                ));
            }
            let mut before = names[..place].iter();
            if let Some((_, other)) = before.find(|(before, _)| *before == name) {
                return wrong(format!(
                    "the name {name:?} is given twice, to {other} and to {kind}; give each database \
                     and each action a name of its own"
                ));
            }
        }
        if self.limits.commit_batch == 0
            || self.limits.sweep_batch == 0
            || self.limits.orders == 0
            || self.limits.three_phase_timeout.is_zero()
        {
            return wrong(
                "commit_batch, sweep_batch and orders must be at least 1, three_phase_timeout \
                 more than nothing"
                    .to_owned(),
            );
        }
        self.coordinators
            .iter()
            .map(|address| {
                normalize_address(address).map_err(|error| Error::Configuration(error.to_string()))
            })
            .collect()
    }
}

/// The name that operators see, like `stock@host-3`.
fn at_host(name: &str) -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    match host.as_deref().map(str::trim) {
        Some(host) if !host.is_empty() => format!("{name}@{host}"),
        _ => name.to_owned(),
    }
}

/// How many connections a pool may have.
fn most<DB: sqlx::Database>(pool: &sqlx::Pool<DB>) -> usize {
    pool.options().get_max_connections() as usize
}
