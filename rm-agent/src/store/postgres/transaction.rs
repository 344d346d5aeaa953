//! A local transaction: plain, or a branch of a global one.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use accede_link::context::TransactionContext;
use accede_proto::Xid;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Executor as _, PgConnection, Row as _,
    postgres::{PgQueryResult, PgRow},
};

use super::{
    connection::Held,
    executor::Statement,
    plan::{Plan, WritePlan},
    pool::AtPool,
};
use crate::{
    at::{
        image::{ImageError, RowImage},
        lock_key,
        table::Table,
        undo::Changes,
    },
    clock,
    error::{Error, is_retryable, sql_state},
    limits,
    registrar::{Registered, Registrar, Registration},
};

/// What a statement yields.
pub(super) type Step = Either<PgQueryResult, PgRow>;

/// A local transaction on a connection of an [`AtPool`].
///
/// While it belongs to a global transaction it is a *branch*: the images of the
/// rows that it changes are kept, and [`commit`](Self::commit) registers it with
/// the coordinator before it commits locally. Without one it is a plain
/// transaction and its statements run untouched.
///
/// `BEGIN` goes out with the first statement. Dropping the transaction rolls it
/// back; so does dropping the future of any of its methods half-way, after
/// which only a rollback is possible.
pub struct AtTransaction {
    pool: AtPool,
    held: Held,
    state: State,
    branch: Option<Branch>,
    retryable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    Idle,
    /// A message is under way. Staying here means that it was cancelled.
    Busy,
    /// The database has an open transaction.
    Open,
    /// Only a rollback is possible.
    Broken(String),
}

/// What a branch keeps beside its open local transaction.
#[derive(Debug)]
struct Branch {
    xid: Xid,
    started: Instant,
    patience: Duration,
    /// The database's clock in microseconds since 1970, and when it was received.
    clock: Option<(i64, Instant)>,
    force_durability: bool,
    changes: Changes,
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
    pub(super) fn new(pool: AtPool, held: Held, context: Option<TransactionContext>) -> Self {
        let branch = context.map(|context| {
            let patience = pool.lock_wait();
            Branch {
                xid: context.xid(),
                started: clock::now(),
                patience: context
                    .remaining()
                    .map_or(patience, |left| left.min(patience)),
                clock: None,
                force_durability: false,
                changes: Changes::default(),
            }
        });
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
        self.branch.as_ref().map(|branch| branch.xid)
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
    /// When the connection broke; then the database rolls back by itself.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.held.roll_back().await
    }

