//! An action made of functions of a service.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use super::{HandlerError, Tcc, TccAction, TccTransaction};
use crate::error::Error;

/// One handler of a service `S`, in a transaction `T`, with arguments `A`.
pub type Handler<S, T, A, O, E> = for<'h> fn(&'h S, &'h mut T, A) -> BoxFuture<'h, Result<O, E>>;

/// The handlers of an action; see [`TccAction`] for what each must do.
pub struct TccHandlers<S, T, A, E, O = ()> {
    /// The action's name.
    pub resource: &'static str,
    /// Reserves.
    pub try_it: Handler<S, T, A, O, E>,
    /// Turns what was reserved into what was meant.
    pub confirm: Handler<S, T, A, (), HandlerError>,
    /// Gives back what was reserved.
    pub cancel: Handler<S, T, A, (), HandlerError>,
}

impl<S, T, A, E, O> fmt::Debug for TccHandlers<S, T, A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TccHandlers")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

struct OfService<S, T, A, E, O> {
    service: Arc<S>,
    handlers: TccHandlers<S, T, A, E, O>,
}

impl<S, T, A, E, O> TccAction for OfService<S, T, A, E, O>
where
    S: Send + Sync + 'static,
    T: TccTransaction,
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

    async fn try_it(&self, tx: &mut T, arguments: A) -> Result<O, E> {
        (self.handlers.try_it)(&self.service, tx, arguments).await
    }

    async fn confirm(&self, tx: &mut T, arguments: A) -> Result<(), HandlerError> {
        (self.handlers.confirm)(&self.service, tx, arguments).await
    }

    async fn cancel(&self, tx: &mut T, arguments: A) -> Result<(), HandlerError> {
        (self.handlers.cancel)(&self.service, tx, arguments).await
    }
}

impl<A, E, O> Tcc<A, E, O>
where
    A: Serialize + DeserializeOwned + Send + Sync + 'static,
    E: From<Error> + Send + 'static,
    O: Send + 'static,
{
    /// An action whose handlers are functions of a service. `#[tcc]` writes a call of this.
    pub fn of_service<S, T>(service: &Arc<S>, handlers: TccHandlers<S, T, A, E, O>) -> Self
    where
        S: Send + Sync + 'static,
        T: TccTransaction,
    {
        let service = Arc::clone(service);
        Self::new(OfService { service, handlers })
    }
}
