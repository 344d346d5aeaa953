//! Keeps a number of transactions in flight over one session of each kind.
//!
//! No task per transaction: every answer that arrives moves its transaction one step on. One
//! transaction is: begin (announced, not answered), register and done twice, commit, two orders
//! answered with "finished". It is over when all that was sent is acknowledged; then the next
//! one starts in its place.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use accede_proto::v1::{
    self, branch_event, branch_request, branches_client::BranchesClient, transaction_event,
    transaction_request, transactions_client::TransactionsClient,
};
use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Streaming, transport::Endpoint};

use super::{CONNECTION_WINDOW_BYTES, READ_CHUNK, STREAM_WINDOW_BYTES, ids::Ids, outbox::Outbox};
use crate::clock;

/// The name under which the load attaches.
pub(super) const RESOURCE: &str = "bench-db";
/// The time to live that the echo server grants.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(15);

/// Time-out of each transaction: longer than any of them may take, shorter than for ever.
const TIMEOUT_MS: u32 = 60_000;
/// Bytes of a row lock: a table's name and a key, as agents make them.
const LOCK_BYTES: usize = 30;
/// How long opening, and ending what is in flight, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest latency that is told apart, in microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Tags of requests: what was asked, and for which of the transactions in flight.
const DONE: u64 = 1 << 62;
const FINISHED: u64 = 1 << 61;
const SESSION: u64 = 1 << 60;
const PLACE: u64 = SESSION - 1;

/// Where a transaction in flight stands.
#[derive(Default)]
struct Transaction {
    xid: u64,
    /// Counts the transactions of this load.
    number: u64,
    started: Option<Instant>,
    registered: u32,
    /// Done and finished messages that were acknowledged.
    acknowledged: u32,
    decided: bool,
}

struct Shared {
    transactions: Arc<Outbox<v1::TransactionRequest>>,
    branches: Arc<Outbox<v1::BranchRequest>>,
    process: u64,
    ids: Mutex<Ids>,
    places: Vec<Mutex<Transaction>>,
    by_xid: Mutex<HashMap<u64, usize>>,
    stopping: AtomicBool,
    active: AtomicUsize,
    completed: AtomicU64,
    received: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    failure: Mutex<Option<String>>,
    changed: Notify,
}

/// A running load.
pub(super) struct Load {
    shared: Arc<Shared>,
    readers: JoinSet<()>,
}

/// Counters at one moment.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    /// When they were read.
    pub(super) at: Instant,
    /// Transactions that are over.
    pub(super) completed: u64,
    /// Messages sent and received.
    pub(super) messages: u64,
}

impl Load {
    /// Opens both sessions at `address` and starts `in_flight` transactions.
    ///
    /// # Errors
    /// When the address does not answer as a coordinator would.
    pub(super) async fn start(address: &str, in_flight: usize) -> anyhow::Result<Self> {
        let open = Self::open(address, in_flight);
        let load = timeout(PATIENCE, open)
            .await
            .with_context(|| format!("no session with {address} within {PATIENCE:?}"))??;
        for place in 0..in_flight {
            load.shared.begin(place);
        }
        Ok(load)
    }

    async fn open(address: &str, in_flight: usize) -> anyhow::Result<Self> {
        let process = rand::random();
        let (transactions, branches) = (Outbox::new(), Outbox::new());
        transactions.push(request(
            SESSION,
            transaction_request::Body::Open(v1::OpenTransactionSession {
                client_name: "bench".to_owned(),
                client: process,
                ..v1::OpenTransactionSession::default()
            }),
        ));
        branches.push(ask(
            SESSION,
            branch_request::Body::Open(v1::OpenBranchSession {
                agent_name: "bench".to_owned(),
                agent: process,
                resources: vec![v1::Resource {
                    name: RESOURCE.to_owned(),
                    database_id: vec![9; 16].into(),
                }],
                cluster_id: Bytes::new(),
            }),
        ));
        let channel = || {
            Endpoint::from_shared(address.to_owned()).map(|endpoint| {
                endpoint
                    .tcp_nodelay(true)
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            })
        };
        let mut attached = BranchesClient::new(channel()?.connect().await?)
            .session(branches.drain())
            .await?
            .into_inner();
        match attached.message().await?.and_then(|event| event.body) {
            Some(branch_event::Body::Attached(_)) => {}
            other => bail!("the branch session was not opened: {other:?}"),
        }
        let mut events = TransactionsClient::new(channel()?.connect().await?)
            .session(transactions.drain())
            .await?
            .into_inner();
        let lease = match events.message().await?.and_then(|event| event.body) {
            Some(transaction_event::Body::Lease(lease)) => lease,
            other => bail!("the transaction session was not opened: {other:?}"),
        };
        let shared = Arc::new(Shared {
            transactions,
            branches,
            process,
            ids: Mutex::new(Ids::new(&lease)?),
            places: (0..in_flight).map(|_| Mutex::default()).collect(),
            by_xid: Mutex::new(HashMap::with_capacity(in_flight)),
            stopping: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            completed: AtomicU64::new(0),
            received: AtomicU64::new(2),
            latency: Mutex::new(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?),
            failure: Mutex::new(None),
            changed: Notify::new(),
        });
        let mut readers = JoinSet::new();
        let ttl = Duration::from_millis(lease.ttl_ms.into());
        readers.spawn(Arc::clone(&shared).renew(lease.worker, ttl / 3));
        readers.spawn(Arc::clone(&shared).read(events, Shared::transaction_event));
        readers.spawn(Arc::clone(&shared).read(attached, Shared::branch_event));
        Ok(Self { shared, readers })
    }

