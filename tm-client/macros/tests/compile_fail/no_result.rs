#![allow(unused_variables)]

use accede_tm_client::{TransactionClient, global_transaction};

#[global_transaction(client = client)]
async fn nothing(client: &TransactionClient) {}

fn main() {}
