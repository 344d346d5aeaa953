//! A step made of functions of a service.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use super::{HandlerError, SagaAction, SagaStep, StepInput, StepTransaction};

/// One handler of a service `S`, in a transaction `T`, with input `I`.
pub type StepHandler<S, T, I, O> =
    for<'h> fn(&'h S, &'h mut T, StepInput<I>) -> BoxFuture<'h, Result<O, HandlerError>>;

/// The handlers of a step; see [`SagaStep`] for what each must do.
pub struct StepHandlers<S, T, I, O> {
    /// The action's name.
    pub resource: &'static str,
    /// Does the step.
    pub run: StepHandler<S, T, I, O>,
    /// Takes back what it did.
    pub compensate: StepHandler<S, T, I, ()>,
}

impl<S, T, I, O> fmt::Debug for StepHandlers<S, T, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepHandlers")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

struct OfService<S, T, I, O> {
    service: Arc<S>,
    handlers: StepHandlers<S, T, I, O>,
}

impl<S, T, I, O> SagaStep for OfService<S, T, I, O>
where
    S: Send + Sync + 'static,
    T: StepTransaction,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
{
    type Transaction = T;
    type Input = I;
    type Output = O;

    fn resource(&self) -> &str {
        self.handlers.resource
    }

    async fn run(&self, tx: &mut T, input: StepInput<I>) -> Result<O, HandlerError> {
        (self.handlers.run)(&self.service, tx, input).await
    }

    async fn compensate(&self, tx: &mut T, input: StepInput<I>) -> Result<(), HandlerError> {
        (self.handlers.compensate)(&self.service, tx, input).await
    }
}

impl SagaAction {
    /// A step whose handlers are functions of a service. `#[saga_step]` writes a call of this.
    pub fn of_service<S, T, I, O>(service: &Arc<S>, handlers: StepHandlers<S, T, I, O>) -> Self
    where
        S: Send + Sync + 'static,
        T: StepTransaction,
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
    {
        let service = Arc::clone(service);
        Self::new(OfService { service, handlers })
    }
}
