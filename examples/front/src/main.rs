//! The front of the shop: where customers order.
//!
//! It has no database. One attribute on `place_order` makes what the three
//! services do for one order all or nothing. What it does instead in a saga, and
//! beside it in mixed modes, is in files of their own.

mod mixed;
mod observer;
mod saga;

use std::{net::SocketAddr, time::Duration};

use accede_tm_client::{
    SagaError, SessionStatus, TransactionClient, current_xid, global_transaction,
    propagate::OutgoingXid,
};
use clap::Parser;
use shop_api::{
    mode::{self, ShopMode},
    service::{asked_to_stop, start_logging},
    v1::{
        CreateOrderRequest, DebitRequest, DeductRequest, PlaceOrderRequest, PlaceOrderResponse,
        account_client::AccountClient,
        front_server::{Front, FrontServer},
        orders_client::OrdersClient,
        stock_client::StockClient,
    },
};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use observer::Observer;

/// The shop's front.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, env = "FRONT_LISTEN", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Address of the stock service.
    #[arg(long, env = "STOCK_URL", default_value = "http://127.0.0.1:8001")]
    stock: Endpoint,
    /// Address of the account service.
    #[arg(long, env = "ACCOUNT_URL", default_value = "http://127.0.0.1:8002")]
    account: Endpoint,
    /// Address of the order service.
    #[arg(long, env = "ORDER_URL", default_value = "http://127.0.0.1:8003")]
    orders: Endpoint,
    /// Address of the transaction coordinator.
    #[arg(
        long,
        env = "ACCEDE_COORDINATOR",
        default_value = "http://127.0.0.1:7700"
    )]
    coordinator: String,
    /// How orders are made all or nothing: at, xa, tcc, saga, 3pc or mixed, as the services do.
    #[arg(long, env = "SHOP_MODE", default_value = "at", value_parser = mode::parse)]
    mode: ShopMode,
    /// Lets an order name an observer that is told about each step and may hold
    /// it up. For demonstrations.
    #[arg(long)]
    allow_observers: bool,
}

#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error("{}", .0.message())]
    Service(#[from] Status),
    #[error(transparent)]
    Transaction(#[from] accede_tm_client::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl From<ShopError> for Status {
    fn from(error: ShopError) -> Self {
        match error {
            ShopError::Service(status) => Self::new(status.code(), status.message()),
            ShopError::Transaction(error) => error.into(),
            ShopError::Saga(error) => saga::status(error),
        }
    }
}

/// The services, through plain tonic clients that carry the transaction along.
struct Shop {
    transactions: TransactionClient,
    stock: StockClient<OutgoingXid<Channel>>,
    account: AccountClient<OutgoingXid<Channel>>,
    orders: OrdersClient<OutgoingXid<Channel>>,
    mode: ShopMode,
    allow_observers: bool,
}

impl Shop {
    fn new(options: Options) -> anyhow::Result<Self> {
        let channel = |endpoint: Endpoint| OutgoingXid::new(endpoint.connect_lazy());
        Ok(Self {
            transactions: TransactionClient::builder(options.coordinator)
                .name("front")
                .build()?,
            stock: StockClient::new(channel(options.stock)),
            account: AccountClient::new(channel(options.account)),
            orders: OrdersClient::new(channel(options.orders)),
            mode: options.mode,
            allow_observers: options.allow_observers,
        })
    }
}

/// `Ok` commits in all three services; any `Err` undoes whatever they did.
#[global_transaction(client = shop.transactions, name = "place-order", timeout = "20s")]
async fn place_order(
    shop: &Shop,
    order: PlaceOrderRequest,
    observer: &mut Observer,
) -> Result<PlaceOrderResponse, ShopError> {
    let mut price = 0_i64;
    for item in &order.items {
        let deduct = DeductRequest {
            product: item.product,
            count: item.count,
        };
        let taken = shop.stock.clone().deduct(deduct).await?.into_inner();
        price = taken
            .unit_price
            .checked_mul(item.count)
            .and_then(|cost| price.checked_add(cost))
            .ok_or_else(|| Status::out_of_range("the order is too expensive"))?;
        observer.reached("stock").await?;
    }
    let create = CreateOrderRequest {
        reference: order.reference,
        user: order.user,
        items: order.items,
        paid: price,
    };
    let created = shop.orders.clone().create(create).await?.into_inner();
    observer.reached("order").await?;
    let debit = DebitRequest {
        user: order.user,
        cents: price,
    };
    shop.account.clone().debit(debit).await?;
    observer.reached("account").await?;
    Ok(PlaceOrderResponse {
        order: created.order,
        xid: current_xid().map_or_else(String::new, |xid| xid.to_string()),
        paid: price,
    })
}

/// How long an order may stay undecided, if it says nothing else.
const PATIENCE: Duration = Duration::from_secs(20);

impl Shop {
    async fn place(&self, order: PlaceOrderRequest) -> Result<PlaceOrderResponse, ShopError> {
        let patience = match order.patience_ms {
            0 => PATIENCE,
            millis => Duration::from_millis(millis.into()),
        };
        let mut observer = Observer::new(&order)?;
        match self.mode {
            ShopMode::Saga => saga::place(self, order, patience).await,
            ShopMode::Mixed => mixed::place(self, order, patience, true, &mut observer).await,
            _ if patience != PATIENCE => {
                mixed::place(self, order, patience, false, &mut observer).await
            }
            _ => place_order(self, order, &mut observer).await,
        }
    }
}

#[tonic::async_trait]
impl Front for Shop {
    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let order = request.into_inner();
        if !order.observer.is_empty() && !self.allow_observers {
            return Err(Status::permission_denied(
                "this front does not take observers; start it with --allow-observers",
            ));
        }
        let reference = order.reference.clone();
        match self.place(order).await {
            Ok(placed) => {
                tracing::info!(xid = placed.xid, reference, "ordered");
                Ok(Response::new(placed))
            }
            Err(error) => {
                tracing::info!(%error, reference, "not ordered");
                Err(error.into())
            }
        }
    }
}

async fn report_health(reporter: HealthReporter, transactions: TransactionClient) {
    let mut status = transactions.status();
    loop {
        let connected = SessionStatus::is_connected(&status.borrow_and_update());
        let serving = if connected {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status("", serving).await;
        if status.changed().await.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    start_logging();
    let options = Options::parse();
    let listen = options.listen;
    let shop = Shop::new(options)?;
    let transactions = shop.transactions.clone();

    let (reporter, health) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, transactions.clone()));
    tracing::info!(%listen, "serving");
    Server::builder()
        .add_service(health)
        .add_service(FrontServer::new(shop))
        .serve_with_shutdown(listen, asked_to_stop())
        .await?;
    reporting.abort();
    transactions.shutdown().await;
    Ok(())
}
