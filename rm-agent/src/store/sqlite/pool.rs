//! The pool of connections that takes the place of `SqlitePool`.

use std::{fmt, sync::Arc, time::Duration};

use accede_link::context::TransactionContext;
use accede_proto::Xid;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use sqlx::{Executor as _, Row as _, Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};
use tokio::sync::Semaphore;

use super::{
    builder::AtPoolBuilder,
    capture::Capture,
    catalog::{self, Catalog},
    connection::Held,
    executor::Statement,
    plan::{Allowed, Plan, plan},
    start_check,
    transaction::{AtTransaction, Step},
    turns::Turns,
};
use crate::{
    context::Kind,
    error::Error,
    registrar::Registrar,
    store::{
        retry::{Retry, repeat},
        watch::{Watch, Watched},
    },
};

/// A pool of connections to one SQLite database whose transactions take part in
/// global ones. Cheap to clone; all clones share the connections.
///
/// `&AtPool` is itself an sqlx executor: a lone statement of a global transaction is a
/// branch of its own, and runs again by itself when it was refused for a passing
/// reason.
///
/// What differs from `SqlitePool` while the task works for a global transaction:
///
/// - A transaction takes the database's write lock with its first statement (`BEGIN
///   IMMEDIATE`), even if it only reads. So there is one branch at a time; others wait
///   in `begin`'s first statement, for as long as `lock_wait` says.
/// - Statements that cannot be undone exactly are refused before they run, with
///   [`Error::Statement`] or [`Error::Table`].
/// - A failed statement leaves only a rollback.
/// - Branches run on connections of their own, which are as many as the plain ones and
///   always synchronise fully. `total_changes()` counts this library's notes too.
#[derive(Clone)]
pub struct AtPool {
    inner: Arc<Inner>,
}

struct Inner {
    resource: Arc<str>,
    pool: SqlitePool,
    branches: SqlitePool,
    steps: SqlitePool,
    phase_two: SqlitePool,
    allowed: Allowed,
    catalog: Mutex<Option<Arc<Catalog>>>,
    registrar: Arc<dyn Registrar>,
    lock_wait: Duration,
    questions: Semaphore,
    turns: Turns,
}

impl fmt::Debug for AtPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtPool")
            .field("resource", &self.inner.resource)
            .field("pool", &self.inner.pool)
            .finish_non_exhaustive()
    }
}

impl AtPool {
    /// Starts to describe a pool for the database at `url`
    /// (`sqlite:///path/to/file.db`).
    pub fn builder(url: &str) -> AtPoolBuilder {
        AtPoolBuilder::from_url(url)
    }

    pub(super) fn from_parts(
        resource: Arc<str>,
        [pool, branches, steps, phase_two]: [SqlitePool; 4],
        allowed: Allowed,
        registrar: Arc<dyn Registrar>,
        lock_wait: Duration,
    ) -> Self {
        let inner = Inner {
            resource,
            pool,
            branches,
            steps,
            phase_two,
            allowed,
            catalog: Mutex::default(),
            registrar,
            lock_wait,
            questions: Semaphore::new(1),
            turns: Turns::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The operator's name for the database.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.inner.resource
    }

    /// sqlx's own pool, for work that shall never take part in a global
    /// transaction (migrations, for example).
    #[must_use]
    pub fn plain(&self) -> &SqlitePool {
        &self.inner.pool
    }

    /// The few connections on which steps of sagas are done.
    pub(crate) fn steps(&self) -> &SqlitePool {
        &self.inner.steps
    }

    /// The few connections that finish branches.
    pub(crate) fn phase_two(&self) -> &SqlitePool {
        &self.inner.phase_two
    }

    /// The connections of branches.
    pub(super) fn branches(&self) -> &SqlitePool {
        &self.inner.branches
    }

    pub(super) fn turns(&self) -> &Turns {
        &self.inner.turns
    }

    pub(super) fn allowed(&self) -> &Allowed {
        &self.inner.allowed
    }

    /// The catalog at this version of the schema, which is that of the connection's open
    /// transaction.
    pub(super) async fn catalog(
        &self,
        connection: &mut SqliteConnection,
        version: i64,
    ) -> Result<Arc<Catalog>, sqlx::Error> {
        let known = self.inner.catalog.lock().clone();
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(known);
        }
        let read = Arc::new(catalog::read(connection, version).await?);
        *self.inner.catalog.lock() = Some(Arc::clone(&read));
        Ok(read)
    }

    pub(super) fn registrar(&self) -> &Arc<dyn Registrar> {
        &self.inner.registrar
    }

    pub(super) fn lock_wait(&self) -> Duration {
        self.inner.lock_wait
    }

    /// Checks that the database can be reached and has this library's tables.
    ///
    /// # Errors
    /// [`Error::Schema`] names what is missing and the command that creates it;
    /// [`Error::Database`] when the database cannot be reached: try again later.
    pub async fn check(&self) -> Result<(), Error> {
        start_check::check(&self.inner.phase_two).await
    }

    /// Checks that the database can keep fences.
    pub(crate) async fn check_fences(&self) -> Result<(), Error> {
        start_check::check_fences(&self.inner.phase_two).await
    }

