//! Lets a future get so far and no further.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use crate::moment::MAY_BE_LEFT;

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
        let before = MAY_BE_LEFT.replace(true);
        let polled = self.future.as_mut().poll(context);
        MAY_BE_LEFT.set(before);
        polled.map(Some)
    }
}

/// What comes of a future that is polled so many times and then dropped; `None` if it had not
/// ended. One that is lent, pinned, stays as it is and can go on.
pub(crate) async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let future = pin!(future);
    PollLimited {
        future,
        left: times,
    }
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::moment;

    #[tokio::test]
    async fn a_future_gets_so_far_and_can_go_on() {
        let mut future = pin!(async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            7
        });
        assert_eq!(polled(0, future.as_mut()).await, None);
        assert_eq!(polled(2, future.as_mut()).await, None);
        assert_eq!(polled(1, future.as_mut()).await, Some(7));
    }

    #[tokio::test]
    async fn a_moment_is_one_only_where_a_future_may_be_left() {
        let steps = || async {
            moment().await;
            7
        };
        assert_eq!(polled(1, steps()).await, None);
        assert_eq!(polled(2, steps()).await, Some(7));
        assert_eq!(futures_util::FutureExt::now_or_never(steps()), Some(7));
    }
}
