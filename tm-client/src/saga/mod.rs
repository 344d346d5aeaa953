//! Sagas: steps that the coordinator has done one after the other or side by side, and undone by
//! their compensations, the last one first, if one of them cannot be done.

mod plan;
mod run;

pub use self::{
    plan::{Saga, SagaBuilder, Step},
    run::{SagaError, SagaOutcome},
};
