//! A service that does steps by HTTP and gRPC on one port, and the certificates that it shows.

use std::{net::SocketAddr, sync::Arc};

use accede_proto::v1::{StepCall, StepResult, saga_step_server};
use axum::{
    Json, Router,
    extract::Path,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Status, service::Routes};

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a service shows.
pub(crate) struct Certificate(Arc<ServerConfig>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        self.sign(&CertificateParams::new([name.to_owned()]).expect("a name"))
    }

    pub(crate) fn expired(&self, name: &str) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.0).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![signed.der().clone()], key)
            .expect("they fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Certificate(Arc::new(config))
    }
}

pub(crate) struct Service {
    address: SocketAddr,
}

impl Service {
    /// Its first connections get these certificates, one each, and all others the last.
    pub(crate) async fn start(last: &Certificate, first: &[&Certificate]) -> Self {
        let first: Vec<_> = first.iter().map(|first| Arc::clone(&first.0)).collect();
        let (mut first, last) = (first.into_iter(), Arc::clone(&last.0));
        Self::accept(move || Some(first.next().unwrap_or_else(|| Arc::clone(&last)))).await
    }

    pub(crate) async fn without_tls() -> Self {
        Self::accept(|| None).await
    }

    async fn accept(mut tls: impl FnMut() -> Option<Arc<ServerConfig>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match tls() {
                    None => drop(tokio::spawn(serve(stream))),
                    Some(config) => drop(tokio::spawn(async move {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            serve(stream).await;
                        }
                    })),
                }
            }
        });
        Self { address }
    }

    pub(crate) fn url(&self, protocol: &str, what: &str) -> String {
        match protocol {
            "grpcs" => format!("grpcs://{}", self.address),
            _ => format!("{protocol}://{}/steps/{what}", self.address),
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let grpc = Routes::new(saga_step_server::SagaStepServer::new(ByGrpc));
    let routes: Router = grpc
        .into_axum_router()
        .route("/steps/{what}", post(by_http));
    let service = TowerToHyperService::new(routes);
    let builder = auto::Builder::new(TokioExecutor::new());
    // The caller sees how it ends.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Returns the number of the attempt.
async fn by_http(Path(what): Path<String>, Json(call): Json<Value>) -> Response {
    match what.as_str() {
        "moved" => (StatusCode::FOUND, [(LOCATION, "/steps/book")]).into_response(),
        "page" if call["attempt"] == 1 => {
            (StatusCode::BAD_GATEWAY, "x".repeat(20_000)).into_response()
        }
        _ => Json(call["attempt"].clone()).into_response(),
    }
}

struct ByGrpc;

#[tonic::async_trait]
impl saga_step_server::SagaStep for ByGrpc {
    async fn run(&self, call: Request<StepCall>) -> Result<tonic::Response<StepResult>, Status> {
        let result = call.into_inner().attempt.to_string().into_bytes().into();
        Ok(tonic::Response::new(StepResult { result }))
    }
}