    /// Forgets the latencies so far.
    pub(super) fn reset_latency(&self) {
        self.shared.latency.lock().reset();
    }

    /// A copy of the latencies, begin to the commit's answer, in microseconds.
    pub(super) fn latency(&self) -> Histogram<u64> {
        self.shared.latency.lock().clone()
    }

    /// The counters now.
    pub(super) fn counts(&self) -> Counts {
        let shared = &self.shared;
        Counts {
            at: clock::now(),
            completed: shared.completed.load(SeqCst),
            messages: shared.received.load(SeqCst)
                + shared.transactions.pushed()
                + shared.branches.pushed(),
        }
    }

    /// Lets the load run for a while.
    ///
    /// # Errors
    /// The first thing that went wrong meanwhile.
    pub(super) async fn run_for(&self, time: Duration) -> anyhow::Result<()> {
        let _ = timeout(time, self.until(|shared| shared.failure.lock().is_some())).await;
        self.failure()
    }

    /// Lets what is in flight end and closes the sessions.
    ///
    /// # Errors
    /// When something went wrong, or transactions do not end.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let shared = &self.shared;
        shared.stopping.store(true, SeqCst);
        let over =
            |shared: &Shared| shared.active.load(SeqCst) == 0 || shared.failure.lock().is_some();
        if timeout(PATIENCE, self.until(over)).await.is_err() {
            let left = shared.active.load(SeqCst);
            bail!("{left} transactions do not end within {PATIENCE:?}");
        }
        self.failure()?;
        let close = transaction_request::Body::Close(v1::CloseTransactionSession {});
        shared.transactions.push(request(0, close));
        // The coordinator ends the session; whatever else it does is not measured.
        let _ = timeout(Duration::from_millis(200), self.readers.join_next()).await;
        self.readers.shutdown().await;
        Ok(())
    }

    fn failure(&self) -> anyhow::Result<()> {
        match &*self.shared.failure.lock() {
            Some(failure) => Err(anyhow!("{failure}")),
            None => Ok(()),
        }
    }

    async fn until(&self, condition: impl Fn(&Shared) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            if condition(&self.shared) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.transactions.close();
        self.shared.branches.close();
    }
}

impl Shared {
    /// Starts a transaction at its place, unless the load is to end.
    fn begin(&self, place: usize) {
        if self.stopping.load(SeqCst) {
            return;
        }
        let (xid, number) = {
            // Begins must go out in the order of their ids.
            let mut ids = self.ids.lock();
            let Some(xid) = ids.make() else {
                return self.fail("the lease's range of ids is used up".to_owned());
            };
            let begin = v1::Begin {
                xid: xid.as_u64(),
                name: "bench".to_owned(),
                timeout_ms: TIMEOUT_MS,
                parent: 0,
            };
            self.transactions
                .push(request(0, transaction_request::Body::Begin(begin)));
            (xid.as_u64(), ids.made())
        };
        self.active.fetch_add(1, SeqCst);
        *self.places[place].lock() = Transaction {
            xid,
            number,
            started: Some(clock::now()),
            ..Transaction::default()
        };
        self.by_xid.lock().insert(xid, place);
        self.register(place, xid, number * 2);
    }

    fn register(&self, place: usize, xid: u64, sequence: u64) {
        let register = v1::RegisterBranch {
            xid,
            request: Some(v1::RequestId {
                client: self.process,
                sequence,
            }),
            resource: RESOURCE.to_owned(),
            mode: v1::Mode::At.into(),
            row_locks: vec![lock_key(self.process, xid, sequence).into()],
            wait_limit_ms: 5_000,
            holds_local_locks: true,
            agent: self.process,
            ..Default::default()
        };
        let body = branch_request::Body::Register(register);
        self.branches.push(ask(place as u64 + 1, body));
    }

    fn transaction_event(&self, event: v1::TransactionEvent) {
        use transaction_event::Body;
        match event.body {
            Some(Body::Outcome(outcome)) => {
                let place = (event.tag & PLACE).wrapping_sub(1) as usize;
                if outcome.decision() != v1::Decision::Commit {
                    return self.fail(format!("a transaction did not commit: {outcome:?}"));
                }
                self.decided(place, outcome.xid);
            }
            Some(Body::Lease(lease)) => self.ids.lock().extend(&lease),
            Some(Body::BegunThrough(_)) => {}
            other => self.fail(format!("the transaction session said {other:?}")),
        }
    }

