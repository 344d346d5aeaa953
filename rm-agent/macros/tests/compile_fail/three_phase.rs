#![allow(unused_variables)]

use accede_rm_agent::{Error, FencedTransaction, three_phase};

struct Accounts;

impl Accounts {
    #[three_phase(resource = "a", abort = release)]
    async fn no_commit(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle)]
    async fn no_abort(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(do_commit = settle, abort = release)]
    async fn no_name(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release, confirm = settle)]
    async fn of_another_mode(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", pre_commit = "heard", do_commit = settle, abort = release)]
    async fn text(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    fn not_async(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    async fn no_transaction(&self, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    async fn borrowed(&self, tx: &mut FencedTransaction, args: &str) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    async fn nothing(&self, tx: &mut FencedTransaction, args: u32) {}

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    async fn generic<T>(&self, tx: &mut FencedTransaction, args: T) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    const WRONG: u32 = 1;
}

fn main() {}
