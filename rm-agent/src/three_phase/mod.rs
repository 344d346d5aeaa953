//! Three-phase commit: participants that can do alone what is certain.
//!
//! A participant says yes by doing what it must in `can_commit`, in a local transaction of this
//! library's, together with a row of `accede_fence`. When the commit is decided it hears of that
//! before it is ordered to commit, and from then on needs nobody any more. What it may do when it
//! hears nothing is a table, see the guide.

mod handlers;

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/three-phase.md")]
mod guide {}

use std::{fmt, future::Future, sync::Arc};

use accede_link::context::TransactionContext;
use accede_proto::{Xid, v1::Mode};
use serde::{Serialize, de::DeserializeOwned};

pub use self::handlers::ThreePhaseHandlers;
pub use crate::action::{HandlerError, KeepsPromises};
use crate::{
    action::{Action, Bound, Callable, Unbound, current, no_upgrade},
    error::Error,
};

/// What a participant of 3PC does.
///
/// `can_commit` does and reserves what the action needs: its success is a promise that `do_commit`
/// will work, and that `abort` will, too. `#[three_phase(…)]` writes the implementation.
pub trait ThreePhase: Send + Sync + 'static {
    /// What the handlers work in: `FencedTransaction` of the database.
    type Transaction: KeepsPromises;
    /// What the participant is called with. Travels as JSON, is kept in the database, and comes
    /// back to the other handlers.
    type Arguments: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What `can_commit` returns.
    type Output: Send + 'static;
    /// What can go wrong in `can_commit`.
    type Error: From<Error> + Send + 'static;

    /// The version of the arguments' form. Raise it when the form changes in a way that services
    /// of before cannot read, and read theirs in [`upgrade`](Self::upgrade).
    const VERSION: u32 = 1;

    /// The action's name, the same in all services that can finish it, for example
    /// `account.pay`.
    fn resource(&self) -> &str;

    /// Promises. Is not run again by itself; an error is a no and rolls its local transaction
    /// back.
    fn can_commit(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;

    /// The commit is decided and irrevocable; the order to commit follows, or the participant
    /// commits alone. Most have nothing to do.
    fn pre_commit(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (tx, arguments);
        async { Ok(()) }
    }

    /// Turns the promise into what it was for. Only after a yes; takes effect once.
    fn do_commit(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Takes the promise back. Only after a yes; takes effect once.
    fn abort(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Reads arguments of an earlier [`VERSION`](Self::VERSION), which a service of before
    /// registered.
    ///
    /// # Errors
    /// Why they cannot be read; the branch is stuck then. That is what happens by default.
    fn upgrade(
        &self,
        version: u32,
        arguments: serde_json::Value,
    ) -> Result<Self::Arguments, String> {
        let _ = arguments;
        no_upgrade(version)
    }
}

/// What the modes have in common, of a participant.
struct OfThreePhase<P>(P);

impl<P: ThreePhase> Action for OfThreePhase<P> {
    type Transaction = P::Transaction;
    type Arguments = P::Arguments;
    type Output = P::Output;
    type Error = P::Error;

    const MODE: Mode = Mode::ThreePhase;
    const VERSION: u32 = P::VERSION;

    fn resource(&self) -> &str {
        self.0.resource()
    }

    async fn begin(
        &self,
        tx: &mut P::Transaction,
        arguments: P::Arguments,
    ) -> Result<P::Output, P::Error> {
        self.0.can_commit(tx, arguments).await
    }

    async fn pre_commit(
        &self,
        tx: &mut P::Transaction,
        arguments: P::Arguments,
    ) -> Result<(), HandlerError> {
        self.0.pre_commit(tx, arguments).await
    }

    async fn commit(
        &self,
        tx: &mut P::Transaction,
        arguments: P::Arguments,
    ) -> Result<(), HandlerError> {
        self.0.do_commit(tx, arguments).await
    }

    async fn undo(
        &self,
        tx: &mut P::Transaction,
        arguments: P::Arguments,
    ) -> Result<(), HandlerError> {
        self.0.abort(tx, arguments).await
    }

    fn upgrade(&self, version: u32, arguments: serde_json::Value) -> Result<P::Arguments, String> {
        self.0.upgrade(version, arguments)
    }
}

/// A participant that can be called. Make it, give it to the agent's builder, keep it: calls work
/// once the agent has started. Clones share it.
///
/// Create it with the function that `#[three_phase]` writes, or with [`Participant::new`].
pub struct Participant<A, E, O = ()> {
    inner: Arc<dyn Callable<A, E, O>>,
}

impl<A, E, O> Clone for Participant<A, E, O> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<A, E, O> fmt::Debug for Participant<A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant")
            .field("resource", &self.inner.resource())
            .finish_non_exhaustive()
    }
}

impl<A: 'static, E: From<Error> + 'static, O: 'static> Participant<A, E, O> {
    /// A participant as a type of its own.
    pub fn new<P: ThreePhase<Arguments = A, Error = E, Output = O>>(participant: P) -> Self {
        Self {
            inner: Bound::new(OfThreePhase(participant)),
        }
    }

    /// Asks the participant whether it can commit, as a branch of the transaction that the running
    /// task works for. It commits or aborts when that is decided.
    ///
    /// # Errors
    /// The handler's own error, which is its no, or one of this crate's inside of it:
    /// [`Error::NoTransaction`] without a transaction, [`Error::Refused`] by the coordinator,
    /// [`Error::TooLarge`] arguments. After an error nothing has taken effect, with one exception:
    /// [`Error::CommitUnknown`], after which the whole transaction rolls back.
    pub async fn call(&self, arguments: A) -> Result<O, E> {
        let context = current(self.inner.resource())?;
        self.inner.call(context, arguments).await
    }

    /// The same in the transaction `xid`, whatever the task works for.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_in(&self, xid: Xid, arguments: A) -> Result<O, E> {
        let context = TransactionContext::new(xid);
        self.inner.call(context, arguments).await
    }

    /// Its name.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.inner.resource()
    }

    pub(crate) fn unbound(&self) -> Arc<dyn Unbound> {
        Arc::clone(&self.inner).unbound()
    }
}
