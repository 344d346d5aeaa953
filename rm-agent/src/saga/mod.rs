//! Sagas: steps that are done for good, and compensated by the application's own code.
//!
//! The coordinator orders the steps of a plan, one after the other or side by side; this is the
//! side of those who do them. Both handlers of a step work in local transactions that this library
//! opens and commits, each together with a row of `accede_fence`. That row lets a step and its
//! compensation take effect once, however often they are ordered, keeps what the step returned, lets
//! a compensation without a step do nothing, and a step after it fail.

mod fenced;
mod handlers;
mod input;

/// The guide's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/saga.md")]
mod guide {}

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    handlers::{StepHandler, StepHandlers},
    input::StepInput,
};
pub use crate::tcc::HandlerError;
use crate::{
    agent::{DoStep, Pools},
    error::Error,
    store::fence::Kept,
};

/// For `#[saga_step]` only.
#[doc(hidden)]
pub mod __macros {
    use super::HandlerError;
    pub use crate::tcc::__macros::Outcome;

    /// What a handler returned.
    pub fn ended<T, E: Into<HandlerError>>(result: Result<T, E>) -> Result<T, HandlerError> {
        result.map_err(Into::into)
    }
}

/// A step of sagas and its compensation. `#[saga_step(…)]` writes the implementation.
pub trait SagaStep: Send + Sync + 'static {
    /// What the handlers work in: `FencedTransaction` of the database.
    type Transaction: StepTransaction;
    /// What the step is started with. Travels as JSON.
    type Input: DeserializeOwned + Send + 'static;
    /// What it returns to later steps, to its compensation and to whoever started the saga.
    /// Travels as JSON.
    type Output: Serialize + Send + 'static;

    /// The action's name, the same in all services that do it, for example `parcel.book`.
    fn resource(&self) -> &str;

    /// Does the step. Takes effect once, however often it is called.
    ///
    /// # Errors
    /// [`HandlerError::Definite`]: it cannot be done, the transaction rolls back. Any other is
    /// tried again as the plan says. In either case nothing has taken effect.
    fn run(
        &self,
        tx: &mut Self::Transaction,
        input: StepInput<Self::Input>,
    ) -> impl Future<Output = Result<Self::Output, HandlerError>> + Send;

    /// Takes back what the step did. Only after a step that took effect; takes effect once.
    ///
    /// # Errors
    /// [`HandlerError::Definite`]: a person must see to it. Any other is tried again.
    fn compensate(
        &self,
        tx: &mut Self::Transaction,
        input: StepInput<Self::Input>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// What handlers of steps can work in: the `FencedTransaction` of each database.
#[allow(private_bounds, reason = "nobody else can implement it")]
pub trait StepTransaction: Kept {}

impl<T: Kept> StepTransaction for T {}

/// A step that agents can do. Make it and give it to the agent's builder. Clones share it.
///
/// Create it with the function that `#[saga_step]` writes, or with [`SagaAction::new`].
#[derive(Clone)]
pub struct SagaAction {
    inner: Arc<dyn UnboundStep>,
}

impl fmt::Debug for SagaAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaAction")
            .field("resource", &self.inner.resource())
            .finish_non_exhaustive()
    }
}

impl SagaAction {
    /// A step as a type of its own.
    pub fn new<S: SagaStep>(step: S) -> Self {
        let fences = OnceLock::new();
        Self {
            inner: Arc::new(Bound { step, fences }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.inner.resource()
    }

    pub(crate) fn unbound(&self) -> Arc<dyn UnboundStep> {
        Arc::clone(&self.inner)
    }
}

/// A step before its agent has started.
pub(crate) trait UnboundStep: Send + Sync {
    fn resource(&self) -> &str;

    /// Ties it to its database. Once only.
    fn bind(self: Arc<Self>, pools: &Pools, database: &str) -> Result<Arc<dyn DoStep>, Error>;
}

/// A step with its database.
struct Bound<S: SagaStep> {
    step: S,
    fences: OnceLock<<S::Transaction as Kept>::Fences>,
}

impl<S: SagaStep> UnboundStep for Bound<S> {
    fn resource(&self) -> &str {
        self.step.resource()
    }

    fn bind(self: Arc<Self>, pools: &Pools, database: &str) -> Result<Arc<dyn DoStep>, Error> {
        let fences = <S::Transaction as Kept>::fences(pools, database)?;
        if self.fences.set(fences).is_err() {
            return Err(Error::Configuration(format!(
                "the action {:?} is served by another agent already; make one for each agent",
                self.step.resource()
            )));
        }
        Ok(self)
    }
}
