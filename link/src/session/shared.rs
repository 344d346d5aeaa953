//! What the callers, the writer and the reader of a session share: the queue of
//! frames to write and the table of requests that wait for an answer.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use accede_proto::v1::{Refusal, refusal::Code};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Frames, Role, SessionError, SessionLimits, SessionStatus, limits};

/// The queue may hold this many entries of calls that were given up before it is swept.
const STALE_ENTRIES: usize = 1024;

pub(super) type Waiter<F> = oneshot::Sender<Result<<F as Frames>::Answer, SessionError>>;

pub(super) struct Shared<F: Frames> {
    pub(super) limits: SessionLimits,
    pub(super) calls: Arc<Semaphore>,
    pub(super) deliveries: Arc<Semaphore>,
    pub(super) room: Arc<Semaphore>,
    pub(super) status: watch::Sender<SessionStatus>,
    /// Ends the session's task at once.
    pub(super) cancel: CancellationToken,
    /// Counts how often the role asked for a new opening frame.
    pub(super) reopen: watch::Sender<u64>,
    /// Told when nothing is queued or open any more.
    pub(super) drained: Notify,
    state: Mutex<State<F>>,
}

struct State<F: Frames> {
    last_tag: u64,
    live: Option<Live>,
    closing: bool,
    /// The writer ends its stream as soon as nothing is queued.
    finishing: bool,
    queue: VecDeque<Queued<F>>,
    /// Entries of `queue` that carry their own body.
    plain: usize,
    open: HashMap<u64, Open<F>>,
}

/// The connection whose opening answer came.
#[derive(Clone)]
struct Live {
    generation: u64,
    writable: Arc<Notify>,
}

enum Queued<F: Frames> {
    /// A frame without an answer.
    Plain {
        body: F::Ask,
        /// It holds one permit of `room`; frames that a role sends again do not.
        holds_room: bool,
    },
    /// The body lies in the table.
    Open(u64),
}

struct Open<F: Frames> {
    body: F::Ask,
    kind: Kind<F>,
    /// Its tag is in the queue.
    queued: bool,
    /// It may have reached the coordinator.
    written: bool,
    /// The coordinator said that it was certainly not carried out.
    untouched: bool,
}

enum Kind<F: Frames> {
    Call {
        waiter: Waiter<F>,
        /// May be sent again when a connection breaks.
        idempotent: bool,
    },
    Delivery {
        _slot: OwnedSemaphorePermit,
    },
}

/// What the reader does after an answer.
pub(super) enum Next {
    Continue,
    /// This coordinator does not lead or is shutting down: try another.
    Elsewhere(Refusal),
}

/// What the writer finds.
pub(super) enum Taken<F: Frames> {
    Frames(Vec<F::Request>),
    Nothing,
    /// The connection is not the live one any more.
    Gone,
}

impl<F: Frames> Shared<F> {
    pub(super) fn new(limits: SessionLimits, status: watch::Sender<SessionStatus>) -> Self {
        Self {
            limits,
            calls: Arc::new(Semaphore::new(limits.open_calls)),
            deliveries: Arc::new(Semaphore::new(limits.open_deliveries)),
            room: Arc::new(Semaphore::new(limits.queued_frames)),
            status,
            cancel: CancellationToken::new(),
            reopen: watch::Sender::new(0),
            drained: Notify::new(),
            state: Mutex::new(State {
                last_tag: 0,
                live: None,
                closing: false,
                finishing: false,
                queue: VecDeque::new(),
                plain: 0,
                open: HashMap::new(),
            }),
        }
    }

