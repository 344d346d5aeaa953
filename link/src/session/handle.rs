//! The handle by which a role uses its session.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, SemaphorePermit, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    ClusterId, ConnectProblem, Frames, Role, SessionError, SessionLimits, SessionStatus,
    address::addresses, connect::Runner, shared::Shared,
};
use crate::clock;

/// How long a closing session waits for the coordinator to end its side.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where a session connects to and within which bounds.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Addresses of coordinators, like `http://127.0.0.1:7700`; at least one.
    pub addresses: Vec<String>,
    /// The cluster to which this process belongs, if that is known already.
    pub cluster: Option<ClusterId>,
    /// Bounds and times.
    pub limits: SessionLimits,
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// How long to wait for the answer, the time without a connection included.
    pub patience: Duration,
    /// The coordinator treats a repeat as the same request, so it may be sent
    /// again when a connection breaks.
    pub idempotent: bool,
}

impl Call {
    /// A call that may be sent again.
    #[must_use]
    pub fn idempotent(patience: Duration) -> Self {
        Self {
            patience,
            idempotent: true,
        }
    }

    /// A call that is sent once.
    #[must_use]
    pub fn once(patience: Duration) -> Self {
        Self {
            patience,
            idempotent: false,
        }
    }
}

/// A connection to the coordinator that mends itself. Clones share it; when the
/// last one is dropped, it ends without a farewell.
pub struct Session<F: Frames> {
    inner: Arc<Inner<F>>,
}

struct Inner<F: Frames> {
    shared: Arc<Shared<F>>,
    status: watch::Receiver<SessionStatus>,
    ended: CancellationToken,
    _cancel: DropGuard,
}

impl<F: Frames> Clone for Session<F> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<F: Frames> fmt::Debug for Session<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("service", &F::SERVICE)
            .field("status", &*self.inner.status.borrow())
            .finish()
    }
}

impl<F: Frames> Session<F> {
    /// Starts to connect in the background and returns at once. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// [`SessionError::NoAddress`] and [`SessionError::InvalidAddress`].
    pub fn start(options: &SessionOptions, role: Arc<dyn Role<F>>) -> Result<Self, SessionError> {
        let addresses = addresses(&options.addresses, &options.limits)?;
        let (sender, status) = watch::channel(SessionStatus::Connecting {
            problem: None,
            since: clock::now(),
        });
        let shared = Arc::new(Shared::new(options.limits, sender));
        let runner = Runner::new(Arc::clone(&shared), role, addresses, options.cluster);
        let ended = CancellationToken::new();
        let tell = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _tell = tell;
            runner.run().await;
        });
        let guard = shared.cancel.clone().drop_guard();
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                status,
                ended,
                _cancel: guard,
            }),
        })
    }

    /// Whether the session is connected, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.inner.status.clone()
    }

    /// Asks and waits for the answer. Dropping the future gives the call up; it
    /// may still be carried out.
    ///
    /// # Errors
    /// - [`SessionError::Refused`]: the coordinator said no.
    /// - [`SessionError::Unknown`]: it may have been carried out or not.
    /// - [`SessionError::NotSent`], [`SessionError::Busy`], [`SessionError::TooLarge`],
    ///   [`SessionError::Closed`]: it certainly was not.
    pub async fn call(&self, body: F::Ask, how: Call) -> Result<F::Answer, SessionError> {
        let shared = &self.inner.shared;
        self.check_length(&body)?;
        let mut open = OpenCall {
            shared: Arc::clone(shared),
            tag: None,
        };
        match timeout(how.patience, open.ask(body, how.idempotent)).await {
            Ok(result) => result,
            Err(_) => Err(open.timed_out(how.patience, self.problem())),
        }
    }

    /// Waits for room and sends a frame without an answer. It is forgotten once
    /// it is written.
    ///
    /// # Errors
    /// [`SessionError::TooLarge`], [`SessionError::Closed`].
    pub async fn send(&self, body: F::Ask) -> Result<(), SessionError> {
        self.check_length(&body)?;
        self.send_slot().await?.send(body)
    }

    /// Waits for room for one frame without an answer, so that it can be sent
    /// later without waiting, under a lock for example.
    ///
    /// # Errors
    /// [`SessionError::Closed`].
    pub async fn send_slot(&self) -> Result<SendSlot<'_, F>, SessionError> {
        let permit = self.inner.shared.room.acquire().await;
        Ok(SendSlot {
            permit: permit.map_err(|_| SessionError::Closed)?,
            session: self,
        })
    }

    /// Takes room for one frame without an answer, without waiting.
    ///
    /// # Errors
    /// [`SessionError::Busy`] when there is none now, [`SessionError::Closed`].
    pub fn try_send_slot(&self) -> Result<SendSlot<'_, F>, SessionError> {
        let shared = &self.inner.shared;
        match shared.room.try_acquire() {
            Ok(permit) => Ok(SendSlot {
                permit,
                session: self,
            }),
            Err(_) if shared.room.is_closed() => Err(SessionError::Closed),
            Err(_) => Err(SessionError::Busy {
                open: shared.limits.queued_frames,
            }),
        }
    }

    /// Waits for room for one delivery: a frame that is kept and sent again until
    /// the coordinator has acknowledged it.
    ///
    /// # Errors
    /// [`SessionError::Closed`].
    pub async fn delivery_slot(&self) -> Result<DeliverySlot<F>, SessionError> {
        let shared = &self.inner.shared;
        let permit = Arc::clone(&shared.deliveries).acquire_owned().await;
        Ok(DeliverySlot {
            permit: permit.map_err(|_| SessionError::Closed)?,
            shared: Arc::clone(shared),
        })
    }

    /// Opens the stream anew, because [`Role::opening`] has something else to
    /// show. Nothing is lost but the answers of calls that may not be sent again.
    /// Without a connection nothing happens: the next one shows it anyway.
    pub fn reopen(&self) {
        self.inner.shared.reopen.send_modify(|count| *count += 1);
    }

    /// Takes no new requests, waits up to `limit` until everything that is open
    /// is answered and written, and ends the stream. What is open then ends as
    /// unknown.
    pub async fn close(&self, limit: Duration) {
        let shared = &self.inner.shared;
        shared.start_closing();
        let drained = async {
            loop {
                let told = shared.drained.notified();
                if shared.is_drained() {
                    return;
                }
                told.await;
            }
        };
        let drained = timeout(limit, drained).await.is_ok();
        if drained && shared.finish() {
            let farewell = timeout(FAREWELL.min(limit), self.inner.ended.cancelled()).await;
            if farewell.is_err() {
                tracing::debug!(
                    service = F::SERVICE,
                    "the coordinator did not end the stream"
                );
            }
        }
        shared.cancel.cancel();
        self.inner.ended.cancelled().await;
    }

    /// Ends the session at once and without a farewell, for all its handles.
    pub fn abort(&self) {
        self.inner.shared.cancel.cancel();
    }

    fn check_length(&self, body: &F::Ask) -> Result<(), SessionError> {
        check_length(&self.inner.shared, body)
    }

    fn problem(&self) -> Option<ConnectProblem> {
        match &*self.inner.status.borrow() {
            SessionStatus::Connecting { problem, .. } => problem.clone(),
            SessionStatus::Connected { .. } | SessionStatus::Closed => None,
        }
    }
}

