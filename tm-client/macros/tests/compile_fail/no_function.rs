#![allow(unused_variables)]

use accede_tm_client::global_transaction;

#[global_transaction(client = client)]
struct Order;

trait Orders {
    #[global_transaction(client = self.client)]
    async fn place(&self) -> Result<(), accede_tm_client::Error>;
}

fn main() {}
