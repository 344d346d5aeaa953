//! A server that speaks the coordinator's streams, keeps nothing and answers at once: the limit
//! that messages alone set.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use accede_proto::v1::{
    self, branch_event, branch_request,
    branches_server::{Branches, BranchesServer},
    transaction_event, transaction_request,
    transactions_server::{Transactions, TransactionsServer},
};
use anyhow::Context as _;
use futures_util::stream::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    CONNECTION_WINDOW_BYTES, READ_CHUNK, STREAM_WINDOW_BYTES, load::LEASE_TTL, outbox::Outbox,
};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Orders = Arc<Mutex<Option<Arc<Outbox<v1::BranchEvent>>>>>;

/// Serves until `stop` resolves.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let echo = Echo {
        orders: Arc::default(),
    };
    let nodelay = TcpListenerStream::new(listener).inspect(|connection| {
        if let Ok(connection) = connection {
            // Without it answers wait for the peer's acknowledgement: slower, still right.
            let _ = connection.set_nodelay(true);
        }
    });
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .add_service(TransactionsServer::new(echo.clone()))
        .add_service(BranchesServer::new(echo))
        .serve_with_incoming_shutdown(nodelay, stop)
        .await
        .context("the echo server failed")
}

/// Serves on a free port of 127.0.0.1, tells the address on stdout, and ends when it is asked to.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn run(address: SocketAddr) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = serve(listener, std::future::pending()) => served,
        _ = asked.recv() => Ok(()),
    }
}

#[derive(Clone)]
struct Echo {
    /// Where orders go: to the branch session that was opened last.
    orders: Orders,
}

impl Echo {
    fn transaction(&self, request: v1::TransactionRequest) -> Option<v1::TransactionEvent> {
        use transaction_request::Body;
        let body = match request.body? {
            Body::Open(_) | Body::Renew(_) => transaction_event::Body::Lease(v1::Lease {
                worker: 1,
                floor_ms: 1,
                ceiling_ms: 1 << 40,
                ttl_ms: LEASE_TTL.as_millis() as u32,
                cluster_id: vec![1; 16].into(),
                begun_through: 0,
            }),
            Body::Commit(commit) => {
                self.order(commit.xid);
                transaction_event::Body::Outcome(v1::Outcome {
                    xid: commit.xid,
                    status: v1::Status::Committing.into(),
                    decision: v1::Decision::Commit.into(),
                    reason: None,
                })
            }
            Body::Begin(_)
            | Body::RollBack(_)
            | Body::GetOutcome(_)
            | Body::StartSaga(_)
            | Body::Close(_) => {
                return None;
            }
        };
        Some(v1::TransactionEvent {
            tag: request.tag,
            body: Some(body),
        })
    }

    fn order(&self, xid: u64) {
        let Some(orders) = self.orders.lock().clone() else {
            return;
        };
        for branch in 1..=2 {
            let order = v1::Order {
                xid,
                branch,
                resource: super::load::RESOURCE.to_owned(),
                mode: v1::Mode::At.into(),
                action: v1::Action::Commit.into(),
                attempt: 1,
                epoch: 1,
                was_done: true,
                payload: bytes::Bytes::new(),
                step: None,
            };
            orders.push(v1::BranchEvent {
                tag: 0,
                body: Some(branch_event::Body::Order(order)),
            });
        }
    }
}

fn branch(request: v1::BranchRequest) -> Option<v1::BranchEvent> {
    use branch_request::Body;
    let body = match request.body? {
        Body::Open(_) => branch_event::Body::Attached(v1::Attached {
            cluster_id: vec![1; 16].into(),
            epoch: 1,
        }),
        Body::Register(register) => branch_event::Body::Registered(v1::Registered {
            // The load numbers its requests so that this is the branch's number.
            branch: register.request?.sequence as u32 % 2 + 1,
            give_up_ms: 10_000,
            keep_open: false,
        }),
        Body::CheckLocks(_) => branch_event::Body::LocksFree(v1::LocksFree {}),
        Body::Done(_)
        | Body::Withdrawn(_)
        | Body::Doomed(_)
        | Body::Blocked(_)
        | Body::PromisesSeen(_)
        | Body::Finished(_) => branch_event::Body::Accepted(v1::Empty {}),
        Body::AskStanding(_) => branch_event::Body::Standing(v1::Standing::default()),
        Body::AskEnded(_) => branch_event::Body::Ended(v1::Ended::default()),
    };
    Some(v1::BranchEvent {
        tag: request.tag,
        body: Some(body),
    })
}

