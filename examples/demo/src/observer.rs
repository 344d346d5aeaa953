//! Stops orders between two steps: the front tells this server about each step
//! and goes on when it is told to. In a saga the steps are not the front's: there
//! the coordinator tells, by a step of its own behind each.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use accede_proto::v1::{
    StepCall, StepResult,
    saga_step_server::{SagaStep, SagaStepServer},
    step_call::Direction,
};
use anyhow::{Context as _, Result, bail};
use shop_api::{
    steps::Seen,
    v1::{
        GoOn, Step,
        observer_server::{Observer, ObserverServer},
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// How long the next step of an order may take.
const STEP_LIMIT: Duration = Duration::from_secs(30);

type Watched = Arc<Mutex<HashMap<String, mpsc::Sender<Held>>>>;

/// The server that fronts tell about their steps.
pub(crate) struct Observers {
    watched: Watched,
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// An order that stands between two steps. Dropping this lets it go on.
pub(crate) struct Held {
    pub(crate) step: Step,
    _go_on: oneshot::Sender<()>,
}

/// The steps of one order as they come.
pub(crate) struct Watch {
    steps: mpsc::Receiver<Held>,
}

#[derive(Clone)]
struct Service {
    watched: Watched,
}

impl Observers {
    pub(crate) async fn start() -> Result<Self> {
        let watched = Watched::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let service = Service {
            watched: Arc::clone(&watched),
        };
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            // It ends with the demo; the steps that then fail say so.
            let _ = Server::builder()
                .add_service(ObserverServer::new(service.clone()))
                .add_service(SagaStepServer::new(service))
                .serve_with_incoming(incoming)
                .await;
        });
        Ok(Self {
            watched,
            address,
            server,
        })
    }

    /// What an order names as its observer.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the coordinator must be allowed to call.
    pub(crate) fn callback(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn watch(&self, reference: &str) -> Watch {
        let (sender, steps) = mpsc::channel(1);
        self.watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(reference.to_owned(), sender);
        Watch { steps }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Watch {
    /// Lets the order go on by itself from now on.
    pub(crate) fn leave(&mut self) {
        self.steps.close();
        while self.steps.try_recv().is_ok() {}
    }

    /// Lets the order go on until it has done its step `number`.
    pub(crate) async fn reach(&mut self, number: u32) -> Result<Held> {
        let mut reached = 0;
        loop {
            let held = tokio::time::timeout(STEP_LIMIT, self.steps.recv())
                .await
                .with_context(|| {
                    format!(
                        "the order did not reach step {number} within {} s, only {reached}",
                        STEP_LIMIT.as_secs()
                    )
                })?
                .context("the observer has ended")?;
            reached = held.step.number;
            if reached == number {
                return Ok(held);
            }
            if reached > number {
                bail!("the order is past step {number} already");
            }
        }
    }
}

impl Service {
    /// Returns when the order shall go on.
    async fn hold(&self, step: Step) {
        let (go_on, told) = oneshot::channel::<()>();
        let watching = self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&step.reference)
            .cloned();
        let held = Held {
            step,
            _go_on: go_on,
        };
        if let Some(watch) = watching
            && watch.send(held).await.is_ok()
        {
            // Ends when the other side is dropped.
            let _ = told.await;
        }
    }
}

#[tonic::async_trait]
impl Observer for Service {
    async fn reached(&self, request: Request<Step>) -> Result<Response<GoOn>, Status> {
        self.hold(request.into_inner()).await;
        Ok(Response::new(GoOn {}))
    }
}

#[tonic::async_trait]
impl SagaStep for Service {
    async fn run(&self, request: Request<StepCall>) -> Result<Response<StepResult>, Status> {
        let call = request.into_inner();
        // There is nothing to take back.
        if call.direction() == Direction::Run {
            let seen: Seen = serde_json::from_slice(&call.input)
                .map_err(|error| Status::failed_precondition(error.to_string()))?;
            let step = Step {
                reference: seen.reference,
                xid: format!("{:016x}", call.xid),
                name: seen.name,
                number: seen.number,
            };
            self.hold(step).await;
        }
        Ok(Response::new(StepResult::default()))
    }
}
