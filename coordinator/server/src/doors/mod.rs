//! The gRPC services. Sessions and unary calls share the checks of [`crate::convert`] and the
//! queue in front of the driver.

pub(crate) mod branches;
mod branches_session;
pub(crate) mod operator;
mod own_worker;
pub(crate) mod transactions;
mod transactions_session;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use accede_proto::v1::Refusal;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::{
    hub::Hub,
    limits::{OPENING, READ_CHUNK},
    output::Output,
    refusal,
};

/// A refusal as a unary call's answer.
#[expect(
    clippy::needless_pass_by_value,
    reason = "handed to map_err, which gives the error away"
)]
pub(crate) fn refused(refusal: Box<Refusal>) -> Status {
    refusal::status(&refusal)
}

/// What a session's reader finds.
enum Found<T> {
    /// At least one request.
    Requests(Vec<T>),
    /// The client has nothing more to say, or the session is over.
    End,
}

/// Reads what has arrived, up to a chunk.
async fn read_chunk<T, E>(
    hub: &Hub,
    requests: &mut Streaming<T>,
    output: &Output<E>,
    into: Vec<T>,
) -> Found<T> {
    let chunk = Chunk {
        requests,
        taken: into,
    };
    tokio::select! {
        biased;
        () = output.closed().cancelled() => Found::End,
        () = hub.end_sessions.cancelled() => Found::End,
        found = chunk => found,
    }
}

/// The opening frame, if it comes in time.
async fn first<T>(hub: &Hub, requests: &mut Streaming<T>) -> Result<T, Status> {
    let in_time = tokio::time::timeout(OPENING, requests.message());
    let read = tokio::select! {
        () = hub.end_sessions.cancelled() => {
            return Err(Status::unavailable("the coordinator is shutting down"));
        }
        read = in_time => read,
    };
    match read {
        Ok(Ok(Some(request))) => Ok(request),
        Ok(Ok(None)) => Err(Status::invalid_argument(
            "the stream ended without an opening frame; send one first",
        )),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no opening frame came within {OPENING:?}; send one first"
        ))),
    }
}

/// Collects the requests that are ready.
struct Chunk<'a, T> {
    requests: &'a mut Streaming<T>,
    taken: Vec<T>,
}

impl<T> Unpin for Chunk<'_, T> {}

impl<T> Future for Chunk<'_, T> {
    type Output = Found<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found<T>> {
        let this = &mut *self;
        while this.taken.len() < READ_CHUNK {
            match Pin::new(&mut *this.requests).poll_next(cx) {
                Poll::Ready(Some(Ok(request))) => this.taken.push(request),
                // What was read before is not lost: the end is found again.
                Poll::Ready(None) if this.taken.is_empty() => return Poll::Ready(Found::End),
                Poll::Ready(Some(Err(status))) => {
                    tracing::debug!(%status, "a session's stream broke");
                    if this.taken.is_empty() {
                        return Poll::Ready(Found::End);
                    }
                    break;
                }
                Poll::Ready(None) => break,
                Poll::Pending if this.taken.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Found::Requests(std::mem::take(&mut this.taken)))
    }
}