    pub(super) fn next_tag(&self) -> u64 {
        self.state.lock().next_tag()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Queues a call; answers its tag.
    pub(super) fn add_call(
        &self,
        body: F::Ask,
        idempotent: bool,
        waiter: Waiter<F>,
    ) -> Result<u64, SessionError> {
        self.add(body, Kind::Call { waiter, idempotent }, false)
    }

    /// Queues a delivery. Also while closing, so that what is owed still goes out.
    pub(super) fn add_delivery(
        &self,
        body: F::Ask,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), SessionError> {
        self.add(body, Kind::Delivery { _slot: slot }, true)
            .map(drop)
    }

    fn add(&self, body: F::Ask, kind: Kind<F>, also_closing: bool) -> Result<u64, SessionError> {
        let mut state = self.state.lock();
        if self.cancel.is_cancelled() || (state.closing && !also_closing) {
            return Err(SessionError::Closed);
        }
        let tag = state.next_tag();
        let open = Open {
            body,
            kind,
            queued: true,
            written: false,
            untouched: false,
        };
        state.open.insert(tag, open);
        state.push(Queued::Open(tag));
        Ok(tag)
    }

    /// Queues a frame without an answer; the caller has taken room for it.
    pub(super) fn add_plain(&self, body: F::Ask) -> Result<(), SessionError> {
        let mut state = self.state.lock();
        if self.cancel.is_cancelled() {
            return Err(SessionError::Closed);
        }
        state.plain += 1;
        state.push(Queued::Plain {
            body,
            holds_room: true,
        });
        Ok(())
    }

    /// Gives a call up; tells whether it may have reached the coordinator.
    pub(super) fn give_up(&self, tag: u64) -> bool {
        let mut state = self.state.lock();
        let written = state.open.remove(&tag).is_some_and(|open| open.written);
        self.tell_if_drained(&state);
        written
    }

    pub(super) fn discard_plain(&self) {
        let mut state = self.state.lock();
        let mut room = 0;
        state.queue.retain(|queued| match queued {
            Queued::Open(_) => true,
            Queued::Plain { holds_room, .. } => {
                room += usize::from(*holds_room);
                false
            }
        });
        state.plain = 0;
        self.room.add_permits(room);
    }

    /// The opening answer came: `first` goes out first, then in the order of their
    /// first sending the calls and deliveries that a former connection left
    /// unanswered, then what was queued meanwhile.
    pub(super) fn go_live(&self, generation: u64, writable: &Arc<Notify>, first: Vec<F::Ask>) {
        let mut state = self.state.lock();
        let State {
            queue, open, plain, ..
        } = &mut *state;
        let mut again: Vec<u64> = Vec::new();
        for (tag, open) in open.iter_mut().filter(|(_, open)| !open.queued) {
            open.queued = true;
            again.push(*tag);
        }
        again.sort_unstable();
        for tag in again.into_iter().rev() {
            queue.push_front(Queued::Open(tag));
        }
        // The role's own bound holds for these.
        *plain += first.len();
        for body in first.into_iter().rev() {
            queue.push_front(Queued::Plain {
                body,
                holds_room: false,
            });
        }
        state.live = Some(Live {
            generation,
            writable: Arc::clone(writable),
        });
        drop(state);
        writable.notify_one();
    }

    /// The writer's next chunk.
    pub(super) fn take(&self, generation: u64) -> Taken<F> {
        let mut state = self.state.lock();
        if state.live.as_ref().map(|live| live.generation) != Some(generation) {
            return Taken::Gone;
        }
        let mut frames = Vec::with_capacity(state.queue.len().min(limits::WRITE_CHUNK));
        let (mut plain, mut room) = (0, 0);
        while frames.len() < limits::WRITE_CHUNK {
            let Some(queued) = state.queue.pop_front() else {
                break;
            };
            match queued {
                Queued::Plain { body, holds_room } => {
                    plain += 1;
                    room += usize::from(holds_room);
                    frames.push(F::request(0, body));
                }
                Queued::Open(tag) => {
                    // Absent: the caller gave up before it was written.
                    if let Some(open) = state.open.get_mut(&tag) {
                        open.queued = false;
                        open.written = true;
                        open.untouched = false;
                        frames.push(F::request(tag, open.body.clone()));
                    }
                }
            }
        }
        state.plain -= plain;
        self.room.add_permits(room);
        if !frames.is_empty() {
            return Taken::Frames(frames);
        }
        self.tell_if_drained(&state);
        if state.finishing {
            Taken::Gone
        } else {
            Taken::Nothing
        }
    }

    /// An answer came.
    pub(super) fn answer(
        self: &Arc<Self>,
        role: &dyn Role<F>,
        tag: u64,
        answer: F::Answer,
    ) -> Next {
        let result = F::refusal(answer);
        if let Ok(refusal) = &result {
            let keeps = match refusal.code() {
                // Certainly not carried out: any request may be sent again elsewhere.
                Code::NotLeader | Code::ShuttingDown => {
                    self.keep_for_later(tag);
                    return Next::Elsewhere(refusal.clone());
                }
                Code::Overloaded | Code::UnknownOutcome => self.retry_delivery(tag, refusal),
                _ => false,
            };
            if keeps {
                return Next::Continue;
            }
        }
        let Some(open) = self.remove(tag) else {
            // The caller gave up meanwhile.
            return Next::Continue;
        };
        match open.kind {
            Kind::Call { waiter, .. } => {
                let result = match result {
                    Err(answer) => Ok(answer),
                    Ok(refusal) if refusal.code() == Code::UnknownOutcome => {
                        Err(SessionError::Unknown {
                            reason: refusal.message,
                        })
                    }
                    Ok(refusal) => Err(SessionError::Refused(refusal)),
                };
                // The caller may have been dropped in this very moment.
                drop(waiter.send(result));
            }
            Kind::Delivery { .. } => {
                if let Ok(refusal) = result {
                    role.delivery_refused(&open.body, &refusal);
                }
            }
        }
        Next::Continue
    }

    fn remove(&self, tag: u64) -> Option<Open<F>> {
        let mut state = self.state.lock();
        let open = state.open.remove(&tag);
        self.tell_if_drained(&state);
        open
    }

    fn keep_for_later(&self, tag: u64) {
        if let Some(open) = self.state.lock().open.get_mut(&tag) {
            open.written = false;
            open.untouched = true;
        }
    }

    /// Sends a delivery again after a pause; false when the tag is not a delivery's.
    fn retry_delivery(self: &Arc<Self>, tag: u64, refusal: &Refusal) -> bool {
        let state = self.state.lock();
        let is_delivery = state
            .open
            .get(&tag)
            .is_some_and(|open| matches!(open.kind, Kind::Delivery { .. }));
        let Some(live) = state.live.clone().filter(|_| is_delivery) else {
            return is_delivery;
        };
        drop(state);
        let pause = limits::delivery_pause(refusal.retry_after_ms);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => shared.queue_again(tag, live.generation),
                () = shared.cancel.cancelled() => {}
            }
        });
        true
    }

    /// Queues an unanswered delivery again; a new connection does that by itself.
    fn queue_again(&self, tag: u64, generation: u64) {
        let mut state = self.state.lock();
        if state.live.as_ref().map(|live| live.generation) != Some(generation) {
            return;
        }
        let Some(open) = state.open.get_mut(&tag).filter(|open| !open.queued) else {
            return;
        };
        open.queued = true;
        state.push(Queued::Open(tag));
    }

    /// The connection ended: calls that were written and must not be sent twice
    /// end as unknown.
    pub(super) fn connection_lost(&self, reason: &str) {
        let mut state = self.state.lock();
        let Some(live) = state.live.take() else {
            return;
        };
        let unknown: Vec<u64> = state
            .open
            .iter()
            .filter(|(_, open)| open.must_not_repeat())
            .map(|(tag, _)| *tag)
            .collect();
        for tag in unknown {
            if let Some(Open {
                kind: Kind::Call { waiter, .. },
                ..
            }) = state.open.remove(&tag)
            {
                drop(waiter.send(Err(SessionError::Unknown {
                    reason: format!("the connection broke ({reason})"),
                })));
            }
        }
        drop(state);
        // Its writer sees that it is gone.
        live.writable.notify_one();
    }

    /// From now on nothing new is taken.
    pub(super) fn start_closing(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        self.tell_if_drained(&state);
    }

    /// The writer ends its stream, which tells the coordinator that no more comes.
    /// Tells whether there is a writer.
    pub(super) fn finish(&self) -> bool {
        let mut state = self.state.lock();
        state.finishing = true;
        if let Some(live) = &state.live {
            live.writable.notify_one();
        }
        state.live.is_some()
    }

    pub(super) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.open.is_empty() && state.queue.is_empty()
    }

    /// The session's task has ended: nothing will be answered any more.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        if let Some(live) = state.live.take() {
            live.writable.notify_one();
        }
        state.queue.clear();
        let open = std::mem::take(&mut state.open);
        drop(state);
        self.calls.close();
        self.deliveries.close();
        self.room.close();
        for open in open.into_values() {
            if let Kind::Call { waiter, .. } = open.kind {
                let error = if open.written {
                    SessionError::Unknown {
                        reason: "the session was closed before the answer came".into(),
                    }
                } else {
                    SessionError::Closed
                };
                drop(waiter.send(Err(error)));
            }
        }
        self.drained.notify_waiters();
    }

    fn tell_if_drained(&self, state: &State<F>) {
        if state.closing && state.open.is_empty() && state.queue.is_empty() {
            self.drained.notify_waiters();
        }
    }
}

impl<F: Frames> Open<F> {
    /// It may have been carried out and has no id that makes a repeat harmless.
    fn must_not_repeat(&self) -> bool {
        let once = matches!(self.kind, Kind::Call { idempotent, .. } if !idempotent);
        once && !self.queued && !self.untouched
    }
}

impl<F: Frames> State<F> {
    fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    fn push(&mut self, queued: Queued<F>) {
        // Calls that were given up leave their tags behind while nothing is written.
        if self.queue.len() > 2 * (self.open.len() + self.plain) + STALE_ENTRIES {
            let open = &self.open;
            self.queue.retain(|queued| match queued {
                Queued::Plain { .. } => true,
                Queued::Open(tag) => open.contains_key(tag),
            });
        }
        let was_empty = self.queue.is_empty();
        self.queue.push_back(queued);
        // A writer that has something to write looks again by itself.
        if was_empty && let Some(live) = &self.live {
            live.writable.notify_one();
        }
    }
}
