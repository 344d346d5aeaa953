//! Steps of sagas by services that have no agent: called by HTTP and gRPC, with a real coordinator.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use accede_proto::v1::{StepCall, StepResult, saga_step_server, step_call::Direction};
use accede_server::{Server, ServerConfig};
use accede_tests::eventually;
use accede_tm_client::{RollBackCause, Saga, SagaError, Step, TransactionClient};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{Request, Status};

const SOON: Duration = Duration::from_secs(60);

/// A service that remembers how it was called.
#[derive(Clone, Default)]
struct Service {
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    keys: Arc<Mutex<HashMap<String, u32>>>,
}

impl Service {
    /// `flight run`, `hotel compensate` … in the order of the calls.
    fn heard(&self) -> Vec<String> {
        let calls = self.calls.lock().expect("nobody panics");
        let heard = calls.iter().map(|(_, call)| {
            let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("step"), text("direction"))
        });
        heard.collect()
    }

    fn call(&self, number: usize) -> (String, Value) {
        self.calls.lock().expect("nobody panics")[number].clone()
    }
}

async fn step(
    State(service): State<Service>,
    Path(what): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call: Value = serde_json::from_slice(&body).expect("JSON");
    let key = headers["idempotency-key"]
        .to_str()
        .expect("a key")
        .to_owned();
    let attempt = {
        let mut keys = service.keys.lock().expect("nobody panics");
        let attempt = keys.entry(key.clone()).or_default();
        *attempt += 1;
        *attempt
    };
    let compensates = call["direction"] == "compensate";
    service
        .calls
        .lock()
        .expect("nobody panics")
        .push((key, call));
    match what.as_str() {
        _ if compensates => StatusCode::NO_CONTENT.into_response(),
        "busy" if attempt == 1 => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            "busy",
        )
            .into_response(),
        "never" => (StatusCode::CONFLICT, "sold out\n").into_response(),
        "silent" => std::future::pending().await,
        "moved" => (StatusCode::FOUND, [(header::LOCATION, "/steps/ok")]).into_response(),
        "large" => "x".repeat(20_000).into_response(),
        "text" => "thank you".into_response(),
        "nothing" => StatusCode::NO_CONTENT.into_response(),
        _ => json!({"number": 571}).to_string().into_response(),
    }
}

#[tonic::async_trait]
impl saga_step_server::SagaStep for Service {
    async fn run(&self, request: Request<StepCall>) -> Result<tonic::Response<StepResult>, Status> {
        let call = request.into_inner();
        let direction = match call.direction() {
            Direction::Run => "run",
            _ => "compensate",
        };
        let named = json!({
            "step": call.step, "direction": direction,
            "results": call.results.len(), "own": call.result.is_some(),
        });
        let mut calls = self.calls.lock().expect("nobody panics");
        calls.push((call.idempotency_key, named));
        if direction == "run" && call.input == b"\"never\""[..] {
            return Err(Status::failed_precondition("no seat is left"));
        }
        let result = b"\"seat 7\"".to_vec().into();
        Ok(tonic::Response::new(StepResult { result }))
    }
}

struct Surroundings {
    server: Server,
    transactions: TransactionClient,
    service: Service,
    http: SocketAddr,
    grpc: SocketAddr,
    _folder: TempDir,
}

