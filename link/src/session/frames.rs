//! The two pairs of frames that a session can carry.

use std::{
    fmt,
    fmt::Debug,
    pin::Pin,
    task::{Context, Poll},
};

use accede_proto::v1::{
    BranchEvent, BranchRequest, Refusal, TransactionEvent, TransactionRequest, branch_event,
    branch_request, branches_client::BranchesClient, transaction_event, transaction_request,
    transactions_client::TransactionsClient,
};
use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, Stream, StreamExt as _},
};
use tonic::{Status, Streaming, transport::Channel};

/// One bidirectional stream of the coordinator: its frames and how it is opened.
///
/// Both kinds of frame have a tag and a body. A request's tag is echoed by its
/// answer; an event with tag 0 is news that answers nothing.
pub trait Frames: Debug + Send + Sync + Sized + 'static {
    /// What goes to the coordinator.
    type Request: Send + 'static;
    /// What comes from the coordinator.
    type Event: Send + 'static;
    /// The body of a request.
    type Ask: Clone + Debug + Send + Sync + 'static;
    /// The body of an event.
    type Answer: Debug + Send + 'static;

    /// The service's name, for logs.
    const SERVICE: &'static str;

    /// Puts a request together.
    fn request(tag: u64, body: Self::Ask) -> Self::Request;
    /// Encoded length of a request's body in bytes.
    fn length(body: &Self::Ask) -> usize;
    /// Takes an event apart; no body when it is of a kind that this version does not know.
    fn event(event: Self::Event) -> (u64, Option<Self::Answer>);
    /// Takes the refusal out of an answer that is one, gives any other answer back.
    ///
    /// # Errors
    /// The answer itself when it is no refusal.
    fn refusal(answer: Self::Answer) -> Result<Refusal, Self::Answer>;
    /// The cluster id inside the opening answer; `None` when the event is not an opening answer.
    fn cluster_id(answer: &Self::Answer) -> Option<&[u8]>;
    /// Opens the stream.
    fn open(
        channel: Channel,
        outbound: Outbound<Self::Request>,
    ) -> BoxFuture<'static, Result<Streaming<Self::Event>, Status>>;
}

/// What a transaction manager says and hears.
#[derive(Clone, Copy, Debug)]
pub struct TransactionFrames;

impl Frames for TransactionFrames {
    type Request = TransactionRequest;
    type Event = TransactionEvent;
    type Ask = transaction_request::Body;
    type Answer = transaction_event::Body;

    const SERVICE: &'static str = "transactions";

    fn request(tag: u64, body: Self::Ask) -> Self::Request {
        TransactionRequest {
            tag,
            body: Some(body),
        }
    }

    fn length(body: &Self::Ask) -> usize {
        body.encoded_len()
    }

    fn event(event: Self::Event) -> (u64, Option<Self::Answer>) {
        (event.tag, event.body)
    }

    fn refusal(answer: Self::Answer) -> Result<Refusal, Self::Answer> {
        match answer {
            transaction_event::Body::Refusal(refusal) => Ok(refusal),
            other => Err(other),
        }
    }

    fn cluster_id(answer: &Self::Answer) -> Option<&[u8]> {
        match answer {
            transaction_event::Body::Lease(lease) => Some(&lease.cluster_id),
            _ => None,
        }
    }

    fn open(
        channel: Channel,
        outbound: Outbound<Self::Request>,
    ) -> BoxFuture<'static, Result<Streaming<Self::Event>, Status>> {
        Box::pin(async move {
            let answer = TransactionsClient::new(channel).session(outbound).await?;
            Ok(answer.into_inner())
        })
    }
}

/// What a resource manager says and hears.
#[derive(Clone, Copy, Debug)]
pub struct BranchFrames;

impl Frames for BranchFrames {
    type Request = BranchRequest;
    type Event = BranchEvent;
    type Ask = branch_request::Body;
    type Answer = branch_event::Body;

    const SERVICE: &'static str = "branches";

    fn request(tag: u64, body: Self::Ask) -> Self::Request {
        BranchRequest {
            tag,
            body: Some(body),
        }
    }

    fn length(body: &Self::Ask) -> usize {
        body.encoded_len()
    }

    fn event(event: Self::Event) -> (u64, Option<Self::Answer>) {
        (event.tag, event.body)
    }

    fn refusal(answer: Self::Answer) -> Result<Refusal, Self::Answer> {
        match answer {
            branch_event::Body::Refusal(refusal) => Ok(refusal),
            other => Err(other),
        }
    }

    fn cluster_id(answer: &Self::Answer) -> Option<&[u8]> {
        match answer {
            branch_event::Body::Attached(attached) => Some(&attached.cluster_id),
            _ => None,
        }
    }

    fn open(
        channel: Channel,
        outbound: Outbound<Self::Request>,
    ) -> BoxFuture<'static, Result<Streaming<Self::Event>, Status>> {
        Box::pin(async move {
            let answer = BranchesClient::new(channel).session(outbound).await?;
            Ok(answer.into_inner())
        })
    }
}

/// The requests of one connection, in the order in which they go out.
pub struct Outbound<R>(BoxStream<'static, R>);

impl<R> Outbound<R> {
    pub(super) fn new(requests: impl Stream<Item = R> + Send + 'static) -> Self {
        Self(requests.boxed())
    }
}

impl<R> Stream for Outbound<R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<R> fmt::Debug for Outbound<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}
