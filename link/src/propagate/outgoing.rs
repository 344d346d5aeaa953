//! The client's side.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::headers;
use crate::context;

/// Sends the caller's transaction along with every request.
///
/// The context is read where the service is called. Put this layer outermost: a
/// buffer outside of it would call it from a task of its own, which works for no
/// transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutgoingXidLayer;

impl<S> Layer<S> for OutgoingXidLayer {
    type Service = OutgoingXid<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OutgoingXid { inner }
    }
}

/// A client that sends the caller's transaction along; made by [`OutgoingXidLayer`].
#[derive(Clone, Copy, Debug)]
pub struct OutgoingXid<S> {
    inner: S,
}

impl<S> OutgoingXid<S> {
    /// Wraps one client, for example a `tonic::transport::Channel`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for OutgoingXid<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        headers::write(request.headers_mut(), context::current());
        self.inner.call(request)
    }
}
