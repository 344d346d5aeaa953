//! A local transaction: plain, or a branch of a global one.

mod begin;

use std::{fmt, sync::Arc};

use accede_proto::{Xid, v1::Mode};
use bytes::Bytes;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Executor as _, MySqlConnection,
    mysql::{MySqlQueryResult, MySqlRow},
};

use super::{
    branch::{Branch, send_commit, settle},
    connection::Held,
    executor::Statement,
    failure::{error_number, fails_alone},
    plan::Plan,
    pool::AtPool,
    run, savepoint, session, xa,
};
use crate::{
    at::{codec, savepoint::SavepointCommand, statement::Wait, undo::Changes},
    clock,
    context::Kind,
    error::{Error, is_retryable},
    limits,
    registrar::Registration,
    store::{
        lock_check::LockCheck, outcome::Outcome, retry::Repeatable, savepoint::Savepoints,
        state::State, watch::Watch, xa::Ending,
    },
};

/// What a statement yields.
pub(super) type Step = Either<MySqlQueryResult, MySqlRow>;

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
    savepoints: Savepoints,
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
    pub(super) fn new(pool: AtPool, held: Held, kind: Kind, ending: Ending) -> Self {
        let branch = Branch::new(kind, &pool, ending);
        Self {
            pool,
            held,
            state: State::Idle,
            branch,
            savepoints: Savepoints::replacing(),
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
    /// When the connection broke; then the database rolls back by itself.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.held.roll_back().await
    }

    /// The connection, for what neither writes nor locks.
    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        self.held.get()
    }

    pub(super) fn savepoints(&mut self) -> &mut Savepoints {
        &mut self.savepoints
    }

    pub(super) async fn finish(&mut self) -> Result<(), sqlx::Error> {
        self.roll_back_dropped().await?;
        match std::mem::replace(&mut self.state, State::Busy) {
            State::Idle => return Ok(()),
            State::Open => {}
            State::Busy => return Err(self.refuse_broken("a call on it was cancelled").await),
            State::Broken(reason) => return Err(self.refuse_broken(&reason).await),
        }
        let result = match self.branch.take() {
            None => self.end_locally("COMMIT").await,
            Some(branch) => match branch.xid {
                None => self.commit_checked(&branch).await,
                Some(xid) if branch.ending == Ending::Prepared => {
                    self.prepare_branch(xid, &branch).await
                }
                // An undo record is written only for a change that remains.
                Some(_) if branch.changes.is_empty() => self.end_locally(session::COMMIT).await,
                Some(xid) => self.commit_branch(xid, branch).await.map_err(Into::into),
            },
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

    /// Commits once no global transaction may undo what was written here, for that would undo this
    /// as well.
    async fn commit_checked(&mut self, branch: &Branch) -> Result<(), sqlx::Error> {
        let (row_locks, _) = branch.changes.locks();
        let check = LockCheck {
            registrar: self.pool.registrar(),
            resource: self.pool.resource(),
            xid: None,
            wait_limit: &|| branch.wait_limit(),
            wait: Wait::Block,
        };
        if let Err(error) = check.ask(row_locks).await {
            let _ = self.held.roll_back().await;
            return Err(error.into());
        }
        self.end_locally(session::COMMIT_WHOLE).await
    }

    /// The database prepares it. Other branches cannot build on its rows meanwhile, but it may
    /// have built on theirs: hence the row locks.
    async fn prepare_branch(&mut self, xid: Xid, branch: &Branch) -> Result<(), sqlx::Error> {
        let (row_locks, _) = branch.changes.locks();
        // What it only locked must stay so.
        if row_locks.is_empty() && !branch.locks_rows {
            xa::commit_unwritten(&mut self.held).await?;
            self.held.clean();
            return Ok(());
        }
        xa::prepare(&self.pool, &mut self.held, xid, branch, row_locks).await?;
        Ok(())
    }

    /// Register, write the undo record, commit: rule by rule so that a cancelled
    /// or failed step leaves the coordinator knowing the truth.
    async fn commit_branch(&mut self, xid: Xid, mut branch: Branch) -> Result<(), Error> {
        let (row_locks, escrow_locks) = branch.changes.locks();
        let record = branch.changes.take_record().encode();
        if record.len() > limits::MAX_UNDO_BYTES {
            return Err(Error::TooLarge {
                what: format!("the branch's undo record of {} bytes", record.len()),
                limit: limits::MAX_UNDO_BYTES,
            });
        }
        let record = codec::pack(record);
        let registration = Registration {
            xid,
            resource: self.pool.resource().into(),
            mode: Mode::At,
            row_locks,
            escrow_locks,
            payload: Bytes::new(),
            wait_limit: branch.wait_limit(),
            can_keep_open: false,
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
        let mut outcome = Outcome::new(registrar, xid, registered.branch);
        let message = branch.commit_message(xid, self.pool.database(), registered, sent, &record);
        outcome.sent = true;
        let backend = branch.backend();
        let committing = send_commit(self.held.get(), message, session::BEFORE_COMMIT);
        let watch = Watch::new(&self.pool, Some(xid), backend);
        match watch.over(committing).await {
            Ok(()) => {
                self.held.clean();
                outcome.done();
                Ok(())
            }
            Err(failed) => Err(settle(outcome, &mut self.held, failed).await),
        }
    }

    /// Runs one statement. What is under way when the future is dropped leaves
    /// the transaction fit for a rollback only.
    pub(super) async fn start<'c>(
        &'c mut self,
        statement: Statement,
    ) -> Result<BoxStream<'c, Result<Step, sqlx::Error>>, sqlx::Error> {
        self.roll_back_dropped().await?;
        if self.branch.is_none() {
            self.begin_plainly().await?;
            return Ok(self.held.get().fetch_many(statement));
        }
        if let Some(command) = SavepointCommand::read_mysql(statement.sql.as_str()) {
            let done = self.run_savepoint(command).await?;
            return Ok(stream::iter([Ok(Either::Left(done))]).boxed());
        }
        if let Some(pieces) = statement.pieces() {
            let steps = self.run_pieces(pieces).await?;
            return Ok(stream::iter(steps.into_iter().map(Ok)).boxed());
        }
        let was = match std::mem::replace(&mut self.state, State::Busy) {
            usable @ (State::Idle | State::Open) => usable,
            State::Busy => return Err(self.stay_broken("a call on it was cancelled")),
            State::Broken(reason) => return Err(self.stay_broken(&reason)),
        };
        let watch = self.watch();
        let planned = watch.over(self.plan(&statement, was == State::Idle)).await;
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
            && let Err(error) = watch.over(self.begin_branch()).await
        {
            return Err(self.break_by(error));
        }
        let watch = self.watch();
        let mut wrote = false;
        let steps = match &*plan {
            Plan::Read => {
                self.state = State::Open;
                let state = &mut self.state;
                let steps = watch.over_steps(self.held.get().fetch_many(statement));
                return Ok(steps
                    .inspect_err(|error| {
                        if !fails_alone(error) {
                            *state = State::Broken(error.to_string());
                        }
                    })
                    .boxed());
            }
            Plan::Locking(plan) => {
                let branch = self.branch.as_mut().expect("this is a branch");
                branch.locks_rows = true;
                plan.run(&statement, self.held.get(), &watch, &self.pool, branch)
                    .await
            }
            Plan::Write(plan) => {
                let branch = self.branch.as_mut().expect("this is a branch");
                let writing = run::write(self.held.get(), &statement, plan, branch, &mut wrote);
                watch.over(writing).await
            }
        };
        match steps {
            Ok(steps) => {
                self.state = State::Open;
                Ok(stream::iter(steps.into_iter().map(Ok)).boxed())
            }
            Err(error) => {
                let changed = matches!(Error::from_sqlx(&error), Some(Error::TableChanged { .. }))
                    || matches!(error_number(&error), Some(1054 | 1136 | 1146));
                if changed {
                    self.pool.planner().forget();
                }
                if !wrote && fails_alone(&error) {
                    self.state = State::Open;
                    self.retryable = false;
                    return Err(error);
                }
                Err(self.break_by(error))
            }
        }
    }

    /// Runs the statements of one text. None of them runs if one is refused.
    async fn run_pieces(&mut self, pieces: Vec<Statement>) -> Result<Vec<Step>, sqlx::Error> {
        if matches!(self.state, State::Idle | State::Open) {
            let statements = pieces
                .iter()
                .filter(|piece| SavepointCommand::read_mysql(piece.sql.as_str()).is_none());
            for piece in statements {
                let idle = self.state == State::Idle;
                match self.plan(piece, idle).await {
                    Ok(_) => {}
                    Err(error @ Error::Database { .. }) => {
                        return Err(self.break_by(error.into()));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let mut steps = Vec::new();
        for piece in pieces {
            let started: BoxStream<'_, _> = Box::pin(self.start(piece)).await?;
            steps.extend(started.try_collect::<Vec<Step>>().await?);
        }
        Ok(steps)
    }

    /// Sets, releases or returns to a savepoint. Returning to one is possible after
    /// a failure, too: it drops whatever a failed or cancelled statement did.
    pub(super) async fn run_savepoint(
        &mut self,
        command: SavepointCommand,
    ) -> Result<MySqlQueryResult, sqlx::Error> {
        let returns = matches!(command, SavepointCommand::RollBackTo(_));
        let was_open = matches!(self.state, State::Open);
        match std::mem::replace(&mut self.state, State::Busy) {
            State::Open => {}
            State::Idle if self.branch.is_some() => {
                if let Err(error) = self.begin_branch().await {
                    return Err(self.break_by(error));
                }
            }
            State::Idle => {
                self.state = State::Idle;
                self.begin_plainly().await?;
                self.state = State::Busy;
            }
            State::Busy | State::Broken(_) if returns && !self.savepoints.is_empty() => {}
            State::Busy => return Err(self.stay_broken("a call on it was cancelled")),
            State::Broken(reason) => return Err(self.stay_broken(&reason)),
        }
        match savepoint::send(self.held.get(), &command).await {
            Ok(done) => {
                let mut nothing = Changes::default();
                let branch = self.branch.as_mut();
                let changes = branch.map_or(&mut nothing, |branch| &mut branch.changes);
                self.savepoints.follow(&command, changes);
                self.state = State::Open;
                self.retryable = false;
                Ok(done)
            }
            // There is none of that name.
            Err(error) if was_open && fails_alone(&error) => {
                self.state = State::Open;
                Err(error)
            }
            Err(error) => {
                let retryable = self.retryable;
                let error = self.break_by(error);
                self.retryable |= retryable;
                Err(error)
            }
        }
    }

    /// A savepoint that was dropped is rolled back before anything else happens.
    pub(super) async fn roll_back_dropped(&mut self) -> Result<(), sqlx::Error> {
        let Some(name) = self.savepoints.dropped() else {
            return Ok(());
        };
        self.run_savepoint(SavepointCommand::RollBackTo(name.clone()))
            .await?;
        self.run_savepoint(SavepointCommand::Release(name)).await?;
        Ok(())
    }

    fn stay_broken(&mut self, reason: &str) -> sqlx::Error {
        self.state = State::Broken(reason.to_owned());
        Error::Broken {
            reason: reason.to_owned(),
        }
        .into()
    }

    fn break_by(&mut self, error: sqlx::Error) -> sqlx::Error {
        break_by(&mut self.state, &mut self.retryable, error)
    }

    /// Looks after the waits of this branch.
    fn watch(&self) -> Watch<AtPool> {
        let branch = self.branch.as_ref().expect("only called for a branch");
        Watch::new(&self.pool, branch.xid, branch.backend())
    }
}

/// From now on only a rollback is possible.
pub(super) fn break_by(state: &mut State, retryable: &mut bool, error: sqlx::Error) -> sqlx::Error {
    let error = match error_number(&error) {
        Some(1205) => Error::LocalLockTimedOut { source: error }.into(),
        _ => error,
    };
    *state = State::Broken(error.to_string());
    *retryable = is_retryable(&error);
    error
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
