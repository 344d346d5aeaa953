//! The process as a worker: its lease, the XIDs it makes and the begins it announced.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use accede_link::session::{ClusterId, QueuedFrames, Role, SendSlot, TransactionFrames};
use accede_proto::{
    Xid,
    v1::{self, refusal::Code, transaction_event, transaction_request},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    NoXid, Refusal,
    begins::Begins,
    clock,
    error::Error,
    limits,
    xid_maker::{LeaseTerms, XidMaker},
};

/// Why a begun transaction cannot go on; set at most once.
pub(crate) type RefusedCell = Arc<OnceLock<Refusal>>;

/// What the session's task, the renewal and all transactions of the process share.
#[derive(Debug)]
pub(crate) struct Worker {
    client_name: String,
    /// Random; a reconnect shows the same one.
    client: u64,
    state: Mutex<State>,
    /// Told when a lease came or room for begins.
    changed: Notify,
    /// Told when a lease should be renewed before its time.
    wants_renewal: Notify,
}

#[derive(Debug, Default)]
struct State {
    maker: XidMaker,
    begins: Begins,
    /// One for each open transaction of this process.
    open: HashMap<Xid, RefusedCell>,
    opening_sent: Option<Instant>,
    shut_down: bool,
}

/// What a begin has to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Missing {
    /// A live lease: [`Worker::changed`] tells.
    Xid(NoXid),
    /// Room among the begins that are not logged: [`Worker::changed`] tells.
    BeginRoom,
    /// Room in the session's queue.
    QueueRoom,
}

impl Worker {
    pub(crate) fn new(client_name: String, client: u64) -> Self {
        Self {
            client_name,
            client,
            state: Mutex::default(),
            changed: Notify::new(),
            wants_renewal: Notify::new(),
        }
    }

    /// The random number of this process.
    pub(crate) fn client(&self) -> u64 {
        self.client
    }

    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    pub(crate) fn wants_renewal(&self) -> &Notify {
        &self.wants_renewal
    }

    /// Makes an XID, keeps its begin and queues it, in one step: so begins go out
    /// in the order of their XIDs.
    pub(crate) fn begin(
        &self,
        begin: &v1::Begin,
        slot: SendSlot<'_, TransactionFrames>,
    ) -> Result<Result<(Xid, RefusedCell), Missing>, Error> {
        let mut state = self.state.lock();
        if state.shut_down {
            return Err(Error::ShutDown);
        }
        if state.begins.is_full() {
            return Ok(Err(Missing::BeginRoom));
        }
        // Should the process be paused right after the clock was read, the id is
        // still unique, as nobody else gets the range; its begin is then refused.
        let xid = match state.maker.make(clock::now()) {
            Ok(xid) => xid,
            Err(reason) => {
                self.wants_renewal.notify_one();
                return Ok(Err(Missing::Xid(reason)));
            }
        };
        let begin = v1::Begin {
            xid: xid.as_u64(),
            ..begin.clone()
        };
        slot.send(transaction_request::Body::Begin(begin.clone()))
            .map_err(|_| Error::ShutDown)?;
        state.begins.keep(begin);
        let refused = RefusedCell::default();
        state.open.insert(xid, Arc::clone(&refused));
        Ok(Ok((xid, refused)))
    }

    /// The process is through with a transaction.
    pub(crate) fn forget(&self, xid: Xid) {
        self.state.lock().open.remove(&xid);
    }

    /// From now on nothing is begun.
    pub(crate) fn shut_down(&self) {
        self.state.lock().shut_down = true;
        self.changed.notify_waiters();
    }

    /// Whether XIDs can be made now.
    pub(crate) fn can_make(&self) -> Result<(), NoXid> {
        let state = self.state.lock();
        match state.maker.times(limits::RENEW_AFTER_PART) {
            None => Err(NoXid::NoLease),
            Some((ends, _)) if clock::now() >= ends => Err(NoXid::LeaseEnded),
            Some(_) => Ok(()),
        }
    }

    /// The worker held and when its lease ends and should be renewed.
    pub(crate) fn lease(&self) -> Option<(u16, Instant, Instant)> {
        let state = self.state.lock();
        let (ends, renew_at) = state.maker.times(limits::RENEW_AFTER_PART)?;
        Some((state.maker.worker()?, ends, renew_at))
    }

    /// A lease was granted or renewed; the request for it was sent at `sent`.
    pub(crate) fn granted(&self, lease: &v1::Lease, sent: Instant) -> Result<(), String> {
        self.grant(&mut self.state.lock(), lease, sent)
    }