    /// Opens a transaction: a branch of the global transaction that the running
    /// task works for, or a plain local one if it works for none; one that looks at row
    /// locks in a scope of [`global_lock`](crate::global_lock).
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin(&self) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::of_task()).await
    }

    /// Opens a branch of the global transaction `xid`, whatever the task works for.
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin_in(&self, xid: Xid) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::Branch(TransactionContext::new(xid)))
            .await
    }

    /// Opens a local transaction outside of any global one that respects those: before it
    /// commits, no global transaction may undo the rows that it wrote any more. What
    /// [`global_lock`](crate::global_lock) is for a whole task. Inside a global transaction it
    /// is a branch like any other.
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin_checked(&self) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::checked()).await
    }

    /// Opens a plain local transaction, whatever the task works for.
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin_plain(&self) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::Plain).await
    }

    /// A connection for a branch, or for work outside of any transaction.
    async fn acquire(&self, kind: Kind) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let pool = match kind {
            Kind::Plain => &self.inner.pool,
            Kind::Checked(_) | Kind::Branch(_) => &self.inner.branches,
        };
        let watch = Watch::new(self, kind.xid(), None);
        Ok(watch.over(self.lend(pool)).await?)
    }

    /// A connection of one of the application's pools.
    pub(super) async fn lend(&self, pool: &SqlitePool) -> Result<PoolConnection<Sqlite>, Error> {
        match pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) => {
                let most = pool.options().get_max_connections();
                Err(Error::NoConnection {
                    resource: Arc::clone(&self.inner.resource),
                    waited: pool.options().get_acquire_timeout(),
                    reason: format!(
                        "all {most} are in use; end transactions sooner, or allow more of them"
                    ),
                })
            }
            result => result.map_err(Error::database("taking a connection")),
        }
    }

    async fn begin_with(&self, kind: Kind) -> Result<AtTransaction, sqlx::Error> {
        let held = Held::new(self.acquire(kind).await?);
        Ok(AtTransaction::new(self.clone(), held, kind))
    }

    /// Runs `work` in a transaction, commits it if `work` returns `Ok` and rolls
    /// it back if not; runs it all again, a bounded number of times, when it
    /// failed for a passing reason: the holder of a row lock is rolling back, or
    /// stands still in a database, and needs this branch out of its way, or somebody
    /// else had the database's write lock. `work` must therefore be safe to repeat.
    ///
    /// ```no_run
    /// # async fn example(pool: accede_rm_agent::sqlite::AtPool) -> Result<(), sqlx::Error> {
    /// pool.run(|tx| {
    ///     Box::pin(async move {
    ///         sqlx::query("UPDATE stock SET count = count - 1 WHERE product = ?")
    ///             .bind(7_i64)
    ///             .execute(tx)
    ///             .await?;
    ///         Ok::<_, sqlx::Error>(())
    ///     })
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The last error of `work` or of the commit.
    pub async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'t> FnMut(&'t mut AtTransaction) -> BoxFuture<'t, Result<T, E>>,
        E: From<sqlx::Error>,
    {
        repeat(|| self.begin(), work).await
    }

    /// A lone statement.
    pub(super) async fn start<'c>(
        &'c self,
        statement: Statement,
    ) -> Result<BoxStream<'c, Result<Step, sqlx::Error>>, sqlx::Error> {
        let kind = Kind::of_task();
        if matches!(kind, Kind::Plain) {
            return Ok(self.inner.pool.fetch_many(statement));
        }
        if self.reads_only(&statement, kind).await? {
            return Ok(self.inner.pool.fetch_many(statement));
        }
        let mut retry = Retry::new();
        loop {
            match self.run_alone(statement.clone(), kind).await {
                Ok(steps) => return Ok(stream::iter(steps.into_iter().map(Ok)).boxed()),
                Err(error) if retry.may_repeat(&error) => retry.pause(Some(&error)).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// What only reads stays so, whatever the schema.
    async fn reads_only(&self, statement: &Statement, kind: Kind) -> Result<bool, sqlx::Error> {
        let sql = statement.sql.as_str();
        let known = self.inner.catalog.lock().clone();
        if let Some(plan) = known.and_then(|catalog| catalog.remembered(sql)) {
            return Ok(matches!(*plan, Plan::Read));
        }
        let mut held = Held::new(self.acquire(kind).await?);
        held.soil();
        // One snapshot, so that the version is that of all else.
        sqlx::raw_sql("BEGIN").execute(held.get()).await?;
        let version: i64 = sqlx::query("PRAGMA schema_version")
            .fetch_one(held.get())
            .await?
            .try_get_unchecked(0)?;
        let catalog = self.catalog(held.get(), version).await?;
        let notes = Capture::read(held.get()).await?.log_root;
        let plan = plan(held.get(), &catalog, self.allowed(), notes, sql).await;
        held.roll_back().await;
        Ok(matches!(*plan?, Plan::Read))
    }

    async fn run_alone(&self, statement: Statement, kind: Kind) -> Result<Vec<Step>, sqlx::Error> {
        let mut transaction = self.begin_with(kind).await?;
        let result = match transaction.start(statement).await {
            Ok(steps) => steps.try_collect().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(steps) => transaction.commit().await.map(|()| steps),
            Err(error) => {
                // The connection is closed if this fails, which rolls back as well.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }
}

impl Watched for AtPool {
    fn registrar(&self) -> &Arc<dyn Registrar> {
        &self.inner.registrar
    }

    fn resource(&self) -> &str {
        &self.inner.resource
    }

    fn questions(&self) -> &Semaphore {
        &self.inner.questions
    }

    /// A branch only waits where it takes the write lock; there it has no session yet,
    /// and is not asked about.
    fn waits(&self, _: i64) -> BoxFuture<'_, Option<bool>> {
        Box::pin(std::future::ready(None))
    }
}