    /// The connection, for what neither writes nor locks.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.held.get()
    }

    /// Whether the last failure was a passing one.
    pub(super) fn failed_retryably(&self) -> bool {
        self.retryable
    }

    pub(super) async fn finish(&mut self) -> Result<(), sqlx::Error> {
        match std::mem::replace(&mut self.state, State::Busy) {
            State::Idle => return Ok(()),
            State::Open => {}
            State::Busy => return Err(self.refuse_broken("a call on it was cancelled").await),
            State::Broken(reason) => return Err(self.refuse_broken(&reason).await),
        }
        let result = match self.branch.take() {
            None => self.end_locally("COMMIT").await,
            // An undo record is written only for a change that remains.
            Some(branch) if branch.changes.is_empty() => self.end_locally("COMMIT").await,
            Some(branch) => self.commit_branch(branch).await.map_err(sqlx::Error::from),
        };
        if let Err(error) = &result {
            self.retryable = is_retryable(error);
        }
        result
    }

    async fn refuse_broken(&mut self, reason: &str) -> sqlx::Error {
        // The connection is closed if this fails, which rolls back as well.
        let _ = self.held.roll_back().await;
        Error::Broken {
            reason: reason.to_owned(),
        }
        .into()
    }

    async fn end_locally(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statement).execute(self.held.get()).await?;
        self.held.clean();
        Ok(())
    }

    /// Register, write the undo record, commit: rule by rule so that a cancelled
    /// or failed step leaves the coordinator knowing the truth.
    async fn commit_branch(&mut self, mut branch: Branch) -> Result<(), Error> {
        let record = branch.changes.take_record().encode();
        if record.len() > limits::MAX_UNDO_BYTES {
            return Err(Error::TooLarge {
                what: format!("the branch's undo record of {} bytes", record.len()),
                limit: limits::MAX_UNDO_BYTES,
            });
        }
        let registration = Registration {
            xid: branch.xid,
            resource: self.pool.resource().into(),
            row_locks: branch
                .changes
                .locks()
                .map(|key| key.as_slice().into())
                .collect(),
            wait_limit: branch.wait_limit(),
        };
        let registrar = Arc::clone(self.pool.registrar());
        let sent = clock::now();
        let registered = match registrar.register(registration).await {
            Ok(registered) => registered,
            Err(refused) => {
                let _ = self.held.roll_back().await;
                return Err(refused.into());
            }
        };
        let mut outcome = Outcome::new(registrar, branch.xid, registered.branch);
        let message = branch.commit_message(registered, sent, &record);
        outcome.sent = true;
        let committed = sqlx::raw_sql(sqlx::AssertSqlSafe(message))
            .execute(self.held.get())
            .await;
        match committed {
            Ok(_) => {
                self.held.clean();
                outcome.done();
                Ok(())
            }
            Err(error) => {
                let certain = rolled_back_for_sure(&error);
                let error = branch.commit_error(error, certain);
                if certain {
                    outcome.withdrawn();
                    let _ = self.held.roll_back().await;
                } else {
                    outcome.doomed(error.to_string());
                }
                Err(error)
            }
        }
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
        let was = match std::mem::replace(&mut self.state, State::Busy) {
            usable @ (State::Idle | State::Open) => usable,
            State::Busy => return Err(self.stay_broken("a call on it was cancelled")),
            State::Broken(reason) => return Err(self.stay_broken(&reason)),
        };
        let planned = self
            .pool
            .planner()
            .plan(statement.sql.as_str(), self.held.get())
            .await;
        let plan = match planned {
            Ok(plan) => plan,
            Err(error @ Error::Database { .. }) => return Err(self.break_by(error.into())),
            // Refused before it ran: the transaction may go on without it.
            Err(error) => {
                self.state = was;
                return Err(error.into());
            }
        };
        if was == State::Idle
            && let Err(error) = self.begin_branch().await
        {
            return Err(self.break_by(error));
        }
        let steps = match &*plan {
            Plan::Read => {
                self.state = State::Open;
                let state = &mut self.state;
                let steps = self.held.get().fetch_many(statement);
                // A failed statement makes COMMIT a silent rollback.
                return Ok(steps
                    .inspect_err(|error| *state = State::Broken(error.to_string()))
                    .boxed());
            }
            Plan::Locking { sql, tables } => self.run_locking(statement, sql, tables).await,
            Plan::Write(plan) => self.run_write(statement, plan).await,
        };
        match steps {
            Ok(steps) => {
                self.state = State::Open;
                Ok(stream::iter(steps.into_iter().map(Ok)).boxed())
            }
            Err(error) => {
                let changed = matches!(Error::from_sqlx(&error), Some(Error::TableChanged { .. }))
                    || matches!(
                        sql_state(&error).as_deref(),
                        Some("42703" | "42P01" | "0A000")
                    );
                if changed {
                    self.pool.planner().forget();
                }
                Err(self.break_by(error))
            }
        }
    }

    fn stay_broken(&mut self, reason: &str) -> sqlx::Error {
        self.state = State::Broken(reason.to_owned());
        Error::Broken {
            reason: reason.to_owned(),
        }
        .into()
    }

    fn break_by(&mut self, error: sqlx::Error) -> sqlx::Error {
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

    /// BEGIN, the lock time-out and the database's clock in one message.
    async fn begin_branch(&mut self) -> Result<(), sqlx::Error> {
        let branch = self.branch.as_mut().expect("only called for a branch");
        let lock_timeout = branch.remaining().max(limits::MIN_LOCK_TIMEOUT).as_millis();
        let message = format!(
            "BEGIN; SET LOCAL lock_timeout = {lock_timeout}; \
             SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
             current_setting('synchronous_commit')"
        );
        self.held.soil();
        let rows = self
            .held
            .get()
            .fetch_all(sqlx::raw_sql(sqlx::AssertSqlSafe(message)))
            .await?;
        let received = clock::now();
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        branch.clock = Some((row.try_get(0)?, received));
        branch.force_durability = row.try_get::<&str, _>(1)? == "off";
        Ok(())
    }

    async fn run_write(
        &mut self,
        statement: Statement,
        plan: &WritePlan,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let branch = self.branch.as_mut().expect("only called for a branch");
        let steps = collect(self.held.get(), statement.with_images(&plan.sql)).await?;
        for row in steps.iter().filter_map(|step| step.as_ref().right()) {
            let mut column = row.len();
            let after = plan
                .has_after
                .then(|| image(row, &mut column, &plan.table))
                .transpose()?;
            let before = plan
                .has_before
                .then(|| image(row, &mut column, &plan.table))
                .transpose()?;
            branch.changes.record(&plan.table, before, after)?;
        }
        Ok(if plan.returns {
            steps
        } else {
            steps.into_iter().filter(|step| step.is_left()).collect()
        })
    }

    /// The rows are read and locked; before the user sees them, the coordinator
    /// says that no other transaction may still undo them.
    async fn run_locking(
        &mut self,
        statement: Statement,
        sql: &Arc<str>,
        tables: &[Arc<Table>],
    ) -> Result<Vec<Step>, sqlx::Error> {
        let branch = self.branch.as_ref().expect("only called for a branch");
        let steps = collect(self.held.get(), statement.with_images(sql)).await?;
        let mut keys = std::collections::BTreeSet::new();
        for row in steps.iter().filter_map(|step| step.as_ref().right()) {
            let mut column = row.len();
            for table in tables.iter().rev() {
                keys.insert(lock_key::primary_key(
                    table,
                    &image(row, &mut column, table)?,
                ));
            }
        }
        if keys.is_empty() {
            return Ok(steps);
        }
        if keys.len() > limits::MAX_ROW_LOCKS {
            return Err(Error::TooLarge {
                what: format!("the number of rows locked by FOR UPDATE, {}", keys.len()),
                limit: limits::MAX_ROW_LOCKS,
            }
            .into());
        }
        let check = Registration {
            xid: branch.xid,
            resource: self.pool.resource().into(),
            row_locks: keys.into_iter().map(Into::into).collect(),
            wait_limit: branch.wait_limit(),
        };
        self.pool
            .registrar()
            .check_locks(check)
            .await
            .map_err(Error::from)?;
        Ok(steps)
    }
}

