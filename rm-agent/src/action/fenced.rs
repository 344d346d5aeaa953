//! Handlers in a database, behind a fence.

use std::{sync::Arc, time::Duration};

use accede_core::alone::{Knows, May, Phase, may};
use accede_link::context::TransactionContext;
use accede_proto::v1::Mode;
use futures_util::future::join;

use super::{Action, Call, Engine, KeepsPromises, arguments, handled, no_step, sealed};
use crate::{
    agent::{Ended, Job, Pools},
    clock,
    error::Error,
    limits,
    moment::moment,
    store::{
        fence::{Fences, Kept, NotCommitted, Promise, Status, Tried},
        finish::{BranchKey, PhaseTwoError, UndoPolicy},
        outcome::Outcome,
        watch::Watch,
    },
};

/// A pool whose database keeps fences.
pub(crate) struct Fenced<F>(F);

macro_rules! place {
    ($($module:ident . $pools:ident),*) => {$(
        impl KeepsPromises for crate::store::$module::FencedTransaction {}

        impl sealed::Place for crate::store::$module::FencedTransaction {
            type Engine = Fenced<crate::store::$module::AtPool>;

            fn engine(pools: &Pools, database: Option<&str>) -> Result<Self::Engine, Error> {
                Self::fences(pools, database.unwrap_or_default()).map(Fenced)
            }
        }

        impl Kept for crate::store::$module::FencedTransaction {
            type Fences = crate::store::$module::AtPool;

            fn fences(pools: &Pools, database: &str) -> Result<Self::Fences, Error> {
                let pool = pools.$pools.get(database).cloned();
                pool.ok_or_else(|| {
                    pools.unknown(concat!(stringify!($module), " "), database)
                })
            }
        }
    )*};
}

place!(postgres.postgres, mariadb.mariadb, sqlite.sqlite);

impl<F: Fences> Fenced<F> {
    /// Finishes a branch that was opened for it.
    async fn end<A: Action<Transaction = F::Transaction>>(
        &self,
        work: Work<'_, A>,
        tx: &mut F::Transaction,
        status: Status,
        job: Job,
    ) -> Result<Ended, PhaseTwoError> {
        match job {
            Job::Commit => self.commit(work, tx, status).await?,
            Job::PreCommit => {
                let may = self
                    .go_by_table(work, tx, status, Knows::PreCommitted)
                    .await?;
                if may == May::PreCommit {
                    return Ok(Ended::PreCommitted);
                }
            }
            Job::Run | Job::Prepare | Job::CommitOnePhase => {
                return Err(no_step(work.action.resource()));
            }
            Job::RollBack { was_done, policy } => {
                let accept = policy == UndoPolicy::AcceptCurrent;
                self.undo(work, tx, status, Undo { was_done, accept })
                    .await?;
            }
        }
        Ok(Ended::Finished)
    }

    async fn commit<A: Action<Transaction = F::Transaction>>(
        &self,
        work: Work<'_, A>,
        tx: &mut F::Transaction,
        status: Status,
    ) -> Result<(), PhaseTwoError> {
        match status {
            Status::Tried | Status::PreCommitted => {
                let arguments = arguments::decode(work.action, work.payload)?;
                handled(work.action.commit(tx, arguments), F::failure).await?;
                self.0
                    .close(tx, work.branch, Some(Status::Confirmed), None)
                    .await
            }
            Status::Confirmed => self.0.close(tx, work.branch, None, None).await,
            Status::Cancelled | Status::Barred | Status::Running => {
                Err(work.contradiction(status, "commits"))
            }
        }
    }

    async fn undo<A: Action<Transaction = F::Transaction>>(
        &self,
        work: Work<'_, A>,
        tx: &mut F::Transaction,
        status: Status,
        undo: Undo,
    ) -> Result<(), PhaseTwoError> {
        match status {
            Status::Tried => {
                if !undo.accept {
                    let arguments = arguments::decode(work.action, work.payload)?;
                    handled(work.action.undo(tx, arguments), F::failure).await?;
                }
                self.0
                    .close(tx, work.branch, Some(Status::Cancelled), None)
                    .await
            }
            // Just written, or by an earlier attempt: nothing was tried, and nothing will be.
            Status::Barred if !undo.was_done || undo.accept => {
                self.0.close(tx, work.branch, None, None).await
            }
            Status::Cancelled => self.0.close(tx, work.branch, None, None).await,
            Status::Barred | Status::Confirmed | Status::PreCommitted | Status::Running => {
                Err(work.contradiction(status, "rolls back"))
            }
        }
    }

    /// Does what a participant of 3PC may do about what it knows; answers with that.
    async fn go_by_table<A: Action<Transaction = F::Transaction>>(
        &self,
        work: Work<'_, A>,
        tx: &mut F::Transaction,
        status: Status,
        knows: Knows,
    ) -> Result<May, PhaseTwoError> {
        let may = may(phase(status), knows);
        match may {
            May::PreCommit => {
                let arguments = arguments::decode(work.action, work.payload)?;
                handled(work.action.pre_commit(tx, arguments), F::failure).await?;
                let status = Some(Status::PreCommitted);
                self.0.close(tx, work.branch, status, None).await?;
            }
            May::Commit => self.commit(work, tx, status).await?,
            May::Abort => {
                let (was_done, accept) = (true, false);
                self.undo(work, tx, status, Undo { was_done, accept })
                    .await?;
            }
            // What was opened is left as it was.
            May::Ask | May::Choose | May::Rest => F::roll_back(tx).await,
            May::Never => {
                let goes = match knows {
                    Knows::RollingBack => "rolls back",
                    _ => "commits",
                };
                return Err(work.contradiction(status, goes));
            }
        }
        Ok(may)
    }
}

