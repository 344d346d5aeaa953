//! What waits to be written to one session, and the stream that writes it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::limits::{SESSION_EVENTS, SESSION_ORDERS};

/// The queue of one session's events. Filled by the driver and the session's reader, emptied by
/// its [`OutputStream`]. Never waits: a session whose queue is full is ended.
#[derive(Debug)]
pub(crate) struct Output<E> {
    inner: Mutex<Inner<E>>,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Inner<E> {
    queue: VecDeque<E>,
    /// The newest of a kind of event of which only the newest counts; written first.
    newest: Option<E>,
    waker: Option<Waker>,
    /// How the stream ends once everything before is written.
    end: Option<Result<(), Box<Status>>>,
}

impl<E> Output<E> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                queue: VecDeque::new(),
                newest: None,
                waker: None,
                end: None,
            }),
            closed: CancellationToken::new(),
        })
    }

    /// Told when nothing can be written any more.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Queues an answer. A session that does not read its answers is ended.
    pub(crate) fn push(&self, event: E) {
        let full = self.change(|inner| {
            let full = inner.queue.len() >= SESSION_EVENTS;
            if !full {
                inner.queue.push_back(event);
            }
            full
        });
        if full == Some(true) {
            self.fail(Status::resource_exhausted(format!(
                "the session was ended: {SESSION_EVENTS} events waited for it to read them; \
                 read faster and connect again"
            )));
        }
    }

    /// Queues an order; false if the session has enough to do, or is over.
    pub(crate) fn push_order(&self, event: E) -> bool {
        let taken = self.change(|inner| {
            let room = inner.queue.len() < SESSION_ORDERS;
            if room {
                inner.queue.push_back(event);
            }
            room
        });
        taken == Some(true)
    }

    /// Queues an event that says all that its predecessor said.
    pub(crate) fn push_newest(&self, event: E) {
        self.change(|inner| inner.newest = Some(event));
    }

    /// Ends the stream after what is queued.
    pub(crate) fn finish(&self) {
        self.change(|inner| inner.end = Some(Ok(())));
        self.closed.cancel();
    }

    /// Ends the stream at once; what is queued is lost.
    pub(crate) fn fail(&self, status: Status) {
        self.change(|inner| {
            inner.queue = VecDeque::new();
            inner.newest = None;
            inner.end = Some(Err(Box::new(status)));
        });
        self.closed.cancel();
    }

    /// `None` when the stream is over.
    fn change<T>(&self, change: impl FnOnce(&mut Inner<E>) -> T) -> Option<T> {
        let (result, waker) = {
            let mut inner = self.inner.lock();
            if inner.end.is_some() {
                return None;
            }
            let result = change(&mut inner);
            (result, inner.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(result)
    }
}

/// The session's events in order. Dropping it closes the output.
#[derive(Debug)]
pub(crate) struct OutputStream<E> {
    output: Arc<Output<E>>,
    taken: VecDeque<E>,
    yielded: bool,
}

impl<E> OutputStream<E> {
    pub(crate) fn new(output: Arc<Output<E>>) -> Self {
        Self {
            output,
            taken: VecDeque::new(),
            yielded: false,
        }
    }
}

impl<E: Unpin> Stream for OutputStream<E> {
    type Item = Result<E, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(event) = this.taken.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        let mut inner = this.output.inner.lock();
        if inner.queue.is_empty() && inner.newest.is_none() {
            return match &mut inner.end {
                None => {
                    inner.waker = Some(cx.waker().clone());
                    this.yielded = false;
                    Poll::Pending
                }
                Some(end) => {
                    let end = std::mem::replace(end, Ok(()));
                    Poll::Ready(end.err().map(|status| Err(*status)))
                }
            };
        }
        if !this.yielded {
            // Whoever else is ready may add its events, so that they share a write.
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.yielded = false;
        std::mem::swap(&mut inner.queue, &mut this.taken);
        let first = inner.newest.take().or_else(|| this.taken.pop_front());
        Poll::Ready(first.map(Ok))
    }
}

impl<E> Drop for OutputStream<E> {
    fn drop(&mut self) {
        self.output.fail(Status::cancelled("the stream is gone"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn events_come_in_order_and_the_newest_first() {
        let output = Output::new();
        let mut stream = OutputStream::new(Arc::clone(&output));
        output.push(1);
        output.push_newest(90);
        output.push_newest(91);
        assert!(output.push_order(2));
        for expected in [91, 1, 2] {
            assert_eq!(stream.next().await.expect("open").expect("sound"), expected);
        }
        output.push(3);
        output.finish();
        output.push(4);
        assert_eq!(stream.next().await.expect("open").expect("sound"), 3);
        assert!(stream.next().await.is_none());
        assert!(output.is_closed());
    }

    #[tokio::test]
    async fn a_waiting_stream_is_woken() {
        let output = Output::new();
        let mut stream = OutputStream::new(Arc::clone(&output));
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        output.push(5);
        let read = reader.await.expect("no panic").expect("open");
        assert_eq!(read.expect("sound"), 5);
        assert!(output.is_closed(), "its stream is gone");
        assert!(!output.push_order(6));
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_is_ended() {
        let output = Output::new();
        let mut stream = OutputStream::new(Arc::clone(&output));
        let orders = (0..SESSION_EVENTS)
            .filter(|n| output.push_order(*n))
            .count();
        assert_eq!(orders, SESSION_ORDERS, "answers keep their room");
        for n in 0..SESSION_EVENTS - SESSION_ORDERS {
            output.push(n);
        }
        assert!(!output.is_closed());
        output.push(0);
        assert!(output.is_closed());
        let end = stream.next().await.expect("told").expect_err("ended");
        assert!(end.message().contains("read faster"), "{end}");
        assert!(stream.next().await.is_none());
    }
}
