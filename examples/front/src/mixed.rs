//! An order whose transaction is begun and ended by hand: because it may take another time than the
//! attribute says, or because a step of a saga belongs to it, which packs its parcel.

use std::time::Duration;

use accede_tm_client::{Options, Saga, Step};
use shop_api::{
    steps::{PACK_PARCEL, PackParcel},
    v1::{PlaceOrderRequest, PlaceOrderResponse},
};

use crate::{Shop, ShopError, observer::Observer, place_order};

/// Places it, and has its parcel packed if there is one.
pub(crate) async fn place(
    shop: &Shop,
    order: PlaceOrderRequest,
    patience: Duration,
    has_parcel: bool,
    observer: &mut Observer,
) -> Result<PlaceOrderResponse, ShopError> {
    let parcel = has_parcel.then(|| parcel(&order)).transpose()?;
    let options = Options::new("place-order").timeout(patience);
    let transaction = shop.transactions.begin(options).await?;
    let work = async {
        // It joins the transaction that is there.
        let placed = place_order(shop, order, observer).await?;
        if let Some(parcel) = &parcel {
            parcel.run_in(&transaction).await?;
            observer.reached("parcel").await?;
        }
        Ok(placed)
    };
    let worked = transaction.scope(work).await;
    match worked {
        Ok(placed) => {
            let committed = transaction.commit().await;
            committed.map_err(accede_tm_client::Error::from)?;
            Ok(placed)
        }
        Err(error) => {
            let error: ShopError = error;
            let back = transaction.roll_back(error.to_string()).await;
            back.map_err(accede_tm_client::Error::from)?;
            Err(error)
        }
    }
}

/// The saga of one step that packs it.
fn parcel(order: &PlaceOrderRequest) -> Result<Saga, accede_tm_client::Error> {
    let pieces = order.items.iter().map(|item| item.count);
    let input = PackParcel {
        reference: order.reference.clone(),
        pieces: pieces.fold(0, i64::saturating_add),
    };
    let step = Step::new("parcel", PACK_PARCEL).input(&input)?;
    Saga::builder("parcel").step(step.retry_forward()).build()
}
