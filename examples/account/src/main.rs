//! The account service: how much money customers have.

mod store;

use std::net::SocketAddr;

use accede_rm_agent::{RmAgent, propagate::IncomingXidLayer};
use clap::Parser;
use shop_api::{
    mode::{self, ShopMode},
    service::{asked_to_stop, database_status, report_health, start_logging},
    v1::{
        DebitRequest, DebitResponse,
        account_server::{Account, AccountServer},
    },
};
use tonic::{Request, Response, Status, transport::Server};

use store::Store;

/// The shop's account service.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, env = "ACCOUNT_LISTEN", default_value = "127.0.0.1:8002")]
    listen: SocketAddr,
    /// postgres://user:password@host:port/database, mysql://… for MariaDB, or
    /// sqlite:///path/to/file.db.
    #[arg(long, env = "ACCOUNT_DATABASE_URL", hide_env_values = true)]
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
enum AccountError {
    #[error("user {user} has not enough money: {balance} cents, the order costs {cents}")]
    NotEnoughMoney { user: i64, balance: i64, cents: i64 },
    #[error("there is no user {0}")]
    UnknownUser(i64),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<AccountError> for Status {
    fn from(error: AccountError) -> Self {
        match &error {
            AccountError::NotEnoughMoney { .. } => Self::failed_precondition(error.to_string()),
            AccountError::UnknownUser(_) => Self::not_found(error.to_string()),
            AccountError::Database(error) => database_status(error),
        }
    }
}

struct AccountService {
    store: Box<dyn Store>,
}

impl AccountService {
    async fn take(&self, user: i64, cents: i64) -> Result<i64, AccountError> {
        self.store.take(user, cents).await?.taken(user, cents)
    }
}

#[tonic::async_trait]
impl Account for AccountService {
    async fn debit(
        &self,
        request: Request<DebitRequest>,
    ) -> Result<Response<DebitResponse>, Status> {
        let DebitRequest { user, cents } = request.into_inner();
        if cents < 0 {
            return Err(Status::invalid_argument("cents must not be negative"));
        }
        let balance = self.take(user, cents).await?;
        tracing::info!(user, cents, balance, "taken");
        Ok(Response::new(DebitResponse { balance }))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    start_logging();
    let options = Options::parse();
    let agent = RmAgent::builder("account").coordinator(options.coordinator);
    let (agent, store) = store::open(agent, &options.database_url, options.mode).await?;

    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, agent.clone()));
    tracing::info!(listen = %options.listen, "serving");
    Server::builder()
        .layer(IncomingXidLayer)
        .add_service(health)
        .add_service(AccountServer::new(AccountService { store }))
        .serve_with_shutdown(options.listen, asked_to_stop())
        .await?;
    reporting.abort();
    agent.shutdown().await;
    Ok(())
}
