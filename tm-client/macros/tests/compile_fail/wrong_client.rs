#![allow(unused_variables)]

use accede_tm_client::{Error, global_transaction};

struct Shop {
    transactions: String,
}

#[global_transaction(client = shop.transactions)]
async fn place_order(shop: &Shop) -> Result<(), Error> {
    Ok(())
}

fn main() {}
