//! What a handler of a step gets.

use accede_proto::{Xid, v1::StepOrder};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::HandlerError;
use crate::store::finish::BranchKey;

/// What a step is started with, and what is known of the steps before it.
#[derive(Debug)]
pub struct StepInput<T> {
    /// The step's own input.
    pub input: T,
    key: BranchKey,
    step: String,
    results: Vec<(String, Bytes)>,
    own: Option<Bytes>,
}

impl<T: DeserializeOwned> StepInput<T> {
    /// Reads it; an error says why it cannot be read.
    pub(super) fn read(
        key: BranchKey,
        input: &[u8],
        order: &StepOrder,
        own: Option<Bytes>,
    ) -> Result<Self, serde_json::Error> {
        // No bytes at all: a step that takes nothing.
        let input = match input {
            [] => b"null",
            input => input,
        };
        let results = order.results.iter();
        Ok(Self {
            input: serde_json::from_slice(input)?,
            key,
            step: order.name.clone(),
            results: results
                .map(|output| (output.step.clone(), output.result.clone()))
                .collect(),
            own: own.or_else(|| order.result.clone()),
        })
    }
}

impl<T> StepInput<T> {
    /// The global transaction.
    #[must_use]
    pub fn xid(&self) -> Xid {
        self.key.xid
    }

    /// The step's number among the transaction's branches, from 1. With the XID it names the step
    /// for good: a key for systems that know nothing of transactions.
    #[must_use]
    pub fn branch(&self) -> u32 {
        self.key.branch
    }

    /// The step's name in its plan.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// What an earlier step returned that this one waits for, directly or indirectly.
    ///
    /// # Errors
    /// [`HandlerError::Definite`] when there is no such step, or its result has another form.
    pub fn result<R: DeserializeOwned>(&self, step: &str) -> Result<R, HandlerError> {
        let known = self.results.iter().find(|(name, _)| name == step);
        let (_, bytes) = known.ok_or_else(|| {
            HandlerError::definite(format!(
                "step {:?} waits for no step {step:?}, so it knows no result of it; put it after \
                 that one in the plan",
                self.step
            ))
        })?;
        read(step, bytes)
    }

    /// To compensate: what the step itself returned. `None` when it returned nothing.
    ///
    /// # Errors
    /// [`HandlerError::Definite`] when the result has another form.
    pub fn own_result<R: DeserializeOwned>(&self) -> Result<Option<R>, HandlerError> {
        let own = self.own.as_ref();
        own.map(|bytes| read(&self.step, bytes)).transpose()
    }
}

fn read<R: DeserializeOwned>(step: &str, bytes: &[u8]) -> Result<R, HandlerError> {
    let bytes = match bytes {
        [] => b"null",
        bytes => bytes,
    };
    serde_json::from_slice(bytes).map_err(|error| {
        HandlerError::definite(format!(
            "the result of step {step:?} cannot be read: {error}"
        ))
    })
}
