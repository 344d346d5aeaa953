#![allow(unused_variables)]

use accede_tm_client::{Error, TransactionClient, global_transaction};

#[global_transaction(client = client, timeout = "30")]
async fn no_unit(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, timeout = "0s")]
async fn too_short(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, timeout = 30)]
async fn no_text(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

fn main() {}
