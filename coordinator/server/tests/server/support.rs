//! A daemon in this process, and clients that speak the bare protocol.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use accede_proto::v1::{
    self, BranchEvent, BranchRequest, TransactionEvent, TransactionRequest, branch_event,
    branch_request, branches_client::BranchesClient, operator_client::OperatorClient,
    transaction_event, transaction_request, transactions_client::TransactionsClient,
};
use accede_server::{Server, ServerConfig};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Long enough for a loaded machine; nothing waits for it when all goes well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("it happens soon")
}

pub(crate) fn config(dir: &std::path::Path) -> ServerConfig {
    let mut config = ServerConfig::new(dir);
    config.listen.set_port(0);
    config.segment_bytes = accede_server::limits::MIN_SEGMENT_BYTES;
    config
}

/// A daemon on a directory that is removed with it.
pub(crate) struct Daemon {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Server,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(config(dir.path())).await.expect("it starts");
        Self { dir, server }
    }

    pub(crate) async fn restart(self) -> Self {
        let Self { dir, server } = self;
        server.shutdown().await.expect("it ends");
        let server = Server::start(config(dir.path())).await.expect("it starts");
        Self { dir, server }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.server.addr());
        let endpoint = Channel::from_shared(address).expect("an address");
        endpoint.connect().await.expect("it listens")
    }

    pub(crate) async fn transactions(&self) -> TransactionsClient<Channel> {
        TransactionsClient::new(self.channel().await)
    }

    pub(crate) async fn branches(&self) -> BranchesClient<Channel> {
        BranchesClient::new(self.channel().await)
    }

    pub(crate) async fn operator(&self) -> OperatorClient<Channel> {
        OperatorClient::new(self.channel().await)
    }

    /// A page over HTTP/1.
    pub(crate) async fn page(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.server.addr())
            .await
            .expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut text = String::new();
        soon(stream.read_to_string(&mut text))
            .await
            .expect("an answer");
        text
    }
}

/// A transaction manager.
pub(crate) struct Tm {
    pub(crate) requests: mpsc::Sender<TransactionRequest>,
    pub(crate) events: Streaming<TransactionEvent>,
    pub(crate) lease: v1::Lease,
    pub(crate) process: u64,
    made: u64,
    tag: u64,
}

static PROCESSES: AtomicU64 = AtomicU64::new(1);

pub(crate) fn process() -> u64 {
    PROCESSES.fetch_add(1, Ordering::Relaxed)
}

pub(crate) async fn tm_stream(
    daemon: &Daemon,
) -> (
    mpsc::Sender<TransactionRequest>,
    Streaming<TransactionEvent>,
) {
    let (requests, stream) = mpsc::channel(64);
    let mut client = daemon.transactions().await;
    let events = soon(client.session(ReceiverStream::new(stream))).await;
    (requests, events.expect("a stream").into_inner())
}

impl Tm {
    pub(crate) async fn connect(daemon: &Daemon) -> Self {
        Self::connect_as(daemon, process(), None).await
    }

