//! The pool of connections that takes the place of `MySqlPool`.

use std::{fmt, sync::Arc, time::Duration};

use accede_link::context::TransactionContext;
use accede_proto::Xid;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{Executor as _, MySqlPool};

use tokio::sync::Semaphore;

use super::{
    builder::AtPoolBuilder,
    connection::{Held, Lender},
    executor::Statement,
    plan::{Plan, Planner},
    start_check,
    transaction::{AtTransaction, Step},
    xa::{Known, Local, Parked, XaPool},
};
use crate::{
    context::Kind,
    error::Error,
    registrar::Registrar,
    store::{
        finish::BranchKey,
        retry::{Retry, repeat},
        watch::{Watch, Watched},
        xa::{
            Ending,
            kept_open::KeptOpen,
            open::{self, End, KeepsOpen, Open, Vote},
        },
    },
};

/// A pool of connections to one MariaDB database whose transactions take part in
/// global ones. Cheap to clone; all clones share the connections.
///
/// `&AtPool` is itself an sqlx executor: a lone statement of a global transaction is a
/// branch of its own, and runs again by itself when it was refused for a passing
/// reason.
///
/// What differs from `MySqlPool` while the task works for a global transaction:
///
/// - Rows of `INSERT … RETURNING` carry further columns at their end,
///   `accede_after0`, …; rows of `SELECT … FOR UPDATE` carry `accede_lock0`, ….
///   Ignore them.
/// - Statements that cannot be undone exactly are refused before they run, with
///   [`Error::Statement`] or [`Error::Table`].
/// - After a deadlock or a lock time-out, only a rollback is left.
/// - `UPDATE` and `DELETE` lock and read their rows first, then change just these.
/// - A new trigger, foreign key or unique index is noticed within
///   [`METADATA_RECHECK`](crate::limits::METADATA_RECHECK).
///
/// A `TEMPORARY TABLE` hides the table of its name from this library as well: make none
/// with the name of a table that branches write.
#[derive(Clone)]
pub struct AtPool {
    inner: Arc<Inner>,
}

struct Inner {
    resource: Arc<str>,
    database: String,
    lender: Arc<Lender>,
    /// Lends connections to steps of sagas.
    stepper: Arc<Lender>,
    phase_two: MySqlPool,
    /// Lends the same connections to handlers that finish branches.
    finisher: Arc<Lender>,
    planner: Planner,
    registrar: Arc<dyn Registrar>,
    lock_wait: Duration,
    full_images: bool,
    questions: Semaphore,
    xa: Known,
    kept_open: KeptOpen<Open<Local>>,
    parked: Parked,
}

impl fmt::Debug for AtPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtPool")
            .field("resource", &self.inner.resource)
            .field("pool", self.plain())
            .finish_non_exhaustive()
    }
}

impl AtPool {
    /// Starts to describe a pool for the database at `url`
    /// (`mysql://user:password@host:port/database`).
    pub fn builder(url: &str) -> AtPoolBuilder {
        AtPoolBuilder::from_url(url)
    }

    pub(super) fn from_parts(
        resource: Arc<str>,
        database: String,
        (lender, stepper, phase_two): (Arc<Lender>, Arc<Lender>, MySqlPool),
        planner: Planner,
        registrar: Arc<dyn Registrar>,
        lock_wait: Duration,
        full_images: bool,
    ) -> Self {
        let inner = Inner {
            finisher: Lender::new(phase_two.clone(), true),
            resource,
            database,
            lender,
            stepper,
            phase_two,
            planner,
            registrar,
            lock_wait,
            full_images,
            questions: Semaphore::new(1),
            xa: Known::default(),
            kept_open: KeptOpen::default(),
            parked: Parked::default(),
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
    pub fn plain(&self) -> &MySqlPool {
        self.inner.lender.pool()
    }

    /// The few connections on which steps of sagas are done.
    pub(crate) fn steps(&self) -> &MySqlPool {
        self.inner.stepper.pool()
    }

    /// The few connections that finish branches.
    pub(crate) fn phase_two(&self) -> &MySqlPool {
        &self.inner.phase_two
    }

    /// The database that all sessions of the pool use.
    pub(super) fn database(&self) -> &str {
        &self.inner.database
    }

    /// One of them, which comes back to them by itself.
    pub(super) async fn lend_to_finish(&self) -> Result<Held, sqlx::Error> {
        self.inner.finisher.lend().await
    }

    /// A pool whose branches the database prepares, over the same connections.
    #[must_use]
    pub fn xa(&self) -> XaPool {
        XaPool::new(self.clone())
    }

    pub(super) fn xa_known(&self) -> &Known {
        &self.inner.xa
    }

    /// Connections on which a branch is prepared.
    pub(super) fn parked(&self) -> &Parked {
        &self.inner.parked
    }

    /// Keeps so many branches open from now on; fewer, where the pool has too few connections for
    /// that and other work.
    pub(crate) fn keep_open(&self, most: usize) {
        let connections = self.plain().options().get_max_connections();
        self.inner.kept_open.allow_of(connections, most);
    }

    /// Keeps none open any more, and prepares those that are.
    pub(crate) async fn end_open(&self) {
        open::end_all(self).await;
    }

    pub(super) fn planner(&self) -> &Planner {
        &self.inner.planner
    }

    pub(super) fn registrar(&self) -> &Arc<dyn Registrar> {
        &self.inner.registrar
    }

    pub(super) fn lock_wait(&self) -> Duration {
        self.inner.lock_wait
    }

    pub(super) fn full_images(&self) -> bool {
        self.inner.full_images
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
        self.begin_with(Kind::of_task(), Ending::Recorded).await
    }

    /// Opens a branch of the global transaction `xid`, whatever the task works for.
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin_in(&self, xid: Xid) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::Branch(TransactionContext::new(xid)), Ending::Recorded)
            .await
    }

