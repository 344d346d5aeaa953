//! A local transaction: plain, or a branch of a global one.

use std::{fmt, sync::Arc, time::Instant};

use accede_proto::{Xid, v1::Mode};
use bytes::Bytes;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Executor as _, SqliteConnection,
    sqlite::{SqliteQueryResult, SqliteRow},
};

use super::{
    CHECK,
    branch::{Begun, Branch, commit_error, undo_error},
    capture::LOG_LIMIT,
    catalog::TableInfo,
    changes::{self, Net},
    connection::Held,
    error_number,
    executor::Statement,
    plan::{Plan, plan},
    pool::AtPool,
    savepoint, session,
};
use crate::{
    at::{codec, savepoint::SavepointCommand, statement::Wait},
    clock,
    context::Kind,
    error::{Error, is_retryable},
    limits,
    registrar::{Registered, Registration},
    store::{
        finish::BranchKey, lock_check::LockCheck, outcome::Outcome, retry::Repeatable,
        state::State, watch::Watch,
    },
};

/// What a statement yields.
pub(super) type Step = Either<SqliteQueryResult, SqliteRow>;

/// A local transaction on a connection of an [`AtPool`].
///
/// While it belongs to a global transaction it is a *branch*: the images of the
/// rows that it changes are kept, and [`commit`](Self::commit) registers it with
/// the coordinator before it commits locally. Without one it is a plain
/// transaction and its statements run untouched.
///
/// It begins with the first statement; a branch takes the database's write lock then.
/// Dropping the transaction rolls it
/// back; so does dropping the future of any of its methods half-way, after
/// which only a rollback is possible.
pub struct AtTransaction {
    pool: AtPool,
    held: Held,
    state: State,
    branch: Option<Branch>,
    retryable: bool,
}

impl fmt::Debug for AtTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtTransaction")
            .field("resource", &self.pool.resource())
            .field("xid", &self.xid())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Drop for AtTransaction {
    fn drop(&mut self) {
        self.held.abandon();
    }
}

impl AtTransaction {
    pub(super) fn new(pool: AtPool, held: Held, kind: Kind) -> Self {
        let branch = Branch::new(kind, pool.lock_wait());
        Self {
            pool,
            held,
            state: State::Idle,
            branch,
            retryable: false,
        }
    }

    /// The global transaction that this one is a branch of, if it is one.
    #[must_use]
    pub fn xid(&self) -> Option<Xid> {
        self.branch.as_ref().and_then(|branch| branch.xid)
    }