async fn surroundings() -> anyhow::Result<Surroundings> {
    let service = Service::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let http = listener.local_addr()?;
    let router = Router::new()
        .route("/steps/{what}", post(step))
        .with_state(service.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let grpc = listener.local_addr()?;
    let participant = saga_step_server::SagaStepServer::new(service.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(participant);
        server.serve_with_incoming(incoming).await
    });
    let folder = tempfile::tempdir()?;
    let mut config = ServerConfig::new(folder.path().join("data"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.saga_callbacks = vec![format!("http://{http}/steps/"), format!("grpc://{grpc}")];
    let server = Server::start(config).await?;
    let transactions = TransactionClient::connect(format!("http://{}", server.addr())).await?;
    Ok(Surroundings {
        server,
        transactions,
        service,
        http,
        grpc,
        _folder: folder,
    })
}

impl Surroundings {
    /// A step that answers as the path says.
    fn step(&self, name: &str, what: &str) -> Step {
        Step::callback(name, format!("http://{}/steps/{what}", self.http))
    }

    /// Runs a saga whose last step cannot be done; why not.
    async fn refused(&self, last: Step) -> anyhow::Result<String> {
        let saga = Saga::builder("trip")
            .timeout(SOON)
            .step(self.step("flight", "ok"));
        match saga.step(last).build()?.run(&self.transactions).await {
            Err(SagaError::RolledBack(back)) => {
                assert_eq!(back.cause, RollBackCause::StepFailed);
                Ok(back.detail)
            }
            other => anyhow::bail!("{other:?} is no rollback"),
        }
    }

    async fn until_heard(&self, last: &str) -> anyhow::Result<()> {
        eventually("the compensations are called", SOON, async || {
            (self.service.heard().last()? == last).then_some(())
        })
        .await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.transactions.shutdown().await;
        self.server.shutdown().await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_called_with_all_that_they_need() -> anyhow::Result<()> {
    let s = surroundings().await?;
    let saga = Saga::builder("trip")
        .timeout(SOON)
        .step(s.step("flight", "ok").input(&json!({"to": "LIS"}))?)
        .step(s.step("hotel", "busy"))
        .step(s.step("car", "nothing"))
        .step(Step::callback("seat", format!("grpc://{}", s.grpc)))
        .build()?;
    let trip = saga.run(&s.transactions).await?;
    assert_eq!(trip.result::<Value>("flight")?, json!({"number": 571}));
    assert_eq!(trip.result::<Value>("car")?, Value::Null);
    assert_eq!(trip.result::<String>("seat")?, "seat 7");
    let heard = s.service.heard();
    assert_eq!(
        heard,
        [
            "flight run",
            "hotel run",
            "hotel run",
            "car run",
            "seat run"
        ]
    );
    let (key, flight) = s.service.call(0);
    let xid = trip.xid.to_string();
    assert_eq!(key, format!("{xid}-1-run"));
    let expected = json!({
        "xid": xid, "branch": 1, "step": "flight", "attempt": 1, "direction": "run",
        "input": {"to": "LIS"}, "results": {},
    });
    assert_eq!(flight, expected);
    let (again, car) = (s.service.call(2), s.service.call(3).1);
    assert_eq!(again.0, s.service.call(1).0, "the key is the same");
    assert_eq!(again.1["attempt"], 2);
    let number = json!({"number": 571});
    assert_eq!(car["results"], json!({"flight": number, "hotel": number}));
    assert_eq!(s.service.call(4).1["results"], 3);
    s.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_has_its_meaning() -> anyhow::Result<()> {
    let s = surroundings().await?;
    assert_eq!(
        s.refused(s.step("hotel", "never")).await?,
        "hotel: sold out"
    );
    s.until_heard("flight compensate").await?;
    let heard = s.service.heard();
    let expected = [
        "flight run",
        "hotel run",
        "hotel compensate",
        "flight compensate",
    ];
    assert_eq!(heard, expected);
    let (key, flight) = s.service.call(3);
    assert!(key.ends_with("-1-compensate"), "{key}");
    assert_eq!(flight["result"], json!({"number": 571}));
    assert!(
        s.service.call(2).1.get("result").is_none(),
        "it is not known"
    );

    let seat = Step::callback("seat", format!("grpc://{}", s.grpc)).input("never")?;
    assert_eq!(s.refused(seat).await?, "seat: no seat is left");
    let once = |what: &str| s.step("hotel", what).retry_backward(1);
    let silent = once("silent").attempt_timeout(Duration::from_millis(300));
    let gone = Step::callback("hotel", format!("http://{}/steps/moved", s.http));
    for (step, expected) in [
        (silent, "300"),
        (gone.retry_backward(2), "302 Found"),
        (once("large"), "more than 16384 bytes"),
        (once("text"), "no JSON"),
    ] {
        let why = s.refused(step).await?;
        assert!(why.contains(expected), "{why}");
    }
    for (url, expected) in [
        (format!("http://{}/other", s.http), "below no prefix"),
        (format!("http://{}/steps/../other", s.http), "\"..\""),
        ("ftp://example.org/".to_owned(), "none of https://"),
    ] {
        let saga = Saga::builder("trip")
            .step(Step::callback("a", url))
            .build()?;
        let error = saga.run(&s.transactions).await.expect_err("refused");
        assert!(matches!(error, SagaError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    s.end().await
}
