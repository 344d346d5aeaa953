//! Having a saga done, and what came of it.

use std::collections::BTreeMap;

use accede_link::session::SessionError;
use accede_proto::{
    Xid,
    v1::{self, Decision, StartSagaRequest, refusal::Code, transaction_event, transaction_request},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::Saga;
use crate::{
    Error, GlobalTransaction, PhaseTwo, Refusal, RolledBack, TransactionClient,
    ask::{Again, again},
    clock,
};

/// A saga whose steps are all done.
#[derive(Clone, Debug)]
pub struct SagaOutcome {
    /// Its transaction.
    pub xid: Xid,
    results: BTreeMap<String, Bytes>,
}

impl SagaOutcome {
    /// What a step returned.
    ///
    /// # Errors
    /// [`SagaError::Result`]: the saga has no such step, or its result has another form.
    pub fn result<T: DeserializeOwned>(&self, step: &str) -> Result<T, SagaError> {
        let wrong = |reason: String| SagaError::Result {
            step: step.to_owned(),
            reason,
        };
        let bytes = self.results.get(step);
        let bytes = bytes.ok_or_else(|| wrong("the saga has no such step".to_owned()))?;
        let bytes = match &bytes[..] {
            [] => b"null",
            bytes => bytes,
        };
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
    }

    /// The result of each step as it came, JSON or nothing, by the steps' names.
    pub fn results(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let results = self.results.iter();
        results.map(|(step, result)| (step.as_str(), &result[..]))
    }
}

/// A saga that did not come back as done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// It rolled back: what was done is or will be compensated, the last step first. With
    /// [`RollBackCause::StepFailed`](crate::RollBackCause::StepFailed) the detail names the step.
    #[error("{0}")]
    RolledBack(RolledBack),
    /// **Not known**: done, rolled back or still under way. The coordinator goes on with it
    /// whatever happens here; [`TransactionClient::outcome`] tells how it ended.
    #[error(
        "whether the saga of transaction {xid} is done is not known: {reason}; ask for its outcome"
    )]
    Unknown {
        /// Which one.
        xid: Xid,
        /// What happened instead of an answer.
        reason: String,
    },
    /// The coordinator refused the plan. Nothing of it was done.
    #[error("the saga of transaction {xid} was refused: {refusal}")]
    Refused {
        /// Which one.
        xid: Xid,
        /// Why.
        refusal: Refusal,
    },
    /// Its transaction could not be begun. Nothing was done.
    #[error(transparent)]
    NotBegun(#[from] Error),
    /// A result that was asked for is not there or has another form.
    #[error("the result of step {step:?} cannot be read: {reason}")]
    Result {
        /// The step.
        step: String,
        /// Why not.
        reason: String,
    },
}

/// The coordinator's word about a plan.
enum Told {
    Done(BTreeMap<String, Bytes>),
    RolledBack(RolledBack),
    Refused(Box<v1::Refusal>),
    Odd(String),
}

impl Saga {
    /// Has it done in a transaction of its own, and waits for the end. The coordinator commits
    /// when the last step is done. From the moment at which it has the plan it goes on by itself:
    /// dropping the future, or the end of this process, ends nothing.
    ///
    /// # Errors
    /// [`SagaError`]; [`SagaError::Unknown`] is not a failure.
    pub async fn run(&self, client: &TransactionClient) -> Result<SagaOutcome, SagaError> {
        let transaction = client.begin(self.options.clone()).await?;
        let patience = client.inner.patience.decision;
        let (xid, deadline) = (transaction.xid(), transaction.context().remaining());
        let patience = deadline.unwrap_or_default() + patience;
        // Not taken back from here on, as a commit is not.
        let transaction = transaction.left_to_the_coordinator();
        self.start(client, xid, true, patience, || transaction.refused())
            .await
    }

    /// Has its steps done as part of a transaction, beside whatever else belongs to it, and waits
    /// until they are. The transaction is then committed or rolled back as any other; rolled back,
    /// it compensates the steps. A transaction has one saga at most: another is refused with
    /// [`Code::OtherSaga`], also one with the same steps.
    ///
    /// # Errors
    /// [`SagaError`]. After [`SagaError::RolledBack`] the whole transaction is rolled back; after
    /// [`SagaError::Unknown`] roll it back, or ask for its commit, which waits for the steps.
    pub async fn run_in(&self, transaction: &GlobalTransaction) -> Result<SagaOutcome, SagaError> {
        let client = transaction.client();
        let patience = client.inner.patience.decision;
        let patience = transaction.context().remaining().unwrap_or_default() + patience;
        let refused = || transaction.refused();
        self.start(client, transaction.xid(), false, patience, refused)
            .await
    }

    async fn start(
        &self,
        client: &TransactionClient,
        xid: Xid,
        commit_when_done: bool,
        patience: std::time::Duration,
        refused: impl Fn() -> Option<Refusal>,
    ) -> Result<SagaOutcome, SagaError> {
        let request = StartSagaRequest {
            xid: xid.as_u64(),
            request: Some(client.inner.next_request()),
            steps: self.steps.clone(),
            commit_when_done,
        };
        let body = transaction_request::Body::StartSaga(request);
        let until = clock::now() + patience;
        let told = client
            .inner
            .repeat(body, until, |answer| read(xid, answer))
            .await;
        match told {
            Ok(Told::Done(results)) => Ok(SagaOutcome { xid, results }),
            Ok(Told::RolledBack(back)) => Err(SagaError::RolledBack(back)),
            Ok(Told::Refused(refusal)) => {
                let refusal = match refusal.code() {
                    Code::NotBegun => refused(),
                    _ => None,
                }
                .unwrap_or_else(|| Refusal::from_wire(*refusal));
                Err(SagaError::Refused { xid, refusal })
            }
            Ok(Told::Odd(reason)) | Err(reason) => Err(SagaError::Unknown { xid, reason }),
        }
    }
}

fn read(xid: Xid, answer: Result<transaction_event::Body, SessionError>) -> Result<Told, Again> {
    match answer {
        Ok(transaction_event::Body::Saga(saga)) => Ok(of_wire(xid, saga)),
        Ok(other) => Ok(Told::Odd(format!("the answer is about no saga: {other:?}"))),
        Err(SessionError::Refused(refusal)) => match again(&refusal) {
            Some(again) => Err(again),
            None => Ok(Told::Refused(Box::new(refusal))),
        },
        Err(error @ (SessionError::Closed | SessionError::TooLarge { .. })) => {
            Ok(Told::Odd(error.to_string()))
        }
        Err(error) => Err((error.to_string(), std::time::Duration::ZERO)),
    }
}

fn of_wire(xid: Xid, saga: v1::SagaOutcome) -> Told {
    if saga.xid != xid.as_u64() {
        let other = saga.xid;
        return Told::Odd(format!("the answer is about transaction {other:016x}"));
    }
    if saga.decision() == Decision::RollBack {
        return Told::RolledBack(RolledBack::of_reason(xid, saga.reason, PhaseTwo::Running));
    }
    let results = saga.results.into_iter();
    Told::Done(results.map(|output| (output.step, output.result)).collect())
}
