//! The server's side.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

use super::{IncomingBody, InvalidHeader, headers};
use crate::context::{Scoped, TransactionContext, scope, sync_scope};

/// Runs every request inside the transaction that it came with.
///
/// Goes on a tonic `Server`, a single tonic service or an axum `Router`. A
/// request without the headers runs outside of any transaction; one with
/// unreadable headers is refused without running.
#[derive(Clone, Copy, Debug, Default)]
pub struct IncomingXidLayer;

impl<S> Layer<S> for IncomingXidLayer {
    type Service = IncomingXid<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IncomingXid { inner }
    }
}

/// A service that runs requests inside their transaction; made by [`IncomingXidLayer`].
#[derive(Clone, Copy, Debug)]
pub struct IncomingXid<S> {
    inner: S,
}

impl<S> IncomingXid<S> {
    /// Wraps one service.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for IncomingXid<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, Sent, Answered> Service<Request<Sent>> for IncomingXid<S>
where
    S: Service<Request<Sent>, Response = Response<Answered>>,
{
    type Response = Response<IncomingBody<Answered>>;
    type Error = S::Error;
    type Future = IncomingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        let state = match headers::read(request.headers()) {
            Ok(context) => {
                // Layers below may look at the context before they return a future.
                let future = sync_scope(context, || self.inner.call(request));
                State::Run {
                    future: scope(context, future),
                    context,
                }
            }
            Err(error) => State::Refuse {
                error,
                grpc: is_grpc(request.headers()),
            },
        };
        IncomingFuture { state }
    }
}

pin_project! {
    /// The future of [`IncomingXid`].
    pub struct IncomingFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Run { #[pin] future: Scoped<F>, context: Option<TransactionContext> },
        Refuse { error: InvalidHeader, grpc: bool },
    }
}

impl<F, B, E> Future for IncomingFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<IncomingBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProject::Run { future, context } => ready!(future.poll(cx))
                .map(|response| response.map(|body| IncomingBody::handler(body, *context))),
            StateProject::Refuse { error, grpc } => Ok(refuse(error, *grpc)),
        })
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn refuse<B>(error: &InvalidHeader, grpc: bool) -> Response<IncomingBody<B>> {
    tracing::warn!(%error, "refused a request whose transaction cannot be read");
    if grpc {
        return Status::invalid_argument(error.to_string()).into_http();
    }
    let mut response = Response::new(IncomingBody::refusal(error.to_string()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