    /// Opens a local transaction outside of any global one that respects those: before it
    /// commits, and before rows of `SELECT … FOR UPDATE` are seen, no global transaction may
    /// undo the rows any more. What [`global_lock`](crate::global_lock) is for a whole task.
    /// Inside a global transaction it is a branch like any other.
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin_checked(&self) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::checked(), Ending::Recorded).await
    }

    /// Opens a plain local transaction, whatever the task works for.
    ///
    /// # Errors
    /// [`Error::NoConnection`] says why none is free or can be made in time.
    pub async fn begin_plain(&self) -> Result<AtTransaction, sqlx::Error> {
        self.begin_with(Kind::Plain, Ending::Recorded).await
    }

    /// A connection for a branch, or for work outside of any transaction.
    pub(super) async fn acquire(&self, kind: Kind) -> Result<Held, sqlx::Error> {
        let watch = Watch::new(self, kind.xid(), None);
        Ok(watch.over(self.lend()).await?)
    }

    /// A connection of the application's pool.
    pub(super) async fn lend(&self) -> Result<Held, Error> {
        let Inner {
            lender, resource, ..
        } = &*self.inner;
        let lent = self.inner.parked.yield_to(lender.lend()).await;
        lender.explained(lent, resource).await
    }

    /// One of those for steps of sagas.
    pub(super) async fn lend_to_step(&self) -> Result<Held, Error> {
        let Inner {
            stepper, resource, ..
        } = &*self.inner;
        stepper.explained(stepper.lend().await, resource).await
    }

    pub(super) async fn begin_with(
        &self,
        kind: Kind,
        ending: Ending,
    ) -> Result<AtTransaction, sqlx::Error> {
        let connection = self.acquire(kind).await?;
        Ok(AtTransaction::new(self.clone(), connection, kind, ending))
    }

    /// Runs `work` in a transaction, commits it if `work` returns `Ok` and rolls
    /// it back if not; runs it all again, a bounded number of times, when it
    /// failed for a passing reason: the holder of a row lock is rolling back, or
    /// stands still in a database, and
    /// needs this branch out of its way, or the database reported a deadlock or
    /// a serialization failure. `work` must therefore be safe to repeat.
    ///
    /// ```no_run
    /// # async fn example(pool: accede_rm_agent::mariadb::AtPool) -> Result<(), sqlx::Error> {
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
            return Ok(self.plain().fetch_many(statement));
        }
        if statement.pieces().is_none() && self.reads_only(&statement, kind).await? {
            return Ok(self.plain().fetch_many(statement));
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

    async fn reads_only(&self, statement: &Statement, kind: Kind) -> Result<bool, sqlx::Error> {
        let sql = statement.sql.as_str();
        let plan = match self.planner().remembered(sql) {
            Some(plan) => plan,
            None => {
                let mut connection = self.acquire(kind).await?;
                self.planner().plan(sql, connection.get()).await?
            }
        };
        Ok(matches!(*plan, Plan::Read))
    }

    async fn run_alone(&self, statement: Statement, kind: Kind) -> Result<Vec<Step>, sqlx::Error> {
        let mut transaction = self.begin_with(kind, Ending::Recorded).await?;
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

    /// Only users with the PROCESS privilege get an answer.
    fn waits(&self, backend: i64) -> BoxFuture<'_, Option<bool>> {
        Box::pin(async move {
            sqlx::query_scalar::<_, i64>(
                "SELECT COUNT(*) FROM information_schema.INNODB_TRX
                 WHERE trx_mysql_thread_id = ? AND trx_state = 'LOCK WAIT'",
            )
            .bind(backend)
            .fetch_one(self.phase_two())
            .await
            .ok()
            .map(|waiting| waiting > 0)
        })
    }
}

impl KeepsOpen for AtPool {
    type Local = Local;

    fn kept_open(&self) -> &KeptOpen<Open<Local>> {
        &self.inner.kept_open
    }

    fn is_waited_for(&self) -> bool {
        self.inner.lender.is_waited_for()
    }

    async fn end_local(&self, key: BranchKey, local: &mut Local, end: End) -> Vote {
        local.end(self, key, end).await
    }

    async fn roll_back_local(local: &mut Local) -> bool {
        local.roll_back().await
    }
}
