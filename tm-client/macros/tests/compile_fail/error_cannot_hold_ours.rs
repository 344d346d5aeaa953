#![allow(unused_variables)]

use accede_tm_client::{TransactionClient, global_transaction};

#[derive(Debug)]
struct ShopError;

#[global_transaction(client = client)]
async fn place_order(client: &TransactionClient) -> Result<(), ShopError> {
    Err(ShopError)
}

fn main() {}