    pub(crate) async fn connect_as(daemon: &Daemon, process: u64, worker: Option<u32>) -> Self {
        match Self::try_connect(daemon, process, worker).await {
            Ok(tm) => tm,
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    pub(crate) async fn try_connect(
        daemon: &Daemon,
        process: u64,
        worker: Option<u32>,
    ) -> Result<Self, v1::Refusal> {
        let (requests, events) = tm_stream(daemon).await;
        let mut tm = Self {
            requests,
            events,
            lease: v1::Lease::default(),
            process,
            made: 0,
            tag: 0,
        };
        let open = v1::OpenTransactionSession {
            client_name: "test".into(),
            client: process,
            worker: worker.unwrap_or(0),
            has_worker: worker.is_some(),
            cluster_id: Default::default(),
        };
        match tm.call(transaction_request::Body::Open(open)).await {
            transaction_event::Body::Lease(lease) => {
                assert_eq!(lease.cluster_id.len(), 16);
                tm.made = lease.floor_ms << 9;
                tm.lease = lease;
                Ok(tm)
            }
            transaction_event::Body::Refusal(refusal) => Err(refusal),
            other => panic!("no lease: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, tag: u64, body: transaction_request::Body) {
        let request = TransactionRequest {
            tag,
            body: Some(body),
        };
        self.requests.send(request).await.expect("it reads");
    }

    pub(crate) async fn next(&mut self) -> TransactionEvent {
        soon(self.events.message())
            .await
            .expect("a sound stream")
            .expect("one more event")
    }

    /// Asks and waits for the answer; news are skipped.
    pub(crate) async fn call(
        &mut self,
        body: transaction_request::Body,
    ) -> transaction_event::Body {
        self.tag += 1;
        let tag = self.tag;
        self.send(tag, body).await;
        loop {
            let event = self.next().await;
            if event.tag == tag {
                return event.body.expect("a body");
            }
            assert_eq!(event.tag, 0, "{event:?}");
        }
    }

    pub(crate) fn make_xid(&mut self) -> u64 {
        self.made += 1;
        (self.made << 13) | u64::from(self.lease.worker)
    }

    /// Announces a transaction.
    pub(crate) async fn begin(&mut self, timeout_ms: u32) -> u64 {
        let xid = self.make_xid();
        let begin = v1::Begin {
            xid,
            name: "test".into(),
            timeout_ms,
            parent: 0,
        };
        self.send(0, transaction_request::Body::Begin(begin)).await;
        xid
    }

    /// Announces a transaction and waits until that is logged.
    pub(crate) async fn begun(&mut self, timeout_ms: u32) -> u64 {
        let xid = self.begin(timeout_ms).await;
        loop {
            match self.next().await.body {
                Some(transaction_event::Body::BegunThrough(through)) if through.xid >= xid => {
                    return xid;
                }
                Some(transaction_event::Body::BegunThrough(_)) => {}
                other => panic!("not begun: {other:?}"),
            }
        }
    }

    pub(crate) async fn commit(&mut self, xid: u64) -> v1::Outcome {
        let body = transaction_request::Body::Commit(v1::CommitRequest { xid });
        outcome(self.call(body).await)
    }

    pub(crate) async fn outcome(&mut self, xid: u64) -> v1::Outcome {
        let body = transaction_request::Body::GetOutcome(v1::GetOutcomeRequest { xid });
        outcome(self.call(body).await)
    }

    /// Asks until the transaction has this status.
    pub(crate) async fn reaches(&mut self, xid: u64, status: v1::Status) -> v1::Outcome {
        soon(async {
            loop {
                let outcome = self.outcome(xid).await;
                if outcome.status() == status {
                    return outcome;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

fn outcome(body: transaction_event::Body) -> v1::Outcome {
    match body {
        transaction_event::Body::Outcome(outcome) => outcome,
        other => panic!("no outcome: {other:?}"),
    }
}

/// A resource manager.
pub(crate) struct Rm {
    pub(crate) requests: mpsc::Sender<BranchRequest>,
    pub(crate) events: Streaming<BranchEvent>,
    pub(crate) attached: v1::Attached,
    pub(crate) process: u64,
    /// Orders that came while an answer was waited for.
    pub(crate) orders: std::collections::VecDeque<v1::Order>,
    tag: u64,
    sequence: u64,
}

/// A resource as an agent shows it; its database is made from its name.
pub(crate) fn resource(name: &str) -> v1::Resource {
    let mut id = [0_u8; 16];
    for (place, byte) in id.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    v1::Resource {
        name: name.into(),
        database_id: id.to_vec().into(),
    }
}

pub(crate) async fn rm_stream(
    daemon: &Daemon,
) -> (mpsc::Sender<BranchRequest>, Streaming<BranchEvent>) {
    let (requests, stream) = mpsc::channel(64);
    let mut client = daemon.branches().await;
    let events = soon(client.session(ReceiverStream::new(stream))).await;
    (requests, events.expect("a stream").into_inner())
}

impl Rm {
    pub(crate) async fn connect(daemon: &Daemon, resources: &[&str]) -> Self {
        Self::connect_as(daemon, process(), resources).await
    }

    pub(crate) async fn connect_as(daemon: &Daemon, process: u64, resources: &[&str]) -> Self {
        let shown = resources.iter().map(|name| resource(name)).collect();
        match Self::try_connect(daemon, process, shown).await {
            Ok(rm) => rm,
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    pub(crate) async fn try_connect(
        daemon: &Daemon,
        process: u64,
        resources: Vec<v1::Resource>,
    ) -> Result<Self, v1::Refusal> {
        let (requests, events) = rm_stream(daemon).await;
        let mut rm = Self {
            requests,
            events,
            attached: v1::Attached::default(),
            process,
            orders: Default::default(),
            tag: 0,
            sequence: 0,
        };
        let open = v1::OpenBranchSession {
            agent_name: "agent".into(),
            agent: process,
            resources,
            cluster_id: Default::default(),
        };
        rm.tag += 1;
        rm.send(1, branch_request::Body::Open(open)).await;
        let first = rm.next().await;
        assert_eq!(first.tag, 1, "the opening answer comes first");
        match first.body {
            Some(branch_event::Body::Attached(attached)) => {
                assert_eq!(attached.cluster_id.len(), 16);
                rm.attached = attached;
                Ok(rm)
            }
            Some(branch_event::Body::Refusal(refusal)) => Err(refusal),
            other => panic!("not attached: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, tag: u64, body: branch_request::Body) {
        let request = BranchRequest {
            tag,
            body: Some(body),
        };
        self.requests.send(request).await.expect("it reads");
    }

    pub(crate) async fn next(&mut self) -> BranchEvent {
        soon(self.events.message())
            .await
            .expect("a sound stream")
            .expect("one more event")
    }

    /// Sends a request; its answer carries the returned tag.
    pub(crate) async fn ask(&mut self, body: branch_request::Body) -> u64 {
        self.tag += 1;
        let tag = self.tag;
        self.send(tag, body).await;
        tag
    }

    /// The answer to one request; orders are kept.
    pub(crate) async fn answer(&mut self, tag: u64) -> branch_event::Body {
        loop {
            let event = self.next().await;
            match event.body.expect("a body") {
                branch_event::Body::Order(order) => self.orders.push_back(order),
                body if event.tag == tag => return body,
                other => panic!("another answer: {} {other:?}", event.tag),
            }
        }
    }

    pub(crate) async fn call(&mut self, body: branch_request::Body) -> branch_event::Body {
        let tag = self.ask(body).await;
        self.answer(tag).await
    }

    pub(crate) fn registration(
        &mut self,
        xid: u64,
        resource: &str,
        locks: &[&str],
    ) -> v1::RegisterBranch {
        self.sequence += 1;
        v1::RegisterBranch {
            xid,
            request: Some(v1::RequestId {
                client: self.process,
                sequence: self.sequence,
            }),
            resource: resource.into(),
            mode: v1::Mode::At.into(),
            row_locks: locks
                .iter()
                .map(|lock| lock.as_bytes().to_vec().into())
                .collect(),
            wait_limit_ms: 10_000,
            holds_local_locks: true,
            agent: self.process,
            ..Default::default()
        }
    }

    /// Registers a branch; answers its number.
    pub(crate) async fn register(&mut self, xid: u64, resource: &str, locks: &[&str]) -> u32 {
        let body = self.registration(xid, resource, locks);
        match self.call(branch_request::Body::Register(body)).await {
            branch_event::Body::Registered(registered) => {
                assert!(registered.give_up_ms > 0);
                registered.branch
            }
            other => panic!("not registered: {other:?}"),
        }
    }

    /// Reports a local commit and waits until that is logged.
    pub(crate) async fn done(&mut self, xid: u64, branch: u32) {
        let body = branch_request::Body::Done(v1::BranchDone { xid, branch });
        let answer = self.call(body).await;
        assert!(
            matches!(answer, branch_event::Body::Accepted(_)),
            "{answer:?}"
        );
    }

    pub(crate) async fn order(&mut self) -> v1::Order {
        if let Some(order) = self.orders.pop_front() {
            return order;
        }
        match self.next().await.body {
            Some(branch_event::Body::Order(order)) => order,
            other => panic!("no order: {other:?}"),
        }
    }

    /// Answers an order.
    pub(crate) async fn finish(&mut self, order: &v1::Order, result: v1::branch_finished::Result) {
        let body = branch_request::Body::Finished(v1::BranchFinished {
            xid: order.xid,
            branch: order.branch,
            attempt: order.attempt,
            epoch: order.epoch,
            result: Some(result),
            resource: order.resource.clone(),
        });
        self.send(0, body).await;
    }

    pub(crate) async fn finished(&mut self, order: &v1::Order) {
        let result = v1::branch_finished::Result::Finished(v1::Empty {});
        self.finish(order, result).await;
    }
}

/// The refusal inside an event.
pub(crate) fn refusal(body: branch_event::Body) -> v1::Refusal {
    match body {
        branch_event::Body::Refusal(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

pub(crate) fn tm_refusal(body: transaction_event::Body) -> v1::Refusal {
    match body {
        transaction_event::Body::Refusal(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}
