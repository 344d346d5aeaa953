//! Handlers in a database, behind a fence.

use std::sync::Arc;

use accede_link::context::TransactionContext;
use futures_util::future::join;

use super::{Call, Engine, TccAction, arguments, handled, sealed};
use crate::{
    agent::{Job, Pools},
    clock,
    error::Error,
    limits,
    store::{
        fence::{Fences, NotCommitted, Status, Tried},
        finish::{BranchKey, PhaseTwoError, UndoPolicy},
        outcome::Outcome,
        watch::Watch,
    },
};

/// A pool whose database keeps fences.
pub(crate) struct Fenced<F>(F);

macro_rules! place {
    ($($module:ident . $pools:ident),*) => {$(
        impl sealed::Place for crate::store::$module::FencedTransaction {
            type Engine = Fenced<crate::store::$module::AtPool>;

            fn engine(pools: &Pools, database: Option<&str>) -> Result<Self::Engine, Error> {
                let name = database.unwrap_or_default();
                let pool = pools.$pools.get(name).cloned();
                pool.map(Fenced).ok_or_else(|| {
                    pools.unknown(concat!(stringify!($module), " "), name)
                })
            }
        }
    )*};
}

place!(postgres.postgres, mariadb.mariadb, sqlite.sqlite);

impl<F: Fences> Fenced<F> {
    /// A branch that was opened for its end, by what is to be done.
    async fn end<A: TccAction<Transaction = F::Transaction>>(
        &self,
        action: &A,
        branch: BranchKey,
        job: Job,
        payload: &[u8],
    ) -> Result<(), PhaseTwoError> {
        let (mut tx, status) = self.0.open(branch, action.resource()).await?;
        let ended = match job {
            Job::Commit => self.confirm(action, &mut tx, branch, status, payload).await,
            Job::RollBack { was_done, policy } => {
                let cancel = Cancel {
                    was_done,
                    accept: policy == UndoPolicy::AcceptCurrent,
                };
                let tx = &mut tx;
                self.cancel(action, tx, (branch, status), cancel, payload)
                    .await
            }
        };
        if ended.is_err() {
            F::roll_back(&mut tx).await;
        }
        ended
    }

    async fn confirm<A: TccAction<Transaction = F::Transaction>>(
        &self,
        action: &A,
        tx: &mut F::Transaction,
        branch: BranchKey,
        status: Status,
        payload: &[u8],
    ) -> Result<(), PhaseTwoError> {
        match status {
            Status::Tried => {
                let arguments = arguments::decode(action, payload)?;
                handled(action.confirm(tx, arguments), F::failure).await?;
                self.0.close(tx, branch, Some(Status::Confirmed)).await
            }
            Status::Confirmed => self.0.close(tx, branch, None).await,
            Status::Cancelled | Status::Barred => Err(contradiction(branch, status, "commits")),
        }
    }

    async fn cancel<A: TccAction<Transaction = F::Transaction>>(
        &self,
        action: &A,
        tx: &mut F::Transaction,
        (branch, status): (BranchKey, Status),
        cancel: Cancel,
        payload: &[u8],
    ) -> Result<(), PhaseTwoError> {
        match status {
            Status::Tried => {
                if !cancel.accept {
                    let arguments = arguments::decode(action, payload)?;
                    handled(action.cancel(tx, arguments), F::failure).await?;
                }
                self.0.close(tx, branch, Some(Status::Cancelled)).await
            }
            // Just written, or by an earlier attempt: nothing was tried, and nothing will be.
            Status::Barred if !cancel.was_done || cancel.accept => {
                self.0.close(tx, branch, None).await
            }
            Status::Cancelled => self.0.close(tx, branch, None).await,
            Status::Barred | Status::Confirmed => Err(contradiction(branch, status, "rolls back")),
        }
    }
}

#[derive(Clone, Copy)]
struct Cancel {
    /// The try reported that it took effect.
    was_done: bool,
    /// Without the handler: an operator said so.
    accept: bool,
}

/// What cannot be if everybody kept to the protocol.
fn contradiction(branch: BranchKey, status: Status, goes: &str) -> PhaseTwoError {
    let BranchKey { xid, branch } = branch;
    let found = match status {
        Status::Barred => {
            "but there is no trace of its try: the database went back in time, or its row of \
             accede_fence was deleted"
                .to_owned()
        }
        status => format!("but here it was {} before", status.as_str()),
    };
    PhaseTwoError::stuck(format!(
        "transaction {xid} {goes} and branch {branch} was tried, {found}; bring what it changed \
         in order by hand, then repair with skip"
    ))
}

impl<F: Fences> Engine<F::Transaction> for Fenced<F> {
    async fn try_it<A: TccAction<Transaction = F::Transaction>>(
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
        let watch = Watch::new(fences, Some(xid), F::backend(&tx));
        let tried = watch.over(call.action.try_it(&mut tx, arguments)).await;
        let output = match tried {
            Ok(output) => output,
            Err(error) => {
                F::roll_back(&mut tx).await;
                outcome.withdrawn();
                return Err(error);
            }
        };
        let tried = Tried {
            key,
            resource: call.action.resource(),
            sent,
            give_up: registered.give_up,
        };
        outcome.sent = true;
        match fences.commit_tried(&mut tx, tried).await {
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

    async fn finish<A: TccAction<Transaction = F::Transaction>>(
        &self,
        action: &A,
        branch: BranchKey,
        job: Job,
        payload: &[u8],
    ) -> Result<(), PhaseTwoError> {
        self.end(action, branch, job, payload).await
    }
}

/// How long a try waits for the coordinator, a connection and each of the database's locks.
pub(super) fn patience(context: &TransactionContext) -> std::time::Duration {
    let left = context.remaining();
    left.map_or(limits::LOCK_WAIT, |left| left.min(limits::LOCK_WAIT))
}