    fn grant(&self, state: &mut State, lease: &v1::Lease, sent: Instant) -> Result<(), String> {
        let terms = LeaseTerms::from_wire(lease)?;
        if let Some(former) = state.maker.worker()
            && former != terms.worker
        {
            tracing::warn!(
                former,
                worker = terms.worker,
                "the coordinator gave another worker number"
            );
            give_up_begins(state);
        }
        state.maker.grant(terms, sent);
        // Zero says that nothing is logged.
        state.begins.logged_through(lease.begun_through);
        tracing::debug!(worker = terms.worker, ttl = ?terms.ttl, "leased");
        self.changed.notify_waiters();
        Ok(())
    }

    /// The coordinator says that the lease is over.
    pub(crate) fn lease_over(&self, refusal: &v1::Refusal) {
        let mut state = self.state.lock();
        if let Some(worker) = state.maker.worker() {
            tracing::warn!(worker, reason = %refusal.message, "the lease is over, its undecided transactions are rolled back");
        }
        state.maker.end();
        give_up_begins(&mut state);
    }

    fn open_frame(&self, cluster: Option<ClusterId>) -> transaction_request::Body {
        let worker = self.state.lock().maker.worker();
        transaction_request::Body::Open(v1::OpenTransactionSession {
            client_name: self.client_name.clone(),
            client: self.client,
            worker: worker.map_or(0, u32::from),
            has_worker: worker.is_some(),
            cluster_id: cluster.map_or_else(Default::default, |cluster| {
                cluster.as_bytes().to_vec().into()
            }),
        })
    }

    fn begin_refused(&self, refused: v1::BeginRefused) {
        let Some(xid) = Xid::from_u64(refused.xid) else {
            return;
        };
        let refusal = Refusal::from_wire(refused.refusal.unwrap_or_default());
        tracing::warn!(%xid, reason = %refusal, "the coordinator refused to begin a transaction");
        let mut state = self.state.lock();
        state.begins.refused(xid);
        if let Some(cell) = state.open.get(&xid) {
            // A repeat says the same.
            let _ = cell.set(refusal);
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// The begins of a lease that is over cannot be logged any more.
fn give_up_begins(state: &mut State) {
    for begin in state.begins.take_all() {
        let cell = Xid::from_u64(begin.xid).and_then(|xid| state.open.get(&xid));
        if let Some(cell) = cell {
            let _ = cell.set(Refusal {
                code: Code::LeaseEnded,
                message: "the lease ended before the begin was logged; begin a new transaction"
                    .into(),
            });
        }
    }
}

impl Role<TransactionFrames> for Worker {
    fn opening(&self, cluster: Option<ClusterId>) -> transaction_request::Body {
        // Before the frame is sent, so that the lease ends here before it ends there.
        self.state.lock().opening_sent = Some(clock::now());
        self.open_frame(cluster)
    }

    fn opened(
        &self,
        answer: transaction_event::Body,
        _cluster: ClusterId,
        queue: &QueuedFrames<'_, TransactionFrames>,
    ) -> Result<Vec<transaction_request::Body>, String> {
        let transaction_event::Body::Lease(lease) = answer else {
            return Err("the opening answer is no lease".into());
        };
        let mut state = self.state.lock();
        let sent = state
            .opening_sent
            .ok_or("a lease came before it was asked for")?;
        self.grant(&mut state, &lease, sent)?;
        // Under the lock: what is queued is also kept, so it would go out twice.
        queue.discard();
        let again = state.begins.unlogged().cloned();
        Ok(again.map(transaction_request::Body::Begin).collect())
    }

    fn opening_refused(&self, refusal: &v1::Refusal) {
        if refusal.code() == Code::LeaseEnded {
            self.lease_over(refusal);
        }
    }

    fn news(&self, news: transaction_event::Body) {
        match news {
            transaction_event::Body::BegunThrough(through) => {
                let mut state = self.state.lock();
                let was_full = state.begins.is_full();
                state.begins.logged_through(through.xid);
                drop(state);
                if was_full {
                    self.changed.notify_waiters();
                }
            }
            transaction_event::Body::BeginRefused(refused) => self.begin_refused(refused),
            transaction_event::Body::Refusal(refusal) if refusal.code() == Code::LeaseEnded => {
                self.lease_over(&refusal);
                self.wants_renewal.notify_one();
            }
            other => tracing::debug!(?other, "ignored news"),
        }
    }
}