    fn branch_event(&self, event: v1::BranchEvent) {
        use branch_event::Body;
        let place = (event.tag & PLACE).wrapping_sub(1) as usize;
        match event.body {
            Some(Body::Registered(registered)) => self.registered(place, registered.branch),
            Some(Body::Accepted(_)) => self.acknowledged(place),
            Some(Body::Order(order)) => self.carry_out(order),
            other => self.fail(format!("the branch session said {other:?}")),
        }
    }

    fn registered(&self, place: usize, branch: u32) {
        let Some(transaction) = self.places.get(place) else {
            return self.fail(format!("an answer to a request that was not sent: {place}"));
        };
        let (xid, number, registered) = {
            let mut transaction = transaction.lock();
            transaction.registered += 1;
            (transaction.xid, transaction.number, transaction.registered)
        };
        let done = branch_request::Body::Done(v1::BranchDone { xid, branch });
        self.branches.push(ask(DONE | (place as u64 + 1), done));
        if registered == 1 {
            self.register(place, xid, number * 2 + 1);
        } else {
            let commit = transaction_request::Body::Commit(v1::CommitRequest { xid });
            self.transactions.push(request(place as u64 + 1, commit));
        }
    }

    fn carry_out(&self, order: v1::Order) {
        let known = self.by_xid.lock().get(&order.xid).copied();
        let (Some(place), v1::Action::Commit) = (known, order.action()) else {
            return self.fail(format!("an order that was not to be expected: {order:?}"));
        };
        let finished = v1::BranchFinished {
            xid: order.xid,
            branch: order.branch,
            attempt: order.attempt,
            epoch: order.epoch,
            result: Some(v1::branch_finished::Result::Finished(v1::Empty {})),
            resource: order.resource,
        };
        let body = branch_request::Body::Finished(finished);
        self.branches.push(ask(FINISHED | (place as u64 + 1), body));
    }

    fn acknowledged(&self, place: usize) {
        self.step(place, |transaction| transaction.acknowledged += 1);
    }

    fn decided(&self, place: usize, xid: u64) {
        let started = self.step(place, |transaction| {
            transaction.decided = transaction.xid == xid;
            transaction.started
        });
        if let Some(Some(started)) = started {
            let micros = (clock::now() - started).as_micros() as u64;
            self.latency.lock().saturating_record(micros.max(1));
        }
    }

    /// Moves a transaction on; the next one starts when this one is over.
    fn step<T>(&self, place: usize, change: impl FnOnce(&mut Transaction) -> T) -> Option<T> {
        let Some(transaction) = self.places.get(place) else {
            self.fail(format!("an answer to a request that was not sent: {place}"));
            return None;
        };
        let (result, over) = {
            let mut transaction = transaction.lock();
            let result = change(&mut transaction);
            // Two done and two finished.
            let over = transaction.decided && transaction.acknowledged == 4;
            (result, over.then_some(transaction.xid))
        };
        if let Some(xid) = over {
            self.by_xid.lock().remove(&xid);
            self.completed.fetch_add(1, SeqCst);
            if self.active.fetch_sub(1, SeqCst) == 1 {
                self.changed.notify_waiters();
            }
            self.begin(place);
        }
        Some(result)
    }

    fn fail(&self, problem: String) {
        self.failure.lock().get_or_insert(problem);
        self.stopping.store(true, SeqCst);
        self.changed.notify_waiters();
    }

    async fn read<T>(self: Arc<Self>, events: Streaming<T>, take: fn(&Self, T)) {
        let mut chunks = events.ready_chunks(READ_CHUNK);
        while let Some(chunk) = chunks.next().await {
            self.received.fetch_add(chunk.len() as u64, SeqCst);
            for event in chunk {
                match event {
                    Ok(event) => take(&self, event),
                    Err(status) => return self.fail(format!("a session broke: {status}")),
                }
            }
        }
        if self.active.load(SeqCst) > 0 {
            self.fail("a session was ended by the other side".to_owned());
        }
    }

    async fn renew(self: Arc<Self>, worker: u32, every: Duration) {
        loop {
            sleep(every).await;
            let renew = transaction_request::Body::Renew(v1::RenewLease { worker });
            self.transactions.push(request(SESSION, renew));
        }
    }
}

fn request(tag: u64, body: transaction_request::Body) -> v1::TransactionRequest {
    v1::TransactionRequest {
        tag,
        body: Some(body),
    }
}

fn ask(tag: u64, body: branch_request::Body) -> v1::BranchRequest {
    v1::BranchRequest {
        tag,
        body: Some(body),
    }
}

/// A key that nobody else has: no transaction waits for another one.
fn lock_key(process: u64, xid: u64, sequence: u64) -> Vec<u8> {
    let mut key = b"stock:".to_vec();
    for part in [process, xid, sequence] {
        key.extend_from_slice(&part.to_be_bytes());
    }
    debug_assert_eq!(key.len(), LOCK_BYTES);
    key
}
