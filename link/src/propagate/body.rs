//! A response body that stays in its transaction.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::context::{TransactionContext, sync_scope};

pin_project! {
    /// The response body behind [`IncomingXidLayer`](super::IncomingXidLayer).
    ///
    /// A streamed response is produced after the handler returned; its code runs
    /// in the handler's transaction all the same.
    #[project = IncomingBodyProject]
    #[derive(Debug)]
    pub struct IncomingBody<B> {
        #[pin]
        inner: Kind<B>,
    }
}

pin_project! {
    #[project = KindProject]
    #[derive(Debug)]
    enum Kind<B> {
        Handler { #[pin] body: B, context: Option<TransactionContext> },
        Refusal { text: Option<Bytes> },
    }
}

impl<B> IncomingBody<B> {
    pub(super) fn handler(body: B, context: Option<TransactionContext>) -> Self {
        let inner = Kind::Handler { body, context };
        Self { inner }
    }

    pub(super) fn refusal(text: String) -> Self {
        let text = (!text.is_empty()).then(|| Bytes::from(text));
        let inner = Kind::Refusal { text };
        Self { inner }
    }
}

/// An empty body.
impl<B> Default for IncomingBody<B> {
    fn default() -> Self {
        Self::refusal(String::new())
    }
}

impl<B: Body<Data = Bytes>> Body for IncomingBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project().inner.project() {
            KindProject::Handler { body, context } => sync_scope(*context, || body.poll_frame(cx)),
            KindProject::Refusal { text } => Poll::Ready(text.take().map(Frame::data).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Kind::Handler { body, .. } => body.is_end_stream(),
            Kind::Refusal { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Kind::Handler { body, .. } => body.size_hint(),
            Kind::Refusal { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}
