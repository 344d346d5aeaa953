//! Moments at which a test may leave a future as it is.

#[cfg(any(test, feature = "testkit"))]
thread_local! {
    /// What this thread polls may be left.
    pub(crate) static MAY_BE_LEFT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A moment between two steps. What waits for a database gives such moments by itself, but not
/// where the answer is there at once, as on a busy machine. Nothing happens outside of
/// [`polled`](crate::polled::polled).
#[cfg(any(test, feature = "testkit"))]
pub(crate) async fn moment() {
    if MAY_BE_LEFT.get() {
        tokio::task::yield_now().await;
    }
}

/// Nobody leaves a future so.
#[cfg(not(any(test, feature = "testkit")))]
pub(crate) fn moment() -> std::future::Ready<()> {
    std::future::ready(())
}
