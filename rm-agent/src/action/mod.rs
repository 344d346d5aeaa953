//! Actions of the application: what their modes have in common.
//!
//! Handlers work in local transactions that this library opens and commits, each together with a
//! row of `accede_fence`. That row lets each step take effect once, however often it is ordered,
//! and none come too late.

mod arguments;
mod fenced;
mod unfenced;

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use accede_core::alone::{Knows, May};
use accede_link::context::{self, TransactionContext};
use accede_proto::v1::Mode;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

pub use self::unfenced::Unfenced;
use crate::{
    agent::{Ended, Finish, Job, Pools},
    error::Error,
    moment::moment,
    registrar::{Registrar, Registration},
    store::{
        fence::Promise,
        finish::{BranchKey, PhaseTwoError},
    },
};

/// What the application does in one action, whatever the mode calls it.
pub(crate) trait Action: Send + Sync + 'static {
    /// What the handlers work in.
    type Transaction: sealed::Place;
    /// What the action is called with.
    type Arguments: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What phase one returns.
    type Output: Send + 'static;
    /// What can go wrong in phase one.
    type Error: From<Error> + Send + 'static;

    /// Its branches' mode.
    const MODE: Mode;
    /// The version of the arguments' form.
    const VERSION: u32;

    fn resource(&self) -> &str;

    /// Phase one.
    fn begin(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;

    /// The commit is decided; the order to commit follows.
    fn pre_commit(
        &self,
        _tx: &mut Self::Transaction,
        _arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async { Ok(()) }
    }

    /// Phase two of a commit.
    fn commit(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Phase two of a rollback.
    fn undo(
        &self,
        tx: &mut Self::Transaction,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Reads arguments of an earlier version.
    fn upgrade(
        &self,
        version: u32,
        arguments: serde_json::Value,
    ) -> Result<Self::Arguments, String>;
}

/// By default a service does not read what one of before has registered.
pub(crate) fn no_upgrade<A>(version: u32) -> Result<A, String> {
    Err(format!("this service does not read version {version}"))
}

/// The transaction that the running task works for.
pub(crate) fn current(resource: &str) -> Result<TransactionContext, Error> {
    context::current().ok_or_else(|| Error::NoTransaction {
        what: format!("the action {resource:?}"),
    })
}

/// Why a handler of phase two did not succeed. Its local transaction is rolled back.
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
    pub(crate) fn into_problem(
        self,
        of_database: fn(&sqlx::Error) -> PhaseTwoError,
    ) -> PhaseTwoError {
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

/// What handlers of 3PC can work in: the `FencedTransaction` of a database, in which a promise is
/// kept. Implemented by this crate's types alone.
#[allow(private_bounds, reason = "nobody else can implement it")]
pub trait KeepsPromises: sealed::Place {}

pub(crate) mod sealed {
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
    fn begin<A: Action<Transaction = T>>(
        &self,
        call: Call<'_, A>,
        arguments: A::Arguments,
    ) -> impl Future<Output = Result<A::Output, A::Error>> + Send;

    fn finish<A: Action<Transaction = T>>(
        &self,
        action: &A,
        branch: BranchKey,
        job: Job,
        payload: &[u8],
    ) -> impl Future<Output = Result<Ended, PhaseTwoError>> + Send;

    /// Promises that nobody has spoken of for so long, the oldest first.
    fn promises(
        &self,
        resource: &str,
        older_than: Duration,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Promise>, PhaseTwoError>> + Send;

    /// What a participant of 3PC does by itself about what it knows.
    fn act_alone<A: Action<Transaction = T>>(
        &self,
        action: &A,
        branch: BranchKey,
        knows: Knows,
        payload: &[u8],
    ) -> impl Future<Output = Result<May, PhaseTwoError>> + Send;
}

/// A phase one that is under way.
pub(crate) struct Call<'a, A> {
    action: &'a A,
    context: TransactionContext,
    registrar: &'a Arc<dyn Registrar>,
    payload: Bytes,
}

impl<A: Action> Call<'_, A> {
    fn registration(&self, wait_limit: Duration) -> Registration {
        Registration {
            xid: self.context.xid(),
            resource: self.action.resource().into(),
            mode: A::MODE,
            row_locks: Vec::new(),
            escrow_locks: Vec::new(),
            payload: self.payload.clone(),
            wait_limit,
            can_keep_open: false,
        }
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
pub(crate) trait Callable<A, E, O>: Send + Sync {
    fn call(&self, context: TransactionContext, arguments: A) -> BoxFuture<'_, Result<O, E>>;
    fn resource(&self) -> &str;
    fn unbound(self: Arc<Self>) -> Arc<dyn Unbound>;
}

pub(crate) struct Bound<A: Action> {
    action: A,
    place: OnceLock<Place<A::Transaction>>,
}

struct Place<T: sealed::Place> {
    engine: T::Engine,
    registrar: Arc<dyn Registrar>,
}

impl<A: Action> Bound<A> {
    pub(crate) fn new(action: A) -> Arc<Self> {
        let place = OnceLock::new();
        Arc::new(Self { action, place })
    }

    fn engine(&self) -> Result<&<A::Transaction as sealed::Place>::Engine, PhaseTwoError> {
        let not_started = || PhaseTwoError::Failed {
            reason: self.not_started().to_string(),
        };
        let place = self.place.get();
        place.map(|place| &place.engine).ok_or_else(not_started)
    }

    fn not_started(&self) -> Error {
        Error::Configuration(format!(
            "the action {:?} is not served yet: give it to RmAgent::builder(..) and start \
             the agent",
            self.action.resource()
        ))
    }
}

impl<A: Action> Callable<A::Arguments, A::Error, A::Output> for Bound<A> {
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
            place.engine.begin(call, arguments).await
        })
    }

    fn resource(&self) -> &str {
        self.action.resource()
    }

    fn unbound(self: Arc<Self>) -> Arc<dyn Unbound> {
        self
    }
}

impl<A: Action> Unbound for Bound<A> {
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

impl<A: Action> Finish for Bound<A> {
    fn mode(&self) -> Mode {
        A::MODE
    }

    fn finish<'a>(
        &'a self,
        branch: BranchKey,
        job: Job,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(async move {
            let engine = self.engine()?;
            engine.finish(&self.action, branch, job, payload).await
        })
    }

    fn promises(
        &self,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Promise>, PhaseTwoError>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let resource = self.action.resource();
            engine.promises(resource, older_than, limit).await
        })
    }

    fn act_alone<'a>(
        &'a self,
        branch: BranchKey,
        knows: Knows,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<May, PhaseTwoError>> {
        Box::pin(async move {
            let engine = self.engine()?;
            engine.act_alone(&self.action, branch, knows, payload).await
        })
    }
}

/// What only a saga's step can be asked for.
fn no_step(resource: &str) -> PhaseTwoError {
    PhaseTwoError::Failed {
        reason: format!("{resource:?} is no step of a saga"),
    }
}

/// What a handler comes to, whatever it does.
pub(crate) async fn handled(
    work: impl Future<Output = Result<(), HandlerError>> + Send,
    of_database: fn(&sqlx::Error) -> PhaseTwoError,
) -> Result<(), PhaseTwoError> {
    let ended = unpanicked(work).await;
    ended.map_err(|error| error.into_problem(of_database))
}

/// A panic of a handler as an error that may pass.
pub(crate) async fn unpanicked<T>(
    work: impl Future<Output = Result<T, HandlerError>> + Send,
) -> Result<T, HandlerError> {
    use futures_util::FutureExt as _;
    moment().await;
    // Its local transaction is rolled back, so that nothing it left half-done is seen again.
    let ended = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    moment().await;
    match ended {
        Ok(result) => result,
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(|said| (*said).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            let said = said.unwrap_or_else(|| "without a message".to_owned());
            Err(HandlerError::retry(format!("the handler panicked: {said}")))
        }
    }
}
