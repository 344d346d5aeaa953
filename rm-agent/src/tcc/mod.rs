//! TCC: actions that are tried, then confirmed or cancelled by the application's own code.
//!
//! The three handlers of an action work in local transactions that this library opens and commits,
//! each together with a row of `accede_fence`. That row lets confirm and cancel take effect once,
//! however often they are ordered, lets a cancel without a try do nothing, and a try after it fail.

mod handlers;

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tcc.md")]
mod guide {}

use std::{fmt, future::Future, sync::Arc};

use accede_link::context::TransactionContext;
use accede_proto::{Xid, v1::Mode};
use serde::{Serialize, de::DeserializeOwned};

pub use self::handlers::{Handler, TccHandlers};
pub use crate::action::{HandlerError, TccTransaction, Unfenced};
use crate::{
    action::{Action, Bound, Callable, Unbound, current, no_upgrade},
    error::Error,
};

/// For `#[tcc]` only.
#[doc(hidden)]
pub mod __macros {
    use crate::action::HandlerError;

    /// Names the two sides of a result.
    pub trait Outcome {
        /// What is returned.
        type Output;
        /// The error.
        type Error;
    }

    impl<O, E> Outcome for Result<O, E> {
        type Output = O;
        type Error = E;
    }

    /// What a confirm or cancel returned.
    pub fn ended<E: Into<HandlerError>>(result: Result<(), E>) -> Result<(), HandlerError> {
        result.map_err(Into::into)
    }
}

/// An action that is tried, then confirmed or cancelled.
///
/// `try_it` reserves what the action needs and checks what could be in the way: once it has
/// succeeded, both `confirm` and `cancel` must be possible. `#[tcc(…)]` writes the implementation.
pub trait TccAction: Send + Sync + 'static {
    /// What the handlers work in: `FencedTransaction` of the database, or [`Unfenced`].
    type Transaction: TccTransaction;
    /// What the action is called with. Travels as JSON and comes back to `confirm` and `cancel`.
    type Arguments: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What a try returns.
    type Output: Send + 'static;
    /// What can go wrong in a try.
    type Error: From<Error> + Send + 'static;

    /// The version of the arguments' form. Raise it when the form changes in a way that services
    /// of before cannot read, and read theirs in [`upgrade`](Self::upgrade).
    const VERSION: u32 = 1;

    /// The action's name, the same in all services that can finish it, for example
    /// `account.freeze`.
    fn resource(&self) -> &str;

    /// Reserves. Is not run again by itself; an error rolls its local transaction back.
    fn try_it(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;

    /// Turns what was reserved into what was meant. Only after a try that took effect; takes
    /// effect once.
    fn confirm(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Gives back what was reserved. Only after a try that took effect; takes effect once.
    fn cancel(
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

/// What the modes have in common, of a TCC action.
struct OfTcc<A>(A);

impl<A: TccAction> Action for OfTcc<A> {
    type Transaction = A::Transaction;
    type Arguments = A::Arguments;
    type Output = A::Output;
    type Error = A::Error;

    const MODE: Mode = Mode::Tcc;
    const VERSION: u32 = A::VERSION;

    fn resource(&self) -> &str {
        self.0.resource()
    }

    async fn begin(
        &self,
        tx: &mut A::Transaction,
        arguments: A::Arguments,
    ) -> Result<A::Output, A::Error> {
        self.0.try_it(tx, arguments).await
    }

    async fn commit(
        &self,
        tx: &mut A::Transaction,
        arguments: A::Arguments,
    ) -> Result<(), HandlerError> {
        self.0.confirm(tx, arguments).await
    }

    async fn undo(
        &self,
        tx: &mut A::Transaction,
        arguments: A::Arguments,
    ) -> Result<(), HandlerError> {
        self.0.cancel(tx, arguments).await
    }

    fn upgrade(&self, version: u32, arguments: serde_json::Value) -> Result<A::Arguments, String> {
        self.0.upgrade(version, arguments)
    }
}

/// An action that can be called. Make it, give it to the agent's builder, keep it: calls work once
/// the agent has started. Clones share it.
///
/// Create it with the function that `#[tcc]` writes, or with [`Tcc::new`].
pub struct Tcc<A, E, O = ()> {
    inner: Arc<dyn Callable<A, E, O>>,
}

impl<A, E, O> Clone for Tcc<A, E, O> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<A, E, O> fmt::Debug for Tcc<A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcc")
            .field("resource", &self.inner.resource())
            .finish_non_exhaustive()
    }
}

impl<A: 'static, E: From<Error> + 'static, O: 'static> Tcc<A, E, O> {
    /// An action as a type of its own.
    pub fn new<T: TccAction<Arguments = A, Error = E, Output = O>>(action: T) -> Self {
        Self {
            inner: Bound::new(OfTcc(action)),
        }
    }

    /// Tries the action as a branch of the transaction that the running task works for. It is
    /// confirmed or cancelled when that is decided.
    ///
    /// # Errors
    /// The handler's own error, or one of this crate's inside of it: [`Error::NoTransaction`]
    /// without a transaction, [`Error::Refused`] by the coordinator, [`Error::TooLarge`]
    /// arguments. After an error nothing has taken effect, with one exception:
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
