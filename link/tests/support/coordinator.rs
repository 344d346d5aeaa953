//! A coordinator whose every answer the test gives itself, over real sockets.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use accede_proto::v1::{
    Attached, BranchBlocked, BranchDone, BranchDoomed, BranchEvent, BranchRequest, BranchWithdrawn,
    CheckRowLocks, Empty, LocksFree, OpenBranchSession, Refusal, RegisterBranch, Registered,
    branch_event::Body,
    branch_request::Body as Ask,
    branches_server::{Branches, BranchesServer},
    refusal::Code,
};
use futures_util::{Stream, StreamExt as _};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Long enough for a loaded machine; nothing waits for it when all goes well.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const CLUSTER: [u8; 16] = [7; 16];

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("it happens soon")
}

/// The server's side of one session.
pub(crate) struct Connection {
    pub(crate) requests: Streaming<BranchRequest>,
    events: Option<mpsc::Sender<Result<BranchEvent, Status>>>,
}

impl Connection {
    pub(crate) async fn next(&mut self) -> BranchRequest {
        soon(self.requests.message())
            .await
            .expect("a sound stream")
            .expect("one more request")
    }

    pub(crate) async fn answer(&self, tag: u64, body: Body) {
        let event = BranchEvent {
            tag,
            body: Some(body),
        };
        let events = self.events.as_ref().expect("not ended");
        events.send(Ok(event)).await.expect("the client listens");
    }

    /// Takes the opening frame and accepts it.
    pub(crate) async fn open(&mut self) -> OpenBranchSession {
        let request = self.next().await;
        let Some(Ask::Open(open)) = request.body else {
            panic!("expected the opening frame, got {request:?}");
        };
        self.answer(request.tag, attached(&CLUSTER)).await;
        open
    }

    /// Takes the opening frame and refuses it.
    pub(crate) async fn refuse(&mut self, code: Code, message: &str) {
        let request = self.next().await;
        self.answer(request.tag, refusal(code, message)).await;
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(mut self, message: &str) {
        let events = self.events.take().expect("not ended");
        events
            .send(Err(Status::unavailable(message)))
            .await
            .expect("the client listens");
    }
}

pub(crate) fn attached(cluster: &[u8]) -> Body {
    Body::Attached(Attached {
        cluster_id: cluster.to_vec().into(),
        epoch: 1,
    })
}

pub(crate) fn refusal(code: Code, message: &str) -> Body {
    Body::Refusal(Refusal {
        code: code.into(),
        message: message.into(),
        ..Refusal::default()
    })
}

/// A listening coordinator; dropping it stops it.
pub(crate) struct Coordinator {
    pub(crate) address: SocketAddr,
    sessions: mpsc::Receiver<Connection>,
    serving: JoinHandle<()>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener)
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("bound");
        let (sender, sessions) = mpsc::channel(16);
        let serving = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .initial_stream_window_size(64 * 1024)
                .add_service(BranchesServer::new(Door(sender)))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves");
        });
        Self {
            address,
            sessions,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next session that a client opens.
    pub(crate) async fn session(&mut self) -> Connection {
        soon(self.sessions.recv()).await.expect("a session")
    }
}

struct Door(mpsc::Sender<Connection>);

type Events = Pin<Box<dyn Stream<Item = Result<BranchEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Branches for Door {
    type SessionStream = Events;

    async fn session(
        &self,
        request: Request<Streaming<BranchRequest>>,
    ) -> Result<Response<Events>, Status> {
        let (events, answers) = mpsc::channel(1024);
        let connection = Connection {
            requests: request.into_inner(),
            events: Some(events),
        };
        self.0
            .send(connection)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn register(&self, _: Request<RegisterBranch>) -> Result<Response<Registered>, Status> {
        Err(Status::unimplemented("only sessions here"))
    }

    async fn check_locks(&self, _: Request<CheckRowLocks>) -> Result<Response<LocksFree>, Status> {
        Err(Status::unimplemented("only sessions here"))
    }

    async fn done(&self, _: Request<BranchDone>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("only sessions here"))
    }

    async fn withdraw(&self, _: Request<BranchWithdrawn>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("only sessions here"))
    }

    async fn blocked(&self, _: Request<BranchBlocked>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("only sessions here"))
    }

    async fn doom(&self, _: Request<BranchDoomed>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("only sessions here"))
    }
}
