//! Steps of sagas by services that are called by TLS.

mod service;

use std::time::Duration;

use accede_server::{Server, ServerConfig};
use accede_tm_client::{RollBackCause, Saga, SagaError, Step, TransactionClient};
use tempfile::TempDir;

use self::service::{Authority, Certificate, Service};

const SOON: Duration = Duration::from_secs(60);
const PROTOCOLS: [&str; 2] = ["https", "grpcs"];

struct Coordinator {
    server: Server,
    transactions: TransactionClient,
    _folder: TempDir,
}

impl Coordinator {
    /// One that trusts this authority and calls all services.
    async fn start(authority: &Authority, services: &[&Service]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).expect("written");
        let mut config = ServerConfig::new(folder.path().join("data"));
        config.listen.set_port(0);
        config.saga_callback_ca = Some(file);
        config.saga_callbacks = services
            .iter()
            .flat_map(|service| PROTOCOLS.map(|protocol| service.url(protocol, "")))
            .collect();
        let server = Server::start(config).await.expect("it starts");
        let address = format!("http://{}", server.addr());
        let transactions = TransactionClient::connect(address)
            .await
            .expect("it listens");
        Self {
            server,
            transactions,
            _folder: folder,
        }
    }

    async fn run(&self, step: Step) -> Result<u32, SagaError> {
        let saga = Saga::builder("trip").timeout(SOON).step(step).build();
        let trip = saga.expect("sound").run(&self.transactions).await?;
        trip.result("flight")
    }

    /// Why a step could not be done.
    async fn refused(&self, step: Step) -> String {
        match self.run(step).await {
            Err(SagaError::RolledBack(back)) => {
                assert_eq!(back.cause, RollBackCause::StepFailed);
                back.detail
            }
            other => panic!("{other:?} is no rollback"),
        }
    }

    async fn end(self) {
        self.transactions.shutdown().await;
        self.server.shutdown().await.expect("it ends");
    }
}

fn step(service: &Service, protocol: &str, what: &str) -> Step {
    Step::callback("flight", service.url(protocol, what)).retry_backward(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_called_by_tls() {
    let authority = Authority::new("ours");
    let service = Service::start(&authority.certificate("127.0.0.1"), &[]).await;
    let c = Coordinator::start(&authority, &[&service]).await;
    for protocol in PROTOCOLS {
        let attempt = c.run(step(&service, protocol, "book")).await;
        assert_eq!(attempt.expect("done"), 1, "{protocol}");
    }
    let why = c.refused(step(&service, "https", "moved")).await;
    assert!(why.contains("302 Found"), "{why}");
    // However long a proxy's page is.
    let page = step(&service, "https", "page").retry_backward(2);
    assert_eq!(c.run(page).await.expect("done"), 2);
    c.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_good_is_named_and_the_step_is_tried_again() {
    let authority = Authority::new("ours");
    let good = authority.certificate("127.0.0.1");
    let bad: [(Certificate, &str); 3] = [
        (
            Authority::new("another").certificate("127.0.0.1"),
            "setting saga_callback_ca",
        ),
        (authority.expired("127.0.0.1"), "certificate expired"),
        (
            authority.certificate("elsewhere.example"),
            "certificate not valid for name \"127.0.0.1\"",
        ),
    ];
    for (bad, words) in bad {
        for protocol in PROTOCOLS {
            // Replaced by a good one after the first connection.
            let service = Service::start(&good, &[&bad]).await;
            let renewed = Service::start(&good, &[&bad]).await;
            let c = Coordinator::start(&authority, &[&service, &renewed]).await;
            let url = service.url(protocol, "book");
            let why = c.refused(step(&service, protocol, "book")).await;
            assert!(why.contains(&url) && why.contains(words), "{why}");
            let twice = step(&renewed, protocol, "book").retry_backward(2);
            assert_eq!(c.run(twice).await.expect("done"), 2, "{protocol}: {words}");
            c.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_tls_is_not_called_by_it() {
    let authority = Authority::new("ours");
    let service = Service::without_tls().await;
    let c = Coordinator::start(&authority, &[&service]).await;
    for protocol in PROTOCOLS {
        let why = c.refused(step(&service, protocol, "book")).await;
        let why = why.to_lowercase();
        assert!(why.contains("cannot be reached: tls"), "{why}");
    }
    c.end().await;
}
