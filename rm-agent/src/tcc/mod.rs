//! TCC: actions that are tried, then confirmed or cancelled by the application's own code.
//!
//! The three handlers of an action work in local transactions that this library opens and commits,
//! each together with a row of `accede_fence`. That row lets confirm and cancel take effect once,
//! however often they are ordered, lets a cancel without a try do nothing, and a try after it fail.

mod arguments;
mod fenced;
mod handlers;
mod unfenced;

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tcc.md")]
mod guide {}

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
};

use accede_link::context::{self, TransactionContext};
use accede_proto::{Xid, v1::Mode};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    handlers::{Handler, TccHandlers},
    unfenced::Unfenced,
};
use crate::{
    agent::{Finish, Job, Pools},
    error::Error,
    registrar::{Registrar, Registration},
    store::finish::{BranchKey, PhaseTwoError},
};

/// For `#[tcc]` only.
#[doc(hidden)]
pub mod __macros {
    use super::HandlerError;

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
        Err(format!("this service does not read version {version}"))
    }
}

/// Why a confirm or cancel did not succeed. Its local transaction is rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// May work later: the coordinator orders it again, with growing pauses.
    #[error("{0}")]
    Retry(String),
    /// Will never work by itself: the branch is stuck until a person repairs it.
    #[error("{0}")]
    Definite(String),
    /// The database said so. May work later.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl HandlerError {
    /// May work later.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry(reason.into())
    }

    /// Will never work by itself.
    pub fn definite(reason: impl Into<String>) -> Self {
        Self::Definite(reason.into())
    }

    /// As phase two takes it.
    fn into_problem(self, of_database: fn(&sqlx::Error) -> PhaseTwoError) -> PhaseTwoError {
        match self {
            Self::Retry(reason) => PhaseTwoError::Failed { reason },
            Self::Definite(reason) => PhaseTwoError::stuck(reason),
            Self::Database(error) => of_database(&error),
        }
    }
}

/// What handlers can work in. Implemented by this crate's types alone.
#[allow(private_bounds, reason = "nobody else can implement it")]
pub trait TccTransaction: sealed::Place {}

impl<T: sealed::Place> TccTransaction for T {}

mod sealed {
    use super::Engine;
    use crate::{agent::Pools, error::Error};

    pub(crate) trait Place: Sized + Send + 'static {
        type Engine: Engine<Self>;

        /// The engine for this database of the agent's.
        fn engine(pools: &Pools, database: Option<&str>) -> Result<Self::Engine, Error>;
    }
}

/// Runs handlers in one kind of transaction.
pub(crate) trait Engine<T>: Send + Sync + 'static {
    fn try_it<A: TccAction<Transaction = T>>(
        &self,
        call: Call<'_, A>,
        arguments: A::Arguments,
    ) -> impl Future<Output = Result<A::Output, A::Error>> + Send;

    fn finish<A: TccAction<Transaction = T>>(
        &self,
        action: &A,
        branch: BranchKey,
        job: Job,
        payload: &[u8],
    ) -> impl Future<Output = Result<(), PhaseTwoError>> + Send;
}

/// A try that is under way.
pub(crate) struct Call<'a, A> {
    action: &'a A,
    context: TransactionContext,
    registrar: &'a Arc<dyn Registrar>,
    payload: Bytes,
}

impl<A: TccAction> Call<'_, A> {
    fn registration(&self, wait_limit: std::time::Duration) -> Registration {
        Registration {
            xid: self.context.xid(),
            resource: self.action.resource().into(),
            mode: Mode::Tcc,
            row_locks: Vec::new(),
            escrow_locks: Vec::new(),
            payload: self.payload.clone(),
            wait_limit,
        }
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
        let place = OnceLock::new();
        Self {
            inner: Arc::new(Bound { action, place }),
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
        let context = context::current().ok_or_else(|| Error::NoTransaction {
            what: format!("the action {:?}", self.inner.resource()),
        })?;
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

/// An action before its agent has started.
pub(crate) trait Unbound: Send + Sync {
    /// Ties it to its database and the coordinator. Once only.
    fn bind(
        self: Arc<Self>,
        pools: &Pools,
        database: Option<&str>,
        registrar: Arc<dyn Registrar>,
    ) -> Result<Arc<dyn Finish>, Error>;
}

/// A [`Bound`] action without its type.
trait Callable<A, E, O>: Send + Sync {
    fn call(&self, context: TransactionContext, arguments: A) -> BoxFuture<'_, Result<O, E>>;
    fn resource(&self) -> &str;
    fn unbound(self: Arc<Self>) -> Arc<dyn Unbound>;
}

struct Bound<A: TccAction> {
    action: A,
    place: OnceLock<Place<A::Transaction>>,
}

struct Place<T: sealed::Place> {
    engine: T::Engine,
    registrar: Arc<dyn Registrar>,
}

impl<A: TccAction> Bound<A> {
    fn not_started(&self) -> Error {
        Error::Configuration(format!(
            "the action {:?} is not served yet: give it to RmAgent::builder(..).tcc(..) and start \
             the agent",
            self.action.resource()
        ))
    }
}

impl<A: TccAction> Callable<A::Arguments, A::Error, A::Output> for Bound<A> {
    fn call(
        &self,
        context: TransactionContext,
        arguments: A::Arguments,
    ) -> BoxFuture<'_, Result<A::Output, A::Error>> {
        Box::pin(async move {
            let place = self.place.get().ok_or_else(|| self.not_started())?;
            let payload = arguments::encode(A::VERSION, &arguments, self.action.resource())?;
            let call = Call {
                action: &self.action,
                context,
                registrar: &place.registrar,
                payload,
            };
            place.engine.try_it(call, arguments).await
        })
    }

    fn resource(&self) -> &str {
        self.action.resource()
    }

    fn unbound(self: Arc<Self>) -> Arc<dyn Unbound> {
        self
    }
}

impl<A: TccAction> Unbound for Bound<A> {
    fn bind(
        self: Arc<Self>,
        pools: &Pools,
        database: Option<&str>,
        registrar: Arc<dyn Registrar>,
    ) -> Result<Arc<dyn Finish>, Error> {
        let engine = <A::Transaction as sealed::Place>::engine(pools, database)?;
        let place = Place { engine, registrar };
        if self.place.set(place).is_err() {
            return Err(Error::Configuration(format!(
                "the action {:?} is served by another agent already; make one for each agent",
                self.action.resource()
            )));
        }
        Ok(self)
    }
}

impl<A: TccAction> Finish for Bound<A> {
    fn mode(&self) -> Mode {
        Mode::Tcc
    }

    fn finish<'a>(
        &'a self,
        branch: BranchKey,
        job: Job,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(async move {
            let Some(place) = self.place.get() else {
                let reason = self.not_started().to_string();
                return Err(PhaseTwoError::Failed { reason });
            };
            place
                .engine
                .finish(&self.action, branch, job, payload)
                .await
        })
    }
}

/// What a confirm or cancel comes to, whatever the handler does.
async fn handled(
    work: impl Future<Output = Result<(), HandlerError>> + Send,
    of_database: fn(&sqlx::Error) -> PhaseTwoError,
) -> Result<(), PhaseTwoError> {
    use futures_util::FutureExt as _;
    // Its local transaction is rolled back, so that nothing it left half-done is seen again.
    match std::panic::AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result.map_err(|error| error.into_problem(of_database)),
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(|said| (*said).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            let said = said.unwrap_or_else(|| "without a message".to_owned());
            Err(PhaseTwoError::Failed {
                reason: format!("the handler panicked: {said}"),
            })
        }
    }
}
