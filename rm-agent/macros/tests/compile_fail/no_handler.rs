#![allow(unused_variables)]

use accede_rm_agent::{Error, FencedTransaction, tcc};

struct Accounts;

impl Accounts {
    #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
    async fn freeze(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    async fn settle(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

fn main() {}
