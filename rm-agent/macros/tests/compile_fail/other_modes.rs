#![allow(unused_variables)]

use accede_rm_agent::{Error, FencedTransaction, saga::StepInput, saga_step, three_phase};

struct Accounts;

impl Accounts {
    #[three_phase(resource = "a", abort = release)]
    async fn no_commit(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[three_phase(resource = "a", do_commit = settle, abort = release)]
    fn not_async(&self, tx: &mut FencedTransaction, args: u32) -> Result<(), Error> {
        Ok(())
    }

    #[saga_step(resource = "a")]
    async fn no_way_back(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), Error> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    async fn no_input(&self, tx: &mut FencedTransaction, input: u32) -> Result<(), Error> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    async fn generic<T>(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<T>,
    ) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