fn only_streams<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the echo serves streams only"))
}

#[tonic::async_trait]
impl Transactions for Echo {
    type SessionStream = Events<v1::TransactionEvent>;

    async fn session(
        &self,
        requests: Request<Streaming<v1::TransactionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let echo = self.clone();
        let outbox = Outbox::new();
        let events = outbox.drain().map(Ok);
        tokio::spawn(async move {
            let mut chunks = requests.into_inner().ready_chunks(READ_CHUNK);
            while let Some(chunk) = chunks.next().await {
                let mut begun = 0;
                for request in chunk.into_iter().map_while(Result::ok) {
                    if let Some(transaction_request::Body::Begin(begin)) = &request.body {
                        begun = begin.xid;
                    }
                    if let Some(event) = echo.transaction(request) {
                        outbox.push(event);
                    }
                }
                if begun != 0 {
                    outbox.push(v1::TransactionEvent {
                        tag: 0,
                        body: Some(transaction_event::Body::BegunThrough(v1::BegunThrough {
                            xid: begun,
                        })),
                    });
                }
            }
        });
        Ok(Response::new(events.boxed()))
    }

    async fn begin(
        &self,
        _: Request<v1::BeginRequest>,
    ) -> Result<Response<v1::BeginResponse>, Status> {
        only_streams()
    }

    async fn commit(&self, _: Request<v1::CommitRequest>) -> Result<Response<v1::Outcome>, Status> {
        only_streams()
    }

    async fn roll_back(
        &self,
        _: Request<v1::RollBackRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        only_streams()
    }

    async fn start_saga(
        &self,
        _: Request<v1::StartSagaRequest>,
    ) -> Result<Response<v1::SagaOutcome>, Status> {
        only_streams()
    }

    async fn get_outcome(
        &self,
        _: Request<v1::GetOutcomeRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        only_streams()
    }
}

#[tonic::async_trait]
impl Branches for Echo {
    type SessionStream = Events<v1::BranchEvent>;

    async fn session(
        &self,
        requests: Request<Streaming<v1::BranchRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let outbox = Outbox::new();
        *self.orders.lock() = Some(Arc::clone(&outbox));
        let events = outbox.drain().map(Ok);
        tokio::spawn(async move {
            let mut chunks = requests.into_inner().ready_chunks(READ_CHUNK);
            while let Some(chunk) = chunks.next().await {
                let requests = chunk.into_iter().map_while(Result::ok);
                requests
                    .filter_map(branch)
                    .for_each(|event| outbox.push(event));
            }
        });
        Ok(Response::new(events.boxed()))
    }

    async fn register(
        &self,
        _: Request<v1::RegisterBranch>,
    ) -> Result<Response<v1::Registered>, Status> {
        only_streams()
    }

    async fn check_locks(
        &self,
        _: Request<v1::CheckRowLocks>,
    ) -> Result<Response<v1::LocksFree>, Status> {
        only_streams()
    }

    async fn done(&self, _: Request<v1::BranchDone>) -> Result<Response<v1::Empty>, Status> {
        only_streams()
    }

    async fn withdraw(
        &self,
        _: Request<v1::BranchWithdrawn>,
    ) -> Result<Response<v1::Empty>, Status> {
        only_streams()
    }

    async fn blocked(&self, _: Request<v1::BranchBlocked>) -> Result<Response<v1::Empty>, Status> {
        only_streams()
    }

    async fn doom(&self, _: Request<v1::BranchDoomed>) -> Result<Response<v1::Empty>, Status> {
        only_streams()
    }
}
