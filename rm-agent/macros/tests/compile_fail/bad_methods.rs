#![allow(unused_variables)]

use accede_rm_agent::{Error, FencedTransaction, tcc};

struct Accounts;

impl Accounts {
    #[tcc(resource = "a", confirm = settle, cancel = release)]
    fn not_async(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", confirm = settle, cancel = release)]
    async fn no_transaction(&self, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", confirm = settle, cancel = release)]
    async fn shared(&self, tx: &FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", confirm = settle, cancel = release)]
    async fn borrowed(&self, tx: &mut FencedTransaction, args: &str) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", confirm = settle, cancel = release)]
    async fn nothing(&self, tx: &mut FencedTransaction, args: u32) {}

    #[tcc(resource = "a", confirm = settle, cancel = release)]
    async fn generic<T>(&self, tx: &mut FencedTransaction, args: T) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", confirm = settle, cancel = release)]
    const WRONG: u32 = 1;
}

fn main() {}