impl Branch {
    /// What is left of the branch's patience.
    fn remaining(&self) -> Duration {
        self.patience
            .saturating_sub(clock::now().saturating_duration_since(self.started))
    }

    fn wait_limit(&self) -> Duration {
        self.remaining().saturating_sub(limits::LOCK_WAIT_MARGIN)
    }

    /// The undo record and COMMIT as one message. The row's time is NULL, which
    /// the table refuses, once the database's clock has passed the give-up time.
    fn commit_message(&self, registered: Registered, sent: Instant, record: &[u8]) -> String {
        let (clock, received) = self.clock.expect("a branch with changes has begun");
        // Counted from when the clock's answer arrived: rather too early than too late.
        let elapsed = sent.saturating_duration_since(received) + registered.give_up;
        let give_up = clock.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX));
        let mut message = String::with_capacity(2 * record.len() + 400);
        if self.force_durability {
            message.push_str("SET LOCAL synchronous_commit = on; ");
        }
        use fmt::Write as _;
        let _ = write!(
            message,
            "INSERT INTO undo_log (xid, branch_id, rollback_info, log_status, log_created) \
             VALUES ({}, {}, '\\x",
            self.xid.as_u64(),
            registered.branch,
        );
        for byte in record {
            for digit in [byte >> 4, byte & 15] {
                message.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        let _ = write!(
            message,
            "'::bytea, 0, CASE WHEN extract(epoch FROM clock_timestamp()) * 1000000 < {give_up} \
             THEN clock_timestamp() END); COMMIT"
        );
        message
    }

    fn commit_error(&self, error: sqlx::Error, certain: bool) -> Error {
        if !certain {
            return Error::CommitUnknown {
                xid: self.xid,
                reason: error.to_string(),
            };
        }
        let from_undo_log = error
            .as_database_error()
            .is_some_and(|database| database.table() == Some("undo_log"));
        match sql_state(&error).as_deref() {
            Some("23502") if from_undo_log => Error::GaveUp { xid: self.xid },
            Some("23505") if from_undo_log => Error::RolledBackMeanwhile { xid: self.xid },
            _ => Error::Database {
                doing: "committing the branch",
                source: error,
            },
        }
    }
}

