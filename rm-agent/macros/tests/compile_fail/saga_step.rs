#![allow(unused_variables)]

use accede_rm_agent::{
    FencedTransaction,
    saga::{HandlerError, StepInput},
    saga_step,
};

struct Flights;

impl Flights {
    #[saga_step(resource = "a")]
    async fn no_way_back(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(compensate = cancel)]
    async fn no_name(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = "cancel")]
    async fn text(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel, confirm = settle)]
    async fn of_another_mode(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    fn not_async(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    async fn no_input(&self, tx: &mut FencedTransaction, input: u32) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    async fn borrowed(
        &self,
        tx: &mut FencedTransaction,
        input: &StepInput<u32>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    async fn no_transaction(&self, input: StepInput<u32>) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    async fn nothing(&self, tx: &mut FencedTransaction, input: StepInput<u32>) {}

    #[saga_step(resource = "a", compensate = cancel)]
    async fn generic<T>(
        &self,
        tx: &mut FencedTransaction,
        input: StepInput<T>,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    #[saga_step(resource = "a", compensate = cancel)]
    const WRONG: u32 = 1;
}

fn main() {}
