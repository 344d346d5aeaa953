#![allow(unused_variables)]

use accede_rm_agent::{Error, FencedTransaction, tcc};

struct Accounts;

impl Accounts {
    #[tcc(resource = "account.freeze", confirm = settle)]
    async fn one(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "account.freeze", confirm = settle, cancel = release, tries = 3)]
    async fn two(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = freeze, confirm = settle, cancel = release)]
    async fn three(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "", confirm = settle, cancel = release)]
    async fn four(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", resource = "b", confirm = settle, cancel = release)]
    async fn five(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[tcc(resource = "a", confirm = "settle", cancel = release)]
    async fn six(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
