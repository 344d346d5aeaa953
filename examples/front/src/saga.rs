//! An order as a saga: the coordinator has each service do its step for good, one after the other,
//! and goes on when this front is gone. A step that cannot be done has the others taken back.

use std::time::Duration;

use accede_tm_client::{RollBackCause, Saga, SagaError, Step};
use shop_api::{
    steps::{
        Line, ORDER, Seen, TAKE_GOODS, TAKE_MONEY, TakeGoods, TakeMoney, WRITE_DOWN, WriteDown,
        WrittenDown,
    },
    v1::{PlaceOrderRequest, PlaceOrderResponse},
};
use tonic::Status;

use crate::{Shop, ShopError};

pub(crate) async fn place(
    shop: &Shop,
    order: PlaceOrderRequest,
    patience: Duration,
) -> Result<PlaceOrderResponse, ShopError> {
    let saga = plan(order, patience)?;
    let done = saga.run(&shop.transactions).await?;
    let written: WrittenDown = done.result(ORDER)?;
    Ok(PlaceOrderResponse {
        order: written.order,
        xid: done.xid.to_string(),
        paid: written.paid,
    })
}

fn plan(order: PlaceOrderRequest, patience: Duration) -> Result<Saga, accede_tm_client::Error> {
    let PlaceOrderRequest {
        reference,
        user,
        items,
        observer,
        ..
    } = order;
    let mut observed = Observed {
        // The coordinator calls it as it calls any service that does a step.
        url: observer.replacen("http://", "grpc://", 1),
        reference: reference.clone(),
        patience,
        steps: Vec::new(),
        number: 0,
    };
    let mut lines = Vec::new();
    for (number, item) in (1..).zip(items) {
        let line = Line {
            product: item.product,
            count: item.count,
            taken_by: format!("stock-{number}"),
        };
        let take = TakeGoods {
            product: item.product,
            count: item.count,
        };
        observed.add("stock", Step::new(&line.taken_by, TAKE_GOODS).input(&take)?)?;
        lines.push(line);
    }
    // It gets the prices from the steps that took the goods, the next one what they come to.
    let order = WriteDown {
        reference,
        user,
        lines,
    };
    observed.add("order", Step::new(ORDER, WRITE_DOWN).input(&order)?)?;
    let money = TakeMoney { user };
    observed.add("account", Step::new("account", TAKE_MONEY).input(&money)?)?;
    let saga = Saga::builder("place-order").timeout(patience);
    let saga = observed
        .steps
        .into_iter()
        .fold(saga, |saga, step| saga.step(step));
    saga.build()
}

/// The plan's steps, each with one behind it that tells the observer, if there is one.
struct Observed {
    url: String,
    reference: String,
    patience: Duration,
    steps: Vec<Step>,
    number: u32,
}

impl Observed {
    fn add(&mut self, name: &str, step: Step) -> Result<(), accede_tm_client::Error> {
        // Only what says that it cannot be done ends the order; anything else may pass.
        self.steps.push(step.retry_forward());
        self.number += 1;
        if self.url.is_empty() {
            return Ok(());
        }
        let seen = Seen {
            reference: self.reference.clone(),
            name: name.to_owned(),
            number: self.number,
        };
        let step = Step::callback(format!("seen-{}", self.number), &self.url);
        let step = step.input(&seen)?.attempt_timeout(self.patience);
        self.steps.push(step.retry_forward());
        Ok(())
    }
}

/// What a customer hears.
pub(crate) fn status(error: SagaError) -> Status {
    match error {
        SagaError::RolledBack(back) if back.cause == RollBackCause::StepFailed => {
            // "order: the order … exists already"
            let (step, why) = back.detail.split_once(": ").unwrap_or(("", &back.detail));
            if step == ORDER {
                Status::already_exists(why)
            } else {
                Status::failed_precondition(why)
            }
        }
        SagaError::RolledBack(back) => Status::aborted(back.to_string()),
        SagaError::NotBegun(error) => error.into(),
        error @ SagaError::Unknown { .. } => Status::unknown(error.to_string()),
        error => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use accede_tm_client::{PhaseTwo, RolledBack};
    use tonic::Code;

    use super::*;

    #[test]
    fn customers_hear_what_the_services_would_have_told() {
        let back = |cause, detail: &str| {
            SagaError::RolledBack(RolledBack {
                xid: accede_tm_client::Xid::from_u64(7).expect("an id"),
                cause,
                detail: detail.to_owned(),
                phase_two: PhaseTwo::Running,
            })
        };
        for (error, code, text) in [
            (
                back(
                    RollBackCause::StepFailed,
                    "order: the order \"a\" exists already",
                ),
                Code::AlreadyExists,
                "the order \"a\" exists already",
            ),
            (
                back(RollBackCause::StepFailed, "stock-2: product 3 is sold out"),
                Code::FailedPrecondition,
                "product 3 is sold out",
            ),
            (back(RollBackCause::TimedOut, ""), Code::Aborted, "time-out"),
        ] {
            let status = status(error);
            assert_eq!(status.code(), code);
            assert!(status.message().contains(text), "{status}");
        }
    }
}
