#![allow(unused_variables)]

use accede_rm_agent::{
    Error, FencedTransaction,
    saga::{HandlerError, StepInput},
    saga_step, three_phase,
};

struct Accounts;

impl Accounts {
    #[three_phase(resource = "account.pay", do_commit = settle, abort = release)]
    async fn promise(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    async fn settle(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "account.take", compensate = give_back)]
    async fn take(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn main() {}
