//! What a session asks of the side that uses it.

use accede_proto::v1::Refusal;

use super::{ClusterId, Frames, shared::Shared};

/// The user's side of a session: a transaction manager or a resource manager.
///
/// All methods are called from the session's own task, one at a time, and must
/// return quickly: hand work to a task of your own. For every connection the
/// order is: [`opening`](Self::opening), then [`opened`](Self::opened) or
/// [`opening_refused`](Self::opening_refused), then any number of
/// [`news`](Self::news), then [`disconnected`](Self::disconnected).
pub trait Role<F: Frames>: Send + Sync + 'static {
    /// The opening frame for a new connection, made anew each time. `cluster` is
    /// the cluster that this session is pinned to, if it is known. Called right
    /// before the frame is sent: a time-to-live in the answer counts from here.
    fn opening(&self, cluster: Option<ClusterId>) -> F::Ask;

    /// The opening answer came. Returns the frames (with tag 0) that must be
    /// sent again before everything else, in order; idempotent calls and
    /// deliveries are sent again by the session itself right after them.
    ///
    /// # Errors
    /// A sentence for people when the answer is not acceptable; the connection is
    /// then given up and tried again later.
    fn opened(
        &self,
        answer: F::Answer,
        cluster: ClusterId,
        queue: &QueuedFrames<'_, F>,
    ) -> Result<Vec<F::Ask>, String>;

    /// The coordinator refused the opening frame. The next attempt calls
    /// [`opening`](Self::opening) again; change what it returns when that can help.
    fn opening_refused(&self, _refusal: &Refusal) {}

    /// An event that answers nothing (tag 0).
    fn news(&self, news: F::Answer);

    /// A delivery was refused for good; it will not be sent again.
    fn delivery_refused(&self, body: &F::Ask, refusal: &Refusal) {
        tracing::warn!(?body, reason = %refusal.message, "the coordinator refused a message");
    }

    /// An opened connection ended.
    fn disconnected(&self) {}
}

/// The frames without an answer that were queued while there was no connection.
pub struct QueuedFrames<'a, F: Frames>(pub(super) &'a Shared<F>);

impl<F: Frames> QueuedFrames<'_, F> {
    /// Drops them, because [`Role::opened`] returns them or because they have lost
    /// their meaning. A role that keeps its frames itself calls this under the
    /// same lock under which it keeps and sends, so that none is lost or doubled.
    pub fn discard(&self) {
        self.0.discard_plain();
    }
}

impl<F: Frames> std::fmt::Debug for QueuedFrames<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueuedFrames")
    }
}