fn check_length<F: Frames>(shared: &Shared<F>, body: &F::Ask) -> Result<(), SessionError> {
    let bytes = F::length(body);
    let limit = shared.limits.frame_bytes;
    if bytes > limit {
        return Err(SessionError::TooLarge { bytes, limit });
    }
    Ok(())
}

/// Removes a call from the table, whatever becomes of its future.
struct OpenCall<F: Frames> {
    shared: Arc<Shared<F>>,
    tag: Option<u64>,
}

impl<F: Frames> OpenCall<F> {
    async fn ask(&mut self, body: F::Ask, idempotent: bool) -> Result<F::Answer, SessionError> {
        let shared = Arc::clone(&self.shared);
        let _permit = shared
            .calls
            .acquire()
            .await
            .map_err(|_| SessionError::Closed)?;
        let (waiter, answer) = oneshot::channel();
        self.tag = Some(shared.add_call(body, idempotent, waiter)?);
        let result = answer.await;
        self.tag = None;
        result.unwrap_or(Err(SessionError::Unknown {
            reason: "the session ended".into(),
        }))
    }

    fn timed_out(&mut self, patience: Duration, problem: Option<ConnectProblem>) -> SessionError {
        let Some(tag) = self.tag.take() else {
            return SessionError::Busy {
                open: self.shared.limits.open_calls,
            };
        };
        if self.shared.give_up(tag) {
            SessionError::Unknown {
                reason: format!("no answer within {patience:?}"),
            }
        } else {
            SessionError::NotSent {
                waited: patience,
                problem,
            }
        }
    }
}

impl<F: Frames> Drop for OpenCall<F> {
    fn drop(&mut self) {
        if let Some(tag) = self.tag {
            self.shared.give_up(tag);
        }
    }
}

/// Room for one frame without an answer.
pub struct SendSlot<'a, F: Frames> {
    permit: SemaphorePermit<'a>,
    session: &'a Session<F>,
}

impl<F: Frames> SendSlot<'_, F> {
    /// Queues the frame; does not wait.
    ///
    /// # Errors
    /// [`SessionError::TooLarge`], [`SessionError::Closed`].
    pub fn send(self, body: F::Ask) -> Result<(), SessionError> {
        self.session.check_length(&body)?;
        self.session.inner.shared.add_plain(body)?;
        // The writer gives it back.
        self.permit.forget();
        Ok(())
    }
}

impl<F: Frames> fmt::Debug for SendSlot<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendSlot")
    }
}

/// Room for one delivery. Taken before the thing happens that must be told, so
/// that telling it never has to wait and is never lost.
pub struct DeliverySlot<F: Frames> {
    permit: OwnedSemaphorePermit,
    shared: Arc<Shared<F>>,
}

impl<F: Frames> DeliverySlot<F> {
    /// Queues the frame; does not wait. From now on the session keeps it until
    /// the coordinator has acknowledged or refused it.
    ///
    /// # Errors
    /// [`SessionError::TooLarge`], [`SessionError::Closed`].
    pub fn deliver(self, body: F::Ask) -> Result<(), SessionError> {
        check_length(&self.shared, &body)?;
        self.shared.add_delivery(body, self.permit)
    }
}

impl<F: Frames> fmt::Debug for DeliverySlot<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliverySlot")
    }
}
