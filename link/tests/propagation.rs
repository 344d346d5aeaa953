//! The transaction travels over real sockets: tonic to tonic, reqwest to axum.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{net::SocketAddr, pin::Pin};

use accede_link::{
    context::{TransactionContext, current, current_xid, scope, suspend},
    propagate::{IncomingXidLayer, OutgoingXid, OutgoingXidLayer},
};
use accede_proto::{
    Xid,
    v1::{
        BeginRequest, BeginResponse, CommitRequest, GetOutcomeRequest, Outcome, RollBackRequest,
        SagaOutcome, StartSagaRequest, TransactionEvent, TransactionRequest,
        transactions_client::TransactionsClient,
        transactions_server::{Transactions, TransactionsServer},
    },
};
use futures_util::Stream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Channel, Server},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

/// Answers with the transaction that the handler runs in.
struct Mirror;

fn seen() -> u64 {
    current_xid().map_or(0, Xid::as_u64)
}

type Events = Pin<Box<dyn Stream<Item = Result<TransactionEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Transactions for Mirror {
    type SessionStream = Events;

    async fn session(
        &self,
        _: Request<Streaming<TransactionRequest>>,
    ) -> Result<Response<Events>, Status> {
        // Made when the body is polled, after this function returned.
        let mut left = 3;
        Ok(Response::new(Box::pin(futures_util::stream::poll_fn(
            move |_| {
                left -= 1;
                let event = TransactionEvent {
                    tag: seen(),
                    body: None,
                };
                std::task::Poll::Ready((left >= 0).then_some(Ok(event)))
            },
        ))))
    }

    async fn begin(&self, _: Request<BeginRequest>) -> Result<Response<BeginResponse>, Status> {
        let known = current().is_some_and(|context| context.remaining().is_some());
        Ok(Response::new(BeginResponse {
            xid: u64::from(known),
        }))
    }

    async fn start_saga(
        &self,
        _: Request<StartSagaRequest>,
    ) -> Result<Response<SagaOutcome>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn commit(&self, _: Request<CommitRequest>) -> Result<Response<Outcome>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn roll_back(&self, _: Request<RollBackRequest>) -> Result<Response<Outcome>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn get_outcome(
        &self,
        _: Request<GetOutcomeRequest>,
    ) -> Result<Response<Outcome>, Status> {
        Ok(Response::new(Outcome {
            xid: seen(),
            ..Outcome::default()
        }))
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn tonic_mirror() -> Channel {
    let (listener, address) = listen().await;
    tokio::spawn(
        Server::builder()
            .layer(IncomingXidLayer)
            .add_service(TransactionsServer::new(Mirror))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn xid() -> Xid {
    "000c1f40a2e00001".parse().unwrap()
}

#[tokio::test]
async fn tonic_to_tonic() {
    let channel = tonic_mirror().await;
    let mut client = TransactionsClient::new(OutgoingXid::new(channel));
    let outside = client.get_outcome(GetOutcomeRequest::default()).await;
    assert_eq!(outside.unwrap().into_inner().xid, 0);

    let context = TransactionContext::new(xid());
    scope(Some(context), async {
        let inside = client.get_outcome(GetOutcomeRequest::default()).await;
        assert_eq!(inside.unwrap().into_inner().xid, xid().as_u64());
        let deadline = client.begin(BeginRequest::default()).await.unwrap();
        assert_eq!(deadline.into_inner().xid, 0, "no deadline was known");
        let suspended = suspend(client.get_outcome(GetOutcomeRequest::default())).await;
        assert_eq!(suspended.unwrap().into_inner().xid, 0);
    })
    .await;

    let context = context.with_remaining(std::time::Duration::from_secs(5));
    let deadline = scope(Some(context), client.begin(BeginRequest::default())).await;
    assert_eq!(deadline.unwrap().into_inner().xid, 1, "it travels");
}

#[tokio::test]
async fn a_streamed_answer_is_made_inside_the_transaction() {
    let channel = ServiceBuilder::new()
        .layer(OutgoingXidLayer)
        .service(tonic_mirror().await);
    let mut client = TransactionsClient::new(channel);
    let call = client.session(futures_util::stream::empty());
    let mut events = scope(Some(xid().into()), call).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(event) = events.message().await.unwrap() {
        assert_eq!(event.tag, xid().as_u64());
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn a_tonic_server_refuses_a_malformed_header() {
    let channel = tonic_mirror().await;
    let mut client = TransactionsClient::new(channel);
    let mut request = Request::new(GetOutcomeRequest::default());
    request
        .metadata_mut()
        .insert("tx_xid", "10.0.0.1:8091:77".parse().unwrap());
    let status = client.get_outcome(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("tx_xid"), "{status}");
    assert!(status.message().contains("16 hex digits"), "{status}");
}

fn axum_mirror() -> axum::Router {
    let show = || async { current_xid().map_or("none".into(), |xid| xid.to_string()) };
    axum::Router::new()
        .route("/", axum::routing::get(show))
        .layer(IncomingXidLayer)
}

#[tokio::test]
async fn axum_reads_and_refuses() {
    let ask = async |pairs: &[(&str, &str)]| {
        let mut request = http::Request::get("/");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = axum_mirror().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let text = xid().to_string();
    assert_eq!(ask(&[]).await, (200, "none".into()));
    assert_eq!(ask(&[("x-accede-xid", &text)]).await, (200, text.clone()));
    assert_eq!(ask(&[("TX_XID", &text)]).await, (200, text.clone()));
    let (status, reason) = ask(&[("x-accede-xid", "nonsense")]).await;
    assert_eq!(status, 400);
    assert!(
        reason.contains("\"nonsense\" is no transaction id"),
        "{reason}"
    );
    // A request without the header works for no transaction, whoever calls it.
    let (status, body) = scope(Some(xid().into()), ask(&[])).await;
    assert_eq!((status, body.as_str()), (200, "none"));
}

#[tokio::test]
async fn any_tower_client_carries_it() {
    let answer = tower::service_fn(|request: http::Request<()>| async move {
        let header = request.headers().get("x-accede-xid").cloned();
        Ok::<_, std::convert::Infallible>(header)
    });
    let mut client = OutgoingXidLayer.layer(answer);
    assert_eq!(client.call(http::Request::new(())).await, Ok(None));
    let inside = scope(Some(xid().into()), async {
        client.call(http::Request::new(())).await
    });
    let header = inside.await.unwrap().expect("the header is set");
    assert_eq!(header, xid().to_string());
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_to_axum() {
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, axum_mirror()).await });
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(accede_link::propagate::OutgoingXidMiddleware)
        .build();
    let url = format!("http://{address}/");
    let ask = async || {
        let response = client.get(&url).send().await.unwrap();
        response.text().await.unwrap()
    };
    assert_eq!(ask().await, "none");
    let inside = scope(Some(xid().into()), ask()).await;
    assert_eq!(inside, xid().to_string());
}
