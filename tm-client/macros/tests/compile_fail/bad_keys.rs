#![allow(unused_variables)]

use accede_tm_client::{Error, TransactionClient, global_transaction};

#[global_transaction(client = client, time_out = "30s")]
async fn unknown(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, name = "a", name = "b")]
async fn twice(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, name)]
async fn no_value(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, name = "")]
async fn empty_name(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, propagation = "nested")]
async fn propagation(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

#[global_transaction(client = client, rollback_on = a, commit_on = b)]
async fn both_rules(client: &TransactionClient) -> Result<(), Error> {
    Ok(())
}

fn main() {}
