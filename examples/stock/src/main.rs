//! The stock service: which goods there are.
//!
//! Its SQL, in `store/sql/`, is that of any service. What makes it take part in global
//! transactions is `AtPool` in the place of sqlx's pool, and `IncomingXidLayer` on
//! the server.

mod store;

use std::net::SocketAddr;

use accede_rm_agent::{RmAgent, propagate::IncomingXidLayer};
use clap::Parser;
use shop_api::{
    mode::{self, ShopMode},
    service::{asked_to_stop, database_status, report_health, start_logging},
    v1::{
        DeductRequest, DeductResponse,
        stock_server::{Stock, StockServer},
    },
};
use tonic::{Request, Response, Status, transport::Server};

use store::Store;

/// The shop's stock service.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, env = "STOCK_LISTEN", default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// postgres://user:password@host:port/database, mysql://… for MariaDB, or
    /// sqlite:///path/to/file.db.
    #[arg(long, env = "STOCK_DATABASE_URL", hide_env_values = true)]
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
enum StockError {
    #[error("product {0} is sold out")]
    SoldOut(i64),
    #[error("there is no product {0}")]
    UnknownProduct(i64),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<StockError> for Status {
    fn from(error: StockError) -> Self {
        match &error {
            StockError::SoldOut(_) => Self::failed_precondition(error.to_string()),
            StockError::UnknownProduct(_) => Self::not_found(error.to_string()),
            StockError::Database(error) => database_status(error),
        }
    }
}

struct StockService {
    store: Box<dyn Store>,
}

impl StockService {
    async fn take(&self, product: i64, count: i64) -> Result<DeductResponse, StockError> {
        let outcome = self.store.take(product, count).await?;
        let (unit_price, left) = outcome.taken(product)?;
        Ok(DeductResponse { unit_price, left })
    }
}

#[tonic::async_trait]
impl Stock for StockService {
    async fn deduct(
        &self,
        request: Request<DeductRequest>,
    ) -> Result<Response<DeductResponse>, Status> {
        let DeductRequest { product, count } = request.into_inner();
        if count < 1 {
            return Err(Status::invalid_argument("count must be at least 1"));
        }
        let taken = self.take(product, count).await?;
        tracing::info!(product, count, left = taken.left, "taken");
        Ok(Response::new(taken))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    start_logging();
    let options = Options::parse();
    let agent = RmAgent::builder("stock").coordinator(options.coordinator);
    let (agent, store) = store::open(agent, &options.database_url, options.mode).await?;

    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, agent.clone()));
    tracing::info!(listen = %options.listen, "serving");
    Server::builder()
        .layer(IncomingXidLayer)
        .add_service(health)
        .add_service(StockServer::new(StockService { store }))
        .serve_with_shutdown(options.listen, asked_to_stop())
        .await?;
    reporting.abort();
    agent.shutdown().await;
    Ok(())
}
