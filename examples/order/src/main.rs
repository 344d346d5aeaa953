//! The order service: what customers ordered and paid.

mod store;

use std::{net::SocketAddr, sync::Arc};

use accede_rm_agent::{RmAgent, propagate::IncomingXidLayer};
use clap::Parser;
use shop_api::{
    mode::{self, ShopMode},
    service::{asked_to_stop, database_status, report_health, start_logging},
    v1::{
        CreateOrderRequest, CreateOrderResponse,
        orders_server::{Orders, OrdersServer},
    },
};
use tonic::{Request, Response, Status, transport::Server};

use store::Store;

/// So that one order cannot make a transaction of any size.
const MAX_ITEMS: usize = 100;
const MAX_REFERENCE_BYTES: usize = 200;

/// The shop's order service.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, env = "ORDER_LISTEN", default_value = "127.0.0.1:8003")]
    listen: SocketAddr,
    /// postgres://user:password@host:port/database, mysql://… for MariaDB, or
    /// sqlite:///path/to/file.db.
    #[arg(long, env = "ORDER_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Address of the transaction coordinator.
    #[arg(
        long,
        env = "ACCEDE_COORDINATOR",
        default_value = "http://127.0.0.1:7700"
    )]
    coordinator: String,
    /// How it takes part in transactions: at, xa, tcc, saga, 3pc or mixed.
    #[arg(long, env = "SHOP_MODE", default_value = "at", value_parser = mode::parse)]
    mode: ShopMode,
}

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("the order {0:?} exists already")]
    Exists(String),
    #[error("{0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<OrderError> for Status {
    fn from(error: OrderError) -> Self {
        match &error {
            OrderError::Exists(_) => Self::already_exists(error.to_string()),
            OrderError::Invalid(_) => Self::invalid_argument(error.to_string()),
            OrderError::Database(error) => database_status(error),
        }
    }
}

struct OrderService {
    store: Box<dyn Store>,
}

impl OrderService {
    async fn write_down(&self, order: &Arc<CreateOrderRequest>) -> Result<i64, OrderError> {
        let written = self.store.write_down(order).await?;
        written.ok_or_else(|| OrderError::Exists(order.reference.clone()))
    }
}

fn check(order: &CreateOrderRequest) -> Result<(), OrderError> {
    let Some(wrong) = [
        (order.reference.is_empty(), "the order needs a reference"),
        (
            order.reference.len() > MAX_REFERENCE_BYTES,
            "the reference is longer than 200 bytes",
        ),
        (order.items.is_empty(), "the order has no items"),
        (
            order.items.len() > MAX_ITEMS,
            "the order has more than 100 items",
        ),
        (
            order.items.iter().any(|item| item.count < 1),
            "count must be at least 1",
        ),
        (order.paid < 0, "paid must not be negative"),
    ]
    .into_iter()
    .find_map(|(is_wrong, text)| is_wrong.then_some(text)) else {
        return Ok(());
    };
    Err(OrderError::Invalid(wrong))
}

#[tonic::async_trait]
impl Orders for OrderService {
    async fn create(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<CreateOrderResponse>, Status> {
        let order = Arc::new(request.into_inner());
        check(&order)?;
        let id = self.write_down(&order).await?;
        tracing::info!(order = id, reference = order.reference, "written down");
        Ok(Response::new(CreateOrderResponse { order: id }))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    start_logging();
    let options = Options::parse();
    let agent = RmAgent::builder("order").coordinator(options.coordinator);
    let (agent, store) = store::open(agent, &options.database_url, options.mode).await?;

    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, agent.clone()));
    tracing::info!(listen = %options.listen, "serving");
    Server::builder()
        .layer(IncomingXidLayer)
        .add_service(health)
        .add_service(OrdersServer::new(OrderService { store }))
        .serve_with_shutdown(options.listen, asked_to_stop())
        .await?;
    reporting.abort();
    agent.shutdown().await;
    Ok(())
}
