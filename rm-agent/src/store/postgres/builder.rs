//! Describes an [`AtPool`](super::AtPool).

use std::{str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    Connection as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    connection::Lender,
    plan::{Allowed, Planner},
    pool::AtPool,
};
use crate::{at::escrow::Bounds, error::Error, limits, registrar::Registrar};

/// Asks connections whether they live if they were not used for a while.
fn tested_when_idle() -> PgPoolOptions {
    PgPoolOptions::new()
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                if metadata.idle_for > limits::POOL_TEST_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// Collects the settings of an [`AtPool`]. Every default stands in [`limits`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` or `connect`"]
pub struct AtPoolBuilder {
    options: Result<PgConnectOptions, String>,
    pool: PgPoolOptions,
    /// The pool has the application's own settings.
    own_pool: bool,
    phase_two_connections: u32,
    step_connections: u32,
    resource: Option<Arc<str>>,
    lock_wait: Duration,
    full_images: bool,
    allowed: Allowed,
}

impl AtPoolBuilder {
    pub(super) fn from_url(url: &str) -> Self {
        // The URL may hold a password; it is not repeated.
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| format!("the database URL cannot be used: {error}"));
        Self {
            options,
            pool: tested_when_idle()
                .max_connections(limits::POOL_CONNECTIONS)
                .acquire_timeout(limits::POOL_ACQUIRE_TIMEOUT),
            own_pool: false,
            phase_two_connections: limits::PHASE_TWO_CONNECTIONS,
            step_connections: limits::STEP_CONNECTIONS,
            resource: None,
            lock_wait: limits::LOCK_WAIT,
            full_images: false,
            allowed: Allowed::default(),
        }
    }

    /// The operator's name for the database, the same in all services that use
    /// it. Required.
    pub fn resource(mut self, name: &str) -> Self {
        self.resource = Some(name.into());
        self
    }

    /// The most connections for the application's work.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.pool = self.pool.max_connections(connections);
        self
    }

    /// How long `begin` waits for a connection.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.pool = self.pool.acquire_timeout(timeout);
        self
    }

    /// sqlx's own settings of the application's pool, in place of those made so far.
    /// Each transaction then takes its connection from the pool and gives it back,
    /// with whatever these settings do then, which is a round trip more.
    pub fn pool_options(mut self, options: PgPoolOptions) -> Self {
        self.pool = options;
        self.own_pool = true;
        self
    }

    /// sqlx's own settings of each connection, in place of the URL.
    pub fn connect_options(mut self, options: PgConnectOptions) -> Self {
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

    /// Allows writes to `table` (or `schema.table`) although it has this
    /// trigger. Right for triggers that only change the row itself; what a
    /// trigger does to other rows is not undone.
    pub fn allow_trigger(mut self, table: &str, trigger: &str) -> Self {
        self.allowed
            .triggers
            .insert((table.to_owned(), trigger.to_owned()));
        self
    }

    /// Allows statements that call this VOLATILE function. What it writes is
    /// not undone.
    pub fn allow_function(mut self, name: &str) -> Self {
        self.allowed.functions.insert(name.to_owned());
        self
    }

    /// Says that others may change this column of `table` (or `schema.table`) while a
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

    /// Records every column of the rows that a branch changes, in place of those that it
    /// changed and those of keys and unique indexes. Then an undo finds any change that others
    /// made to such a row, also to columns that the branch left alone, and is stuck; and a
    /// row that others deleted can be brought back by a repair. Undo records grow by what
    /// the rows hold.
    pub fn full_images(mut self) -> Self {
        self.full_images = true;
        self
    }

    /// Lets several transactions add to this integer column of `table` (or
    /// `schema.table`) at the same time, as to the stock of a product that everybody
    /// buys: none waits for the end of the others, as long as the column stays in
    /// `bounds` whichever of them roll back. Right where nobody relies on what the
    /// column holds, but only on its bounds.
    ///
    /// It holds for `UPDATE … SET count = count - $1` (or `+`, with a value that no
    /// column is part of) that returns and compares the column nowhere, except for
    /// `count >= $1` where it takes that much. Such a change is undone by its inverse.
    /// Every other write takes the row for itself as usual. A change that leaves the
    /// bounds is [`Error::OutOfBounds`]. Every service that writes the table must list
    /// the column with the same bounds.
    pub fn escrow_column(
        mut self,
        table: &str,
        column: &str,
        bounds: std::ops::RangeInclusive<i64>,
    ) -> Self {
        let (lower, upper) = bounds.into_inner();
        self.allowed.escrow.insert(
            (table.to_owned(), column.to_owned()),
            Bounds { lower, upper },
        );
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
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        let phase_two_options = options.clone().options([
            ("lock_timeout", milliseconds(limits::PHASE_TWO_LOCK_TIMEOUT)),
            (
                "statement_timeout",
                milliseconds(limits::PHASE_TWO_STATEMENT_TIMEOUT),
            ),
            ("synchronous_commit", "on".to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            // Plans are kept. One made while a table is nearly empty would read all of it for each
            // key, also when it has grown. Where there is no other way, a whole table counts as so
            // dear that the server would compile the plan.
            ("enable_seqscan", "off".to_owned()),
            ("jit", "off".to_owned()),
            // Text forms in undo records were written so.
            ("intervalstyle", "postgres".to_owned()),
            ("xmloption", "content".to_owned()),
        ]);
        let phase_two = tested_when_idle()
            .max_connections(self.phase_two_connections)
            .acquire_timeout(limits::PHASE_TWO_ACQUIRE_TIMEOUT)
            .connect_lazy_with(phase_two_options);
        // As the application has its connections; none is opened before there is a step.
        let steps = self.pool.clone().min_connections(0);
        let steps = steps
            .max_connections(self.step_connections)
            .connect_lazy_with(options.clone());
        let stepper = Lender::new(steps, !self.own_pool);
        let lender = Lender::new(self.pool.connect_lazy_with(options), !self.own_pool);
        let planner = Planner::new(self.allowed);
        Ok(AtPool::from_parts(
            resource,
            (lender, stepper, phase_two),
            planner,
            registrar,
            self.lock_wait,
            self.full_images,
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
