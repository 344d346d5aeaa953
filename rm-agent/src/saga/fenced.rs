//! A step in a database, behind a fence.

use std::time::Duration;

use accede_link::context::{TransactionContext, scope};
use accede_proto::v1::StepOrder;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Bound, HandlerError, SagaStep, StepInput};
use crate::{
    action::{handled, unpanicked},
    agent::{DoStep, Ended},
    error::Error,
    limits,
    store::{
        fence::{Fences, Kept, Status},
        finish::{BranchKey, PhaseTwoError, UndoPolicy},
        watch::Watch,
    },
};

type FencesOf<S> = <<S as SagaStep>::Transaction as Kept>::Fences;

impl<S: SagaStep> DoStep for Bound<S> {
    fn run<'a>(
        &'a self,
        branch: BranchKey,
        input: &'a [u8],
        step: &'a StepOrder,
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(async move {
            let fences = self.fences()?;
            let patience = Duration::from_millis(step.attempt_timeout_ms.into());
            // Whoever waits for this transaction at the coordinator may hold what it waits for.
            let watch = Watch::new(fences, Some(branch.xid), None);
            let begun = watch.over(fences.begin_step(patience.min(limits::LOCK_WAIT)));
            let begun = begun.await;
            let mut tx = begun.map_err(of_library::<FencesOf<S>>)?;
            let ran = self.run_in(fences, &mut tx, branch, input, step).await;
            // What is done is committed; whatever else it was, nothing of it shall stay.
            if !matches!(ran, Ok(Ended::Ran(_))) {
                <FencesOf<S> as Fences>::roll_back(&mut tx).await;
            }
            ran
        })
    }

    fn compensate<'a>(
        &'a self,
        branch: BranchKey,
        undo: (bool, UndoPolicy),
        input: &'a [u8],
        step: &'a StepOrder,
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(async move {
            let fences = self.fences()?;
            let (mut tx, status) = fences.open(branch, self.step.resource()).await?;
            let place = (branch, status);
            let ended = self
                .compensate_in(fences, &mut tx, place, undo, (input, step))
                .await;
            if ended.is_err() {
                <FencesOf<S> as Fences>::roll_back(&mut tx).await;
            }
            ended
        })
    }
}

impl<S: SagaStep> Bound<S> {
    fn fences(&self) -> Result<&FencesOf<S>, PhaseTwoError> {
        self.fences.get().ok_or_else(|| PhaseTwoError::Failed {
            reason: format!("the action {:?} is not served yet", self.step.resource()),
        })
    }

    async fn run_in(
        &self,
        fences: &FencesOf<S>,
        tx: &mut S::Transaction,
        branch: BranchKey,
        input: &[u8],
        step: &StepOrder,
    ) -> Result<Ended, PhaseTwoError> {
        let refused = |why: String| Ok(Ended::Refused(why));
        match fences.claim(tx, branch, self.step.resource()).await? {
            Status::Running => {}
            Status::Confirmed => {
                let result = fences.payload(tx, branch).await?.unwrap_or_default();
                fences.close(tx, branch, None, None).await?;
                return Ok(Ended::Ran(result.into()));
            }
            Status::Cancelled | Status::Barred => {
                return refused("it was compensated before, so it is not done any more".to_owned());
            }
            Status::Tried | Status::PreCommitted => {
                return refused("the branch is none of a saga".to_owned());
            }
        }
        let input = match StepInput::read(branch, input, step, None) {
            Ok(input) => input,
            Err(error) => {
                let resource = self.step.resource();
                return refused(format!("the input of {resource:?} cannot be read: {error}"));
            }
        };
        let backend = <FencesOf<S> as Fences>::backend(tx);
        let watch = Watch::new(fences, Some(branch.xid), backend);
        let work = within(branch, self.step.run(tx, input));
        let output = match watch.over(unpanicked(work)).await {
            Ok(output) => output,
            Err(HandlerError::Definite(reason)) => return refused(reason),
            Err(other) => return Err(other.into_problem(<FencesOf<S> as Fences>::failure)),
        };
        let result = match serde_json::to_vec(&output) {
            Ok(result) if result.len() <= limits::MAX_STEP_RESULT_BYTES => result,
            Ok(result) => {
                let (found, limit) = (result.len(), limits::MAX_STEP_RESULT_BYTES);
                return refused(format!("it returned {found} bytes, of {limit} allowed"));
            }
            Err(error) => return refused(format!("what it returned is no JSON: {error}")),
        };
        let done = Some(Status::Confirmed);
        fences.close(tx, branch, done, Some(&result)).await?;
        Ok(Ended::Ran(result.into()))
    }

    async fn compensate_in(
        &self,
        fences: &FencesOf<S>,
        tx: &mut S::Transaction,
        (branch, status): (BranchKey, Status),
        (was_done, policy): (bool, UndoPolicy),
        (input, step): (&[u8], &StepOrder),
    ) -> Result<(), PhaseTwoError> {
        let accept = policy == UndoPolicy::AcceptCurrent;
        match status {
            Status::Confirmed => {
                if !accept {
                    let own = fences.payload(tx, branch).await?.map(Bytes::from);
                    let input = StepInput::read(branch, input, step, own).map_err(|error| {
                        PhaseTwoError::stuck(format!(
                            "the input of {:?} cannot be read: {error}; run a service that can, \
                             then repair with retry",
                            self.step.resource()
                        ))
                    })?;
                    let failure = <FencesOf<S> as Fences>::failure;
                    let work = within(branch, self.step.compensate(tx, input));
                    handled(work, failure).await?;
                }
                fences
                    .close(tx, branch, Some(Status::Cancelled), None)
                    .await
            }
            // Just written, or by an earlier attempt: nothing was done, and nothing will be.
            Status::Barred if !was_done || accept => fences.close(tx, branch, None, None).await,
            Status::Cancelled => fences.close(tx, branch, None, None).await,
            Status::Barred | Status::Tried | Status::PreCommitted | Status::Running => {
                Err(contradiction(branch, status))
            }
        }
    }
}

/// A handler knows for which transaction it works, and cannot join it.
fn within<F: Future>(branch: BranchKey, handler: F) -> impl Future<Output = F::Output> {
    scope(Some(TransactionContext::of_step(branch.xid)), handler)
}

/// What cannot be if everybody kept to the protocol.
fn contradiction(BranchKey { xid, branch }: BranchKey, status: Status) -> PhaseTwoError {
    let found = match status {
        Status::Barred => {
            "there is no trace of it: the database went back in time, or its row of accede_fence \
             was deleted"
                .to_owned()
        }
        status => format!("its row of accede_fence says {:?}", status.as_str()),
    };
    PhaseTwoError::stuck(format!(
        "transaction {xid} rolls back and branch {branch} was done, but {found}; bring what it \
         changed in order by hand, then repair with skip"
    ))
}

/// What this library said before the handler was called. Nothing has taken effect.
fn of_library<F: Fences>(error: Error) -> PhaseTwoError {
    match error {
        Error::Database { source, .. } => F::failure(&source),
        other => PhaseTwoError::Failed {
            reason: other.to_string(),
        },
    }
}
