//! Drops a future half-way.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// Gives up on a future after it was polled this many times.
struct PollLimited<'a, F> {
    future: Pin<&'a mut F>,
    left: usize,
}

impl<F: Future> Future for PollLimited<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.future.as_mut().poll(context).map(Some)
    }
}

/// What comes of a future that is dropped after so many polls; `None` if it had not ended.
pub(super) async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let future = pin!(future);
    PollLimited {
        future,
        left: times,
    }
    .await
}
