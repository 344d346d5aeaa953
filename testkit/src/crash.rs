//! Lets a future get so far and no further.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Polls a future a number of times, then stops; the future stays as it is.
pub(crate) struct Steps<'a, F> {
    pub(crate) future: Pin<&'a mut F>,
    pub(crate) left: u32,
}

impl<F: Future> Future for Steps<'_, F> {
    /// `None` if it has not ended.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.future.as_mut().poll(context).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_future_gets_so_far_and_can_go_on() {
        let mut future = pin!(async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            7
        });
        let mut after = async |left| {
            let future = future.as_mut();
            Steps { future, left }.await
        };
        assert_eq!(after(0).await, None);
        assert_eq!(after(2).await, None);
        assert_eq!(after(1).await, Some(7));
    }
}
