//! Many customers, one row.

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::join_all;
use shop_api::v1::{Item, PlaceOrderRequest};
use tonic::Code;

use super::{item, settled, settled_as};
use crate::{
    books::{LAST_TICKETS, RICH_USERS},
    shop::Shop,
};

/// How often a customer orders again who was told to.
const ATTEMPTS: u32 = 20;

/// What one customer experienced.
struct Customer {
    user: i64,
    got_it: bool,
    /// Orders that were rolled back for a passing reason and placed again.
    again: u32,
}

pub(super) async fn run(shop: &mut Shop) -> Result<String> {
    let before = settled(shop).await?;
    let stock = before.stock[&LAST_TICKETS.number];
    let items = [item(LAST_TICKETS, 1)];
    let customers = join_all((1..=RICH_USERS).map(|user| buy(shop, user, &items))).await;
    let customers: Vec<Customer> = customers.into_iter().collect::<Result<_>>()?;

    let mut expected = before;
    for customer in customers.iter().filter(|customer| customer.got_it) {
        expected = expected.with(&reference(customer.user), customer.user, &items);
    }
    // Every order that was confirmed is there, no other is.
    settled_as(shop, expected).await?;
    let sold = i64::try_from(customers.iter().filter(|customer| customer.got_it).count())?;
    ensure!(
        sold == stock,
        "{sold} of {stock} tickets were sold to {RICH_USERS} customers"
    );
    let again: u32 = customers.iter().map(|customer| customer.again).sum();
    Ok(format!(
        "{sold} sold, {} told \"sold out\", {again} placed again",
        RICH_USERS - sold
    ))
}

fn reference(user: i64) -> String {
    format!("hot-{user}")
}

async fn buy(shop: &Shop, user: i64, items: &[Item]) -> Result<Customer> {
    for again in 0..ATTEMPTS {
        let order = PlaceOrderRequest {
            reference: reference(user),
            user,
            items: items.to_vec(),
            observer: String::new(),
            patience_ms: 0,
        };
        let got_it = match shop.front.clone().place_order(order).await {
            Ok(_) => true,
            Err(status) => match status.code() {
                Code::FailedPrecondition if status.message().contains("sold out") => false,
                // Rolled back, nothing of it remains: as if it had not been tried.
                Code::Aborted => continue,
                _ => bail!("customer {user}: {status}"),
            },
        };
        return Ok(Customer {
            user,
            got_it,
            again,
        });
    }
    None.with_context(|| format!("customer {user} was sent away {ATTEMPTS} times"))
}
