//! Describes an [`AtPool`](super::AtPool).

use std::{str::FromStr as _, sync::Arc, time::Duration};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};

use super::{phase_two::references::SETTINGS, plan::Allowed, pool::AtPool};
use crate::{error::Error, limits, registrar::Registrar};

/// What this library's own connections are like: commits are durable, and the database
/// itself waits for its write lock for a moment only, so that a wait can be ended.
fn own(options: &SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .clone()
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(limits::BUSY_STEP)
}

/// Collects the settings of an [`AtPool`]. Every default stands in [`limits`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` or `connect`"]
pub struct AtPoolBuilder {
    options: Result<SqliteConnectOptions, String>,
    pool: SqlitePoolOptions,
    phase_two_connections: u32,
    step_connections: u32,
    resource: Option<Arc<str>>,
    lock_wait: Duration,
    allowed: Allowed,
}

impl AtPoolBuilder {
    pub(super) fn from_url(url: &str) -> Self {
        // Without a scheme the driver would take anything for a file.
        let options = match url.starts_with("sqlite:") {
            true => SqliteConnectOptions::from_str(url).map_err(|error| error.to_string()),
            false => Err("it does not begin with sqlite:".to_owned()),
        };
        let options = options.map_err(|why| format!("the database URL cannot be used: {why}"));
        Self {
            options,
            pool: SqlitePoolOptions::new()
                .max_connections(limits::POOL_CONNECTIONS)
                .acquire_timeout(limits::POOL_ACQUIRE_TIMEOUT)
                .test_before_acquire(false),
            phase_two_connections: limits::PHASE_TWO_CONNECTIONS,
            step_connections: limits::STEP_CONNECTIONS,
            resource: None,
            lock_wait: limits::LOCK_WAIT,
            allowed: Allowed::default(),
        }
    }

    /// The operator's name for the database, the same in all services that use
    /// it. Required.
    pub fn resource(mut self, name: &str) -> Self {
        self.resource = Some(name.into());
        self
    }

    /// The most connections for the application's work: so many for branches, and so
    /// many for everything else.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.pool = self.pool.max_connections(connections);
        self
    }

    /// How long `begin` waits for a connection.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.pool = self.pool.acquire_timeout(timeout);
        self
    }

    /// sqlx's own settings of the application's pools, in place of those made so far.
    pub fn pool_options(mut self, options: SqlitePoolOptions) -> Self {
        self.pool = options;
        self
    }

    /// sqlx's own settings of each connection, in place of the URL.
    pub fn connect_options(mut self, options: SqliteConnectOptions) -> Self {
        self.options = Ok(options);
        self
    }

    /// The most connections that finish branches.
    pub fn phase_two_connections(mut self, connections: u32) -> Self {
        self.phase_two_connections = connections;
        self
    }

    /// The most connections on which steps of sagas are done.
    pub fn step_connections(mut self, connections: u32) -> Self {
        self.step_connections = connections;
        self
    }

    /// How long a branch waits for locks, the database's and the coordinator's.
    pub fn lock_wait(mut self, patience: Duration) -> Self {
        self.lock_wait = patience;
        self
    }

    /// Allows writes to `table` although it has this BEFORE trigger. Right for triggers
    /// that only check values: they run again when rows are undone. Triggers that run
    /// AFTER a change need no permission; what they write is undone too.
    pub fn allow_trigger(mut self, table: &str, trigger: &str) -> Self {
        self.allowed
            .triggers
            .insert((table.to_owned(), trigger.to_owned()));
        self
    }

    /// Allows statements that call this function, which is not one of SQLite's own, by
    /// its name in small letters. What it writes by itself is not undone.
    pub fn allow_function(mut self, name: &str) -> Self {
        self.allowed.functions.insert(name.to_owned());
        self
    }

    /// Says that others may change this column of `table` while a
    /// branch can still be undone: writers outside of any global transaction, or a
    /// trigger that sets the column whenever a row changes.
    ///
    /// If somebody did, an undo leaves this column as it is and brings back the
    /// others. List no column whose new value is made from its old one, such as a
    /// balance. Any other column that somebody else changed makes the transaction
    /// stuck. It has no effect on key columns.
    pub fn merge_column(mut self, table: &str, column: &str) -> Self {
        self.allowed
            .merges
            .insert((table.to_owned(), column.to_owned()));
        self
    }

    /// Builds the pool. Connects when a connection is first needed, so the
    /// database may still be down.
    ///
    /// # Errors
    /// [`Error::Configuration`] when a setting is missing or cannot be used.
    pub fn build(self, registrar: Arc<dyn Registrar>) -> Result<AtPool, Error> {
        let options = self.options.map_err(Error::Configuration)?;
        let resource = self
            .resource
            .filter(|name| !name.is_empty())
            .ok_or_else(|| {
                Error::Configuration(
                "the pool has no resource name: call .resource(\"…\") with the operator's name \
                 for this database"
                    .to_owned(),
            )
            })?;
        if self.phase_two_connections == 0 {
            return Err(Error::Configuration(
                "phase_two_connections is 0: at least one connection must finish branches"
                    .to_owned(),
            ));
        }
        if self.step_connections == 0 {
            return Err(Error::Configuration(
                "step_connections is 0: at least one connection must do steps of sagas".to_owned(),
            ));
        }
        let phase_two = SqlitePoolOptions::new()
            .max_connections(self.phase_two_connections)
            .acquire_timeout(limits::PHASE_TWO_ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::raw_sql(SETTINGS).execute(connection).await.map(drop) })
            })
            .connect_lazy_with(own(&options));
        let branches = self.pool.clone().connect_lazy_with(own(&options));
        // None is opened before there is a step.
        let steps = self.pool.clone().min_connections(0);
        let steps = steps
            .max_connections(self.step_connections)
            .connect_lazy_with(own(&options));
        let pool = self.pool.connect_lazy_with(options);
        Ok(AtPool::from_parts(
            resource,
            [pool, branches, steps, phase_two],
            self.allowed,
            registrar,
            self.lock_wait,
        ))
    }

    /// Builds the pool and checks the database.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of [`AtPool::check`].
    pub async fn connect(self, registrar: Arc<dyn Registrar>) -> Result<AtPool, Error> {
        let pool = self.build(registrar)?;
        pool.check().await?;
        Ok(pool)
    }
}
