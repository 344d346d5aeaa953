//! Which transaction the running task works for.
//!
//! The context lives in a task-local: it follows the code through `.await`, not
//! through `tokio::spawn`. A spawned task gets it by [`spawn_in_transaction`],
//! a future that something else will run by [`carry`].

use std::{future::Future, time::Duration};

use accede_proto::Xid;
use tokio::{
    task::{JoinHandle, futures::TaskLocalFuture},
    time::Instant,
};

use crate::clock;

tokio::task_local! {
    static CURRENT: Option<TransactionContext>;
}

/// The transaction that a task works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionContext {
    xid: Xid,
    deadline: Option<Instant>,
    is_step: bool,
}

impl TransactionContext {
    /// A context whose deadline is not known.
    #[must_use]
    pub fn new(xid: Xid) -> Self {
        Self {
            xid,
            deadline: None,
            is_step: false,
        }
    }

    /// The context of code that does or compensates a step of the transaction's saga. It knows
    /// its transaction, and nothing joins that: an attempt may come again, and what joined in the
    /// first would be there twice. What it calls by way of this crate is told of no transaction.
    #[must_use]
    pub fn of_step(xid: Xid) -> Self {
        Self {
            is_step: true,
            ..Self::new(xid)
        }
    }

    /// Code of a saga's step runs in it: nothing can join.
    #[must_use]
    pub fn is_step(&self) -> bool {
        self.is_step
    }

    /// The same transaction with a known deadline. The coordinator's own clock
    /// decides; this one only tells local code when more work is in vain.
    #[must_use]
    pub fn with_deadline(self, deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// The same transaction with a deadline counted from now. A time too long
    /// for the clock means no deadline.
    #[must_use]
    pub fn with_remaining(self, remaining: Duration) -> Self {
        Self {
            deadline: clock::now().checked_add(remaining),
            ..self
        }
    }

    /// The transaction's id.
    #[must_use]
    pub fn xid(&self) -> Xid {
        self.xid
    }

    /// When the coordinator will roll the transaction back, if that is known here.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The time left before the deadline, zero once it has passed; `None` when
    /// the deadline is not known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(clock::now()))
    }
}

impl From<Xid> for TransactionContext {
    fn from(xid: Xid) -> Self {
        Self::new(xid)
    }
}

/// Code that needs a transaction runs in a task that has none. The program is at
/// fault, a retry does not help: see the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this task works for no transaction: the call did not come through the layer that reads the \
     `x-accede-xid` header, or the task was started by `tokio::spawn` instead of \
     `spawn_in_transaction`"
)]
pub struct NoTransaction;

/// The running task's transaction, if it has one.
#[must_use]
pub fn current() -> Option<TransactionContext> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// The running task's transaction, if it has one that can be joined: a saga's step cannot join its
/// own.
#[must_use]
pub fn joinable() -> Option<TransactionContext> {
    current().filter(|context| !context.is_step)
}

/// The id of the running task's transaction, if it has one.
#[must_use]
pub fn current_xid() -> Option<Xid> {
    current().map(|context| context.xid)
}

/// The running task's transaction where one is required.
///
/// # Errors
/// [`NoTransaction`] if the task works for none.
pub fn require() -> Result<TransactionContext, NoTransaction> {
    current().ok_or(NoTransaction)
}

/// A future that runs with a set context; made by [`scope`].
pub type Scoped<F> = TaskLocalFuture<Option<TransactionContext>, F>;

/// Runs `future` in `context`, whatever the caller's context is; `None` suspends
/// the caller's transaction while `future` runs.
pub fn scope<F: Future>(context: Option<TransactionContext>, future: F) -> Scoped<F> {
    CURRENT.scope(context, future)
}

/// Calls `f` in `context`; for code that polls by hand. Everything else uses [`scope`].
pub fn sync_scope<R>(context: Option<TransactionContext>, f: impl FnOnce() -> R) -> R {
    CURRENT.sync_scope(context, f)
}

/// Runs `future` outside of any transaction; the caller's transaction resumes afterwards.
pub fn suspend<F: Future>(future: F) -> Scoped<F> {
    scope(None, future)
}

/// Ties `future` to the context of the caller, transaction or none, wherever it
/// runs later: for a `JoinSet`, a pool of workers, a stream.
pub fn carry<F: Future>(future: F) -> Scoped<F> {
    scope(current(), future)
}

/// Starts a task that works for the caller's transaction.
///
/// The transaction does not wait for the task: await the handle before the
/// transaction ends, or the task's writes will be refused as too late.
///
/// # Errors
/// [`NoTransaction`] if the caller has none; the task is not started.
///
/// # Panics
/// Outside of a Tokio runtime, as `tokio::spawn` does.
pub fn spawn_in_transaction<F>(future: F) -> Result<JoinHandle<F::Output>, NoTransaction>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let context = require()?;
    Ok(tokio::spawn(scope(Some(context), future)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid(bits: u64) -> Xid {
        Xid::from_u64(bits).expect("a valid id")
    }

    #[tokio::test]
    async fn scopes_nest_and_end() {
        assert_eq!(current(), None);
        scope(Some(xid(1).into()), async {
            assert_eq!(current_xid(), Some(xid(1)));
            suspend(async { assert_eq!(current_xid(), None) }).await;
            scope(Some(xid(2).into()), async {
                tokio::task::yield_now().await;
                assert_eq!(current_xid(), Some(xid(2)));
            })
            .await;
            assert_eq!(current_xid(), Some(xid(1)));
        })
        .await;
        assert_eq!(current(), None);
    }

    #[tokio::test]
    async fn a_spawned_task_keeps_the_transaction_only_when_asked_to() {
        scope(Some(xid(7).into()), async {
            let plain = tokio::spawn(async { current_xid() });
            assert_eq!(plain.await.expect("no panic"), None);
            let kept = spawn_in_transaction(async { current_xid() }).expect("in a transaction");
            assert_eq!(kept.await.expect("no panic"), Some(xid(7)));
            let carried = tokio::spawn(carry(async { current_xid() }));
            assert_eq!(carried.await.expect("no panic"), Some(xid(7)));
        })
        .await;
    }

    #[tokio::test]
    async fn a_missing_transaction_is_an_error_where_one_is_required() {
        let error = spawn_in_transaction(async {}).expect_err("no transaction");
        assert!(
            error.to_string().contains("spawn_in_transaction"),
            "{error}"
        );
        assert_eq!(require(), Err(NoTransaction));
    }

    #[tokio::test]
    async fn a_step_knows_its_transaction_and_cannot_join_it() {
        scope(Some(TransactionContext::of_step(xid(1))), async {
            assert_eq!(current_xid(), Some(xid(1)));
            assert_eq!(joinable(), None);
            scope(Some(xid(2).into()), async {
                assert_eq!(joinable(), Some(xid(2).into()));
            })
            .await;
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_remaining_time_ends_at_zero() {
        let context = TransactionContext::new(xid(1)).with_remaining(Duration::from_secs(2));
        assert_eq!(context.remaining(), Some(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(context.remaining(), Some(Duration::ZERO));
        assert_eq!(TransactionContext::new(xid(1)).remaining(), None);
        assert_eq!(
            TransactionContext::new(xid(1))
                .with_remaining(Duration::MAX)
                .deadline(),
            None
        );
    }
}
