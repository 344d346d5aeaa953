//! Everything behind the one port: gRPC with health and reflection, and the HTTP pages.

use std::sync::Arc;

use accede_proto::v1::{
    FILE_DESCRIPTORS, branches_server::BranchesServer, operator_server::OperatorServer,
    transactions_server::TransactionsServer,
};
use axum::{Router, http::StatusCode, routing::get};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::{
    Error,
    doors::{branches::BranchesDoor, operator::OperatorDoor, transactions::TransactionsDoor},
    hub::Hub,
    limits::MESSAGE_BYTES,
};

type TransactionsService = TransactionsServer<TransactionsDoor>;
type BranchesService = BranchesServer<BranchesDoor>;
type OperatorService = OperatorServer<OperatorDoor>;

/// All routes, and what tells health checks how it goes.
pub(crate) async fn routes(hub: &Arc<Hub>) -> Result<(Router, HealthReporter), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| {
            tracing::error!(%error, "the compiled descriptors cannot be read");
            Error::Ended { part: "reflection" }
        })?;
    let transactions = TransactionsServer::new(TransactionsDoor::new(Arc::clone(hub)));
    let branches = BranchesServer::new(BranchesDoor::new(Arc::clone(hub)));
    let operator = OperatorServer::new(OperatorDoor::new(Arc::clone(hub)));
    let grpc = Routes::new(health_service)
        .add_service(reflection)
        .add_service(transactions.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(branches.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(operator.max_decoding_message_size(MESSAGE_BYTES))
        .prepare()
        .into_axum_router();
    let pages = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(hub));
    Ok((pages.fallback_service(grpc), health))
}

/// Tells gRPC health checks whether requests are served.
pub(crate) async fn set_serving(health: &HealthReporter, serving: bool) {
    if serving {
        health.set_serving::<TransactionsService>().await;
        health.set_serving::<BranchesService>().await;
        health.set_serving::<OperatorService>().await;
    } else {
        health.set_not_serving::<TransactionsService>().await;
        health.set_not_serving::<BranchesService>().await;
        health.set_not_serving::<OperatorService>().await;
    }
}

async fn ready(
    axum::extract::State(hub): axum::extract::State<Arc<Hub>>,
) -> (StatusCode, &'static str) {
    if hub.log.failure().is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the log has failed\n");
    }
    if hub.end_sessions.is_cancelled() || hub.intake.gate() != crate::intake::Gate::Open {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    if hub.office().is_none() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "this coordinator does not lead\n",
        );
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics(
    axum::extract::State(hub): axum::extract::State<Arc<Hub>>,
) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(axum::http::header::CONTENT_TYPE, content_type)],
        hub.render_metrics(),
    )
}
