//! A participant made of functions of a service.

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{HandlerError, KeepsPromises, Participant, ThreePhase};
use crate::{error::Error, tcc::Handler};

/// The handlers of a participant; see [`ThreePhase`] for what each must do.
pub struct ThreePhaseHandlers<S, T, A, E, O = ()> {
    /// The action's name.
    pub resource: &'static str,
    /// Promises.
    pub can_commit: Handler<S, T, A, O, E>,
    /// Hears that the commit is decided; `None`: has nothing to do then.
    pub pre_commit: Option<Handler<S, T, A, (), HandlerError>>,
    /// Turns the promise into what it was for.
    pub do_commit: Handler<S, T, A, (), HandlerError>,
    /// Takes the promise back.
    pub abort: Handler<S, T, A, (), HandlerError>,
}

impl<S, T, A, E, O> fmt::Debug for ThreePhaseHandlers<S, T, A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreePhaseHandlers")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

struct OfService<S, T, A, E, O> {
    service: Arc<S>,
    handlers: ThreePhaseHandlers<S, T, A, E, O>,
}

impl<S, T, A, E, O> ThreePhase for OfService<S, T, A, E, O>
where
    S: Send + Sync + 'static,
    T: KeepsPromises,
    A: Serialize + DeserializeOwned + Send + Sync + 'static,
    E: From<Error> + Send + 'static,
    O: Send + 'static,
{
    type Transaction = T;
    type Arguments = A;
    type Output = O;
    type Error = E;

    fn resource(&self) -> &str {
        self.handlers.resource
    }

    async fn can_commit(&self, tx: &mut T, arguments: A) -> Result<O, E> {
        (self.handlers.can_commit)(&self.service, tx, arguments).await
    }

    async fn pre_commit(&self, tx: &mut T, arguments: A) -> Result<(), HandlerError> {
        match self.handlers.pre_commit {
            Some(pre_commit) => pre_commit(&self.service, tx, arguments).await,
            None => Ok(()),
        }
    }

    async fn do_commit(&self, tx: &mut T, arguments: A) -> Result<(), HandlerError> {
        (self.handlers.do_commit)(&self.service, tx, arguments).await
    }

    async fn abort(&self, tx: &mut T, arguments: A) -> Result<(), HandlerError> {
        (self.handlers.abort)(&self.service, tx, arguments).await
    }
}

impl<A, E, O> Participant<A, E, O>
where
    A: Serialize + DeserializeOwned + Send + Sync + 'static,
    E: From<Error> + Send + 'static,
    O: Send + 'static,
{
    /// A participant whose handlers are functions of a service. `#[three_phase]` writes a call of
    /// this.
    pub fn of_service<S, T>(service: &Arc<S>, handlers: ThreePhaseHandlers<S, T, A, E, O>) -> Self
    where
        S: Send + Sync + 'static,
        T: KeepsPromises,
    {
        let service = Arc::clone(service);
        Self::new(OfService { service, handlers })
    }
}