    /// Commits. A branch that changed rows is registered first, its undo record
    /// written in the same local transaction.
    ///
    /// # Errors
    /// After any error the local transaction is rolled back, with one
    /// exception: [`Error::CommitUnknown`], after which the coordinator rolls
    /// the whole transaction back. [`Error::from_sqlx`] finds refusals;
    /// [`is_retryable`] says whether running the local transaction again may help.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.finish().await
    }

    /// Rolls back. Statements of a branch leave nothing behind, neither here
    /// nor at the coordinator.
    ///
    /// # Errors
    /// None; the result is that of sqlx's transactions.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.held.roll_back().await;
        Ok(())
    }

    /// The connection, for what neither writes nor locks.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.held.get()
    }

    pub(super) async fn finish(&mut self) -> Result<(), sqlx::Error> {
        match std::mem::replace(&mut self.state, State::Busy) {
            State::Idle => return Ok(()),
            State::Open => {}
            State::Busy => return Err(self.refuse_broken("a call on it was cancelled").await),
            State::Broken(reason) => return Err(self.refuse_broken(&reason).await),
        }
        let result = match self.branch.take() {
            None => self.end_locally().await,
            Some(branch) => self.finish_branch(branch).await.map_err(sqlx::Error::from),
        };
        if let Err(error) = &result {
            self.retryable = is_retryable(error);
        }
        result
    }

    async fn refuse_broken(&mut self, reason: &str) -> sqlx::Error {
        self.held.roll_back().await;
        Error::Broken {
            reason: reason.to_owned(),
        }
        .into()
    }

    async fn end_locally(&mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(self.held.get()).await?;
        self.held.clean();
        Ok(())
    }

    async fn finish_branch(&mut self, branch: Branch) -> Result<(), Error> {
        let begun = branch.begun.as_ref().expect("an open branch has begun");
        let mut net = None;
        if begun.session.capture.log_root.is_some() {
            net = Some(self.net(begun).await?);
        }
        match (net.filter(|net| !net.is_empty()), branch.xid) {
            (Some(net), Some(xid)) => return self.commit_branch(xid, branch, net).await,
            (Some(net), None) => self.check_locks(&branch, net).await?,
            // An undo record is written only for a change that remains.
            (None, _) => {}
        }
        self.end_locally()
            .await
            .map_err(Error::database("committing the branch"))
    }

    /// Waits until no global transaction may undo what was written here, for that would undo this
    /// as well.
    async fn check_locks(&mut self, branch: &Branch, net: Net) -> Result<(), Error> {
        let check = LockCheck {
            registrar: self.pool.registrar(),
            resource: self.pool.resource(),
            xid: None,
            wait_limit: &|| branch.wait_limit(),
            wait: Wait::Block,
        };
        let checked = check.ask(net.locks).await;
        if checked.is_err() {
            self.held.roll_back().await;
        }
        checked
    }

    /// What the branch has changed in the end.
    async fn net(&mut self, begun: &Begun) -> Result<Net, Error> {
        let connection = self.held.get();
        let net = changes::net(connection, &begun.catalog, self.pool.allowed()).await?;
        let changed: i64 = sqlx::query_scalar("SELECT total_changes()")
            .fetch_one(connection)
            .await
            .map_err(Error::database("reading what the branch changed"))?;
        if net.misses(changed - begun.session.total_changes) {
            tracing::error!(
                resource = self.pool.resource(),
                "rows changed that this library has not noticed; the branch is rolled back"
            );
            return Err(Error::Broken {
                reason: "rows changed that were not noticed, so that they could not be undone"
                    .to_owned(),
            });
        }
        Ok(net)
    }

    /// Register, write the undo record, commit: rule by rule so that a cancelled
    /// or failed step leaves the coordinator knowing the truth.
    async fn commit_branch(&mut self, xid: Xid, branch: Branch, net: Net) -> Result<(), Error> {
        let record = net.record.encode();
        if record.len() > limits::MAX_UNDO_BYTES {
            return Err(Error::TooLarge {
                what: format!("the branch's undo record of {} bytes", record.len()),
                limit: limits::MAX_UNDO_BYTES,
            });
        }
        let registration = Registration {
            xid,
            resource: self.pool.resource().into(),
            mode: Mode::At,
            row_locks: net.locks,
            escrow_locks: Vec::new(),
            payload: Bytes::new(),
            wait_limit: branch.wait_limit(),
            can_keep_open: false,
        };
        let registrar = Arc::clone(self.pool.registrar());
        let sent = clock::now();
        let registered = match registrar.register(registration).await {
            Ok(registered) => registered,
            Err(refused) => {
                self.held.roll_back().await;
                return Err(refused.into());
            }
        };
        let mut outcome = Outcome::new(registrar, xid, registered.branch);
        let record = codec::pack(record);
        let written = self
            .write_undo(xid, &branch, registered, sent, record)
            .await;
        if let Err(error) = written {
            outcome.withdrawn();
            self.held.roll_back().await;
            return Err(undo_error(xid, error));
        }
        outcome.sent = true;
        match self.end_locally().await {
            Ok(()) => {
                outcome.done();
                Ok(())
            }
            Err(error) => {
                let (error, certain) = commit_error(xid, error);
                if certain {
                    outcome.withdrawn();
                    self.held.roll_back().await;
                } else {
                    outcome.doomed(error.to_string());
                }
                Err(error)
            }
        }
    }

    /// Writes the undo record. Its time is NULL, which the table refuses, once the
    /// give-up time has passed on the database's clock, counted from when the branch
    /// began.
    async fn write_undo(
        &mut self,
        xid: Xid,
        branch: &Branch,
        registered: Registered,
        sent: Instant,
        record: Vec<u8>,
    ) -> Result<(), sqlx::Error> {
        let begun = branch
            .begun
            .as_ref()
            .expect("a branch with changes has begun");
        // The database began before its answer arrived: rather too early than too late.
        let left = sent.saturating_duration_since(begun.at) + registered.give_up;
        let began = begun.session.began_ms;
        let until = began.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
        let key = BranchKey {
            xid,
            branch: registered.branch,
        };
        sqlx::query(
            "INSERT INTO main.undo_log (xid, branch_id, rollback_info, log_status, log_created) \
             SELECT ?, ?, ?, 0, CASE WHEN now >= ? AND now < ? THEN now END \
             FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now)",
        )
        .bind(key.xid_column())
        .bind(key.branch_column())
        .bind(record)
        .bind(began)
        .bind(until)
        .execute(self.held.get())
        .await
        .map(drop)
    }

    /// Runs one statement. What is under way when the future is dropped leaves
    /// the transaction fit for a rollback only.
    pub(super) async fn start<'c>(
        &'c mut self,
        statement: Statement,
    ) -> Result<BoxStream<'c, Result<Step, sqlx::Error>>, sqlx::Error> {
        if self.branch.is_none() {
            self.begin_plainly().await?;
            return Ok(self.held.get().fetch_many(statement));
        }
        let command = SavepointCommand::read(statement.sql.as_str());
        let mends = matches!(command, Some(SavepointCommand::RollBackTo(_)));
        let was = match std::mem::replace(&mut self.state, State::Busy) {
            usable @ (State::Idle | State::Open) => usable,
            // If the savepoint is still there, so is the transaction.
            State::Broken(_) if mends => State::Open,
            State::Busy => return Err(self.stay_broken("a call on it was cancelled")),
            State::Broken(reason) => return Err(self.stay_broken(&reason)),
        };
        if was == State::Idle
            && let Err(error) = self.begin_branch().await
        {
            return Err(self.break_by(error));
        }
        if let Some(command) = command {
            let result = savepoint::run(
                self.held.get(),
                begun(&mut self.branch),
                &command,
                statement,
            )
            .await;
            return self.after(result);
        }
        let plan = match self.plan(&statement).await {
            Ok(plan) => plan,
            // Refused before it ran: the transaction may go on without it.
            Err(error) if Error::from_sqlx(&error).is_some() => {
                self.state = State::Open;
                return Err(error);
            }
            Err(error) => return Err(self.break_by(error)),
        };
        let written = match &*plan {
            Plan::Read => {
                self.state = State::Open;
                let state = &mut self.state;
                let steps = self.held.get().fetch_many(statement);
                // The database may have ended the transaction by itself.
                return Ok(steps
                    .inspect_err(|error| *state = State::Broken(error.to_string()))
                    .boxed());
            }
            Plan::Write { tables, replaces } => self.write(statement, tables, *replaces).await,
        };
        self.after(written)
    }

    /// What a statement leaves that ran to its end.
    fn after<'c>(
        &mut self,
        result: Result<Vec<Step>, sqlx::Error>,
    ) -> Result<BoxStream<'c, Result<Step, sqlx::Error>>, sqlx::Error> {
        match result {
            Ok(steps) => {
                self.state = State::Open;
                Ok(stream::iter(steps.into_iter().map(Ok)).boxed())
            }
            Err(error) => Err(self.break_by(error)),
        }
    }

    async fn plan(&mut self, statement: &Statement) -> Result<Arc<Plan>, sqlx::Error> {
        let begun = begun(&mut self.branch);
        plan(
            self.held.get(),
            &begun.catalog,
            self.pool.allowed(),
            begun.session.capture.log_root,
            statement.sql.as_str(),
        )
        .await
    }

    /// Runs a statement that changes rows of these tables.
    async fn write(
        &mut self,
        statement: Statement,
        tables: &[Arc<TableInfo>],
        replaces: bool,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let Begun {
            session, catalog, ..
        } = begun(&mut self.branch);
        for table in tables {
            let connection = self.held.get();
            session.capture.watch(connection, catalog, table).await?;
        }
        // Only recursive triggers hear of rows that REPLACE removes; there are no others
        // on these tables that it could make recursive.
        let switch = replaces && !session.recursive_triggers;
        if switch {
            self.held.spoil(true);
            sqlx::raw_sql("PRAGMA recursive_triggers = ON")
                .execute(self.held.get())
                .await?;
        }
        let result = self.held.get().fetch_many(statement).try_collect().await;
        if switch {
            sqlx::raw_sql("PRAGMA recursive_triggers = OFF")
                .execute(self.held.get())
                .await?;
            self.held.spoil(false);
        }
        result
    }

    fn stay_broken(&mut self, reason: &str) -> sqlx::Error {
        self.state = State::Broken(reason.to_owned());
        Error::Broken {
            reason: reason.to_owned(),
        }
        .into()
    }

    fn break_by(&mut self, error: sqlx::Error) -> sqlx::Error {
        let error = match error_number(&error) {
            _ if session::is_locked(&error) => Error::LocalLockTimedOut { source: error }.into(),
            Some(CHECK) if error.to_string().contains(LOG_LIMIT) => changes::too_many_rows().into(),
            _ => error,
        };
        self.state = State::Broken(error.to_string());
        self.retryable = is_retryable(&error);
        error
    }

    async fn begin_plainly(&mut self) -> Result<(), sqlx::Error> {
        match self.state {
            State::Open => return Ok(()),
            State::Idle => {}
            State::Busy | State::Broken(_) => {
                return Err(self.stay_broken("its BEGIN was cancelled or failed"));
            }
        }
        self.state = State::Busy;
        self.held.soil();
        sqlx::raw_sql("BEGIN").execute(self.held.get()).await?;
        self.state = State::Open;
        Ok(())
    }

    /// Takes the database's write lock, the only thing in the database that a branch
    /// waits for.
    async fn begin_branch(&mut self) -> Result<(), sqlx::Error> {
        let branch = self.branch.as_ref().expect("only called for a branch");
        let watch = Watch::new(&self.pool, branch.xid, None);
        let remaining = || branch.remaining();
        let beginning = session::begin(&mut self.held, &self.pool, &remaining);
        let session = watch.over(beginning).await?;
        let at = clock::now();
        let catalog = self.pool.catalog(self.held.get(), session.version).await?;
        let branch = self.branch.as_mut().expect("only called for a branch");
        branch.begun = Some(Begun {
            session,
            at,
            catalog,
        });
        Ok(())
    }
}

/// What the database said when the branch began.
fn begun(branch: &mut Option<Branch>) -> &mut Begun {
    branch
        .as_mut()
        .and_then(|branch| branch.begun.as_mut())
        .expect("a branch has begun before it runs a statement")
}

impl Repeatable for AtTransaction {
    fn failed_retryably(&self) -> bool {
        self.retryable
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        self.commit().await
    }

    async fn rollback(self) -> Result<(), sqlx::Error> {
        self.rollback().await
    }
}
