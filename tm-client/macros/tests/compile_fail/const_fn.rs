#![allow(unused_variables)]

use accede_tm_client::{Error, global_transaction};

#[global_transaction(client = client)]
const fn place_order() -> Result<(), Error> {
    Ok(())
}

fn main() {}
