//! What waits to be written to a stream.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

use futures_util::stream::{self, Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A queue that any task fills and one stream drains. It holds a handful of messages for each
/// transaction in flight, so the number of those bounds it.
pub(super) struct Outbox<T> {
    queue: Mutex<Vec<T>>,
    filled: Notify,
    pushed: AtomicU64,
    closed: AtomicBool,
}

impl<T: Send + 'static> Outbox<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Vec::new()),
            filled: Notify::new(),
            pushed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    pub(super) fn push(&self, message: T) {
        self.pushed.fetch_add(1, Relaxed);
        self.queue.lock().push(message);
        self.filled.notify_one();
    }

    /// Messages so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed.load(Relaxed)
    }

    /// Ends the stream once it has drained the queue. The connection lives as long as the stream.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.filled.notify_one();
    }

    /// The messages in the order in which they came.
    pub(super) fn drain(self: &Arc<Self>) -> impl Stream<Item = T> + Send + use<T> {
        let outbox = Arc::clone(self);
        stream::unfold(outbox, |outbox| async move {
            loop {
                // Whoever else is ready may add its messages, so that they share the write.
                tokio::task::yield_now().await;
                let closed = outbox.closed.load(SeqCst);
                let messages = std::mem::take(&mut *outbox.queue.lock());
                if !messages.is_empty() {
                    return Some((stream::iter(messages), outbox));
                }
                if closed {
                    return None;
                }
                outbox.filled.notified().await;
            }
        })
        .flatten()
    }
}