/// How far the participant of 3PC with this fence is.
const fn phase(status: Status) -> Phase {
    match status {
        Status::Tried => Phase::Prepared,
        Status::PreCommitted => Phase::PreCommitted,
        Status::Confirmed => Phase::Committed,
        Status::Cancelled | Status::Barred => Phase::Aborted,
        // Of a step, which none of 3PC is: it cannot be.
        Status::Running => Phase::Working,
    }
}

/// A branch that is finished.
struct Work<'a, A> {
    action: &'a A,
    branch: BranchKey,
    payload: &'a [u8],
}

impl<A> Clone for Work<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Work<'_, A> {}

#[derive(Clone, Copy)]
struct Undo {
    /// Phase one reported that it took effect.
    was_done: bool,
    /// Without the handler: an operator said so.
    accept: bool,
}

impl<A> Work<'_, A> {
    /// What cannot be if everybody kept to the protocol.
    fn contradiction(&self, status: Status, goes: &str) -> PhaseTwoError {
        let BranchKey { xid, branch } = self.branch;
        let found = match status {
            Status::Barred => {
                "but there is no trace of its try: the database went back in time, or its row of \
                 accede_fence was deleted"
                    .to_owned()
            }
            status => format!("but here it was {} before", status.as_str()),
        };
        PhaseTwoError::stuck(format!(
            "transaction {xid} {goes} and branch {branch} was tried, {found}; bring what it \
             changed in order by hand, then repair with skip"
        ))
    }
}

impl<F: Fences> Engine<F::Transaction> for Fenced<F> {
    async fn begin<A: Action<Transaction = F::Transaction>>(
        &self,
        call: Call<'_, A>,
        arguments: A::Arguments,
    ) -> Result<A::Output, A::Error> {
        let fences = &self.0;
        let xid = call.context.xid();
        let patience = patience(&call.context);
        let registration = call.registration(patience);
        let sent = clock::now();
        let register = async {
            let registered = call.registrar.register(registration).await?;
            // From here on the coordinator is told how it ended, whatever happens to this future.
            let registrar = Arc::clone(call.registrar);
            let outcome = Outcome::new(registrar, xid, registered.branch);
            Ok::<_, Error>((registered, outcome))
        };
        // Side by side: neither needs the other's answer.
        let watch = Watch::new(fences, Some(xid), None);
        let (begun, registered) = join(watch.over(fences.begin(patience)), register).await;
        let (mut tx, (registered, mut outcome)) = match (begun, registered) {
            (Ok(tx), Ok(registered)) => (tx, registered),
            (Ok(mut tx), Err(refused)) => {
                F::roll_back(&mut tx).await;
                return Err(refused.into());
            }
            // Dropped, the guard withdraws the branch, if there is one.
            (Err(error), _) => return Err(error.into()),
        };
        let key = BranchKey {
            xid,
            branch: registered.branch,
        };
        F::join(&mut tx, key);
        moment().await;
        let watch = Watch::new(fences, Some(xid), F::backend(&tx));
        let tried = watch.over(call.action.begin(&mut tx, arguments)).await;
        moment().await;
        let output = match tried {
            Ok(output) => output,
            Err(error) => {
                F::roll_back(&mut tx).await;
                outcome.withdrawn();
                return Err(error);
            }
        };
        let payload = call.payload.clone();
        let tried = Tried {
            key,
            resource: call.action.resource(),
            sent,
            give_up: registered.give_up,
            // Who may have to go on alone keeps what it needs for that.
            payload: (A::MODE == Mode::ThreePhase).then_some(&payload[..]),
        };
        outcome.sent = true;
        let committed = fences.commit_tried(&mut tx, tried).await;
        moment().await;
        match committed {
            Ok(()) => {
                outcome.done();
                Ok(output)
            }
            Err(NotCommitted { error, certain }) => {
                if certain {
                    F::roll_back(&mut tx).await;
                    outcome.withdrawn();
                } else {
                    outcome.doomed(error.to_string());
                }
                Err(error.into())
            }
        }
    }

    async fn finish<A: Action<Transaction = F::Transaction>>(
        &self,
        action: &A,
        branch: BranchKey,
        job: Job,
        payload: &[u8],
    ) -> Result<Ended, PhaseTwoError> {
        let work = Work {
            action,
            branch,
            payload,
        };
        let (mut tx, status) = self.0.open(branch, action.resource()).await?;
        let ended = self.end(work, &mut tx, status, job).await;
        moment().await;
        if ended.is_err() {
            F::roll_back(&mut tx).await;
        }
        ended
    }

    async fn promises(
        &self,
        resource: &str,
        older_than: Duration,
        limit: usize,
    ) -> Result<Vec<Promise>, PhaseTwoError> {
        self.0.promises(resource, older_than, limit).await
    }

    async fn act_alone<A: Action<Transaction = F::Transaction>>(
        &self,
        action: &A,
        branch: BranchKey,
        knows: Knows,
        payload: &[u8],
    ) -> Result<May, PhaseTwoError> {
        let work = Work {
            action,
            branch,
            payload,
        };
        let (mut tx, status) = self.0.open(branch, action.resource()).await?;
        let done = self.go_by_table(work, &mut tx, status, knows).await;
        if done.is_err() {
            F::roll_back(&mut tx).await;
        }
        done
    }
}

/// How long a try waits for the coordinator, a connection and each of the database's locks.
pub(super) fn patience(context: &TransactionContext) -> Duration {
    let left = context.remaining();
    left.map_or(limits::LOCK_WAIT, |left| left.min(limits::LOCK_WAIT))
}
