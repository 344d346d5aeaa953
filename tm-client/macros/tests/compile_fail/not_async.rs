#![allow(unused_variables)]

use accede_tm_client::{Error, TransactionClient, global_transaction};

#[global_transaction(client = client)]
fn place_order(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

fn main() {}