/// Whether this answer to the message that ends in COMMIT excludes a commit. An
/// ERROR does; what ends the connection does not.
fn rolled_back_for_sure(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else {
        return false;
    };
    let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() else {
        return false;
    };
    matches!(postgres.severity(), sqlx::postgres::PgSeverity::Error)
        && !postgres.code().starts_with("57P")
}

/// Tells the coordinator how a registered branch ended, also when the future
/// that commits it is dropped half-way.
struct Outcome {
    registrar: Arc<dyn Registrar>,
    xid: Xid,
    branch: u32,
    /// The message that commits may have left.
    sent: bool,
    told: bool,
}

impl Outcome {
    fn new(registrar: Arc<dyn Registrar>, xid: Xid, branch: u32) -> Self {
        Self {
            registrar,
            xid,
            branch,
            sent: false,
            told: false,
        }
    }

    fn done(mut self) {
        self.told = true;
        self.registrar.done(self.xid, self.branch);
    }

    fn withdrawn(mut self) {
        self.told = true;
        self.registrar.withdrawn(self.xid, self.branch);
    }

    fn doomed(mut self, detail: String) {
        self.told = true;
        self.registrar.doomed(self.xid, self.branch, detail);
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        match (self.told, self.sent) {
            (true, _) => {}
            // Its connection is rolled back or closed; it can never commit.
            (false, false) => self.registrar.withdrawn(self.xid, self.branch),
            (false, true) => {
                let detail = "the future that committed the branch was dropped".to_owned();
                self.registrar.doomed(self.xid, self.branch, detail);
            }
        }
    }
}

/// Runs a statement to its end.
async fn collect(
    connection: &mut PgConnection,
    statement: Statement,
) -> Result<Vec<Step>, sqlx::Error> {
    let mut steps = Vec::new();
    let mut rows = connection.fetch_many(statement);
    while let Some(step) = rows.try_next().await? {
        if steps.len() > limits::MAX_ROWS_PER_BRANCH {
            return Err(Error::TooLarge {
                what: format!("the statement's number of rows, over {}", steps.len() - 1),
                limit: limits::MAX_ROWS_PER_BRANCH,
            }
            .into());
        }
        steps.push(step);
    }
    Ok(steps)
}

/// The image in the column before `end`; moves `end` there.
fn image(row: &PgRow, end: &mut usize, table: &Table) -> Result<RowImage, sqlx::Error> {
    *end = end
        .checked_sub(1)
        .ok_or_else(|| sqlx::Error::ColumnNotFound("image".to_owned()))?;
    let value = row.try_get_raw(*end)?;
    let record = value.as_bytes().map_err(sqlx::Error::Decode)?;
    let error = match RowImage::decode(table, record) {
        Ok(image) => return Ok(image),
        Err(ImageError::ColumnsChanged) => Error::TableChanged {
            table: table.display_name(),
        },
        Err(ImageError::OtherTable) => Error::TableChanged {
            table: table.display_name(),
        },
        Err(ImageError::Malformed) => Error::Row {
            table: table.display_name(),
            reason: "the database sent an image in an unknown form".to_owned(),
        },
    };
    Err(error.into())
}
