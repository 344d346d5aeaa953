//! The order service: what customers ordered and paid.

use std::{net::SocketAddr, sync::Arc};

use accede_rm_agent::{AtPool, RmAgent, propagate::IncomingXidLayer};
use clap::Parser;
use shop_api::{
    service::{asked_to_stop, database_status, report_health, start_logging},
    v1::{
        CreateOrderRequest, CreateOrderResponse,
        orders_server::{Orders, OrdersServer},
    },
};
use tonic::{Request, Response, Status, transport::Server};

const RESOURCE: &str = "order-db";
/// So that one order cannot make a transaction of any size.
const MAX_ITEMS: usize = 100;
const MAX_REFERENCE_BYTES: usize = 200;

/// The shop's order service.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, env = "ORDER_LISTEN", default_value = "127.0.0.1:8003")]
    listen: SocketAddr,
    /// postgres://user:password@host:port/database
    #[arg(long, env = "ORDER_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Address of the transaction coordinator.
    #[arg(
        long,
        env = "ACCEDE_COORDINATOR",
        default_value = "http://127.0.0.1:7700"
    )]
    coordinator: String,
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
    pool: AtPool,
}

impl OrderService {
    async fn write_down(&self, order: &Arc<CreateOrderRequest>) -> Result<i64, OrderError> {
        self.pool
            .run(|tx| {
                let order = Arc::clone(order);
                Box::pin(async move {
                    let id: i64 = sqlx::query_scalar(
                        "INSERT INTO orders (reference, user_id, paid) VALUES ($1, $2, $3) \
                         ON CONFLICT (reference) DO NOTHING RETURNING id",
                    )
                    .bind(&order.reference)
                    .bind(order.user)
                    .bind(order.paid)
                    .fetch_optional(&mut *tx)
                    .await?
                    .ok_or_else(|| OrderError::Exists(order.reference.clone()))?;
                    for (position, item) in (1_i64..).zip(&order.items) {
                        sqlx::query(
                            "INSERT INTO order_items (order_id, position, product, count) \
                             VALUES ($1, $2, $3, $4)",
                        )
                        .bind(id)
                        .bind(position)
                        .bind(item.product)
                        .bind(item.count)
                        .execute(&mut *tx)
                        .await?;
                    }
                    Ok(id)
                })
            })
            .await
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
    let agent = RmAgent::builder("order")
        .coordinator(options.coordinator)
        .postgres(RESOURCE, &options.database_url)
        .start()
        .await?;
    let pool = agent.pool(RESOURCE)?;
    sqlx::raw_sql(include_str!("../migrations/0001_orders.sql"))
        .execute(pool.plain())
        .await?;

    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, agent.clone()));
    tracing::info!(listen = %options.listen, "serving");
    Server::builder()
        .layer(IncomingXidLayer)
        .add_service(health)
        .add_service(OrdersServer::new(OrderService { pool }))
        .serve_with_shutdown(options.listen, asked_to_stop())
        .await?;
    reporting.abort();
    agent.shutdown().await;
    Ok(())
}
