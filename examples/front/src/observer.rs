//! Tells whoever asked for it how far an order is, and waits for the answer: so
//! a demonstration can stop the world between two steps.

use accede_tm_client::current_xid;
use shop_api::v1::{PlaceOrderRequest, Step, observer_client::ObserverClient};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// The observer of one order, if it has one.
pub(crate) struct Observer {
    client: Option<ObserverClient<Channel>>,
    reference: String,
    steps: u32,
}

impl Observer {
    /// The one that the order names.
    pub(crate) fn new(order: &PlaceOrderRequest) -> Result<Self, Status> {
        let client = if order.observer.is_empty() {
            None
        } else {
            let endpoint = Endpoint::from_shared(order.observer.clone())
                .map_err(|error| Status::invalid_argument(format!("the observer: {error}")))?;
            Some(ObserverClient::new(endpoint.connect_lazy()))
        };
        Ok(Self {
            client,
            reference: order.reference.clone(),
            steps: 0,
        })
    }

    /// The order goes on when this returns; an error of the observer fails it.
    pub(crate) async fn reached(&mut self, name: &str) -> Result<(), Status> {
        self.steps += 1;
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let step = Step {
            reference: self.reference.clone(),
            xid: current_xid().map_or_else(String::new, |xid| xid.to_string()),
            name: name.to_owned(),
            number: self.steps,
        };
        client.reached(step).await.map(drop)
    }
}
