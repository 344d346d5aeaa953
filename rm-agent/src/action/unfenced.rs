//! Handlers without a database of this library's: nothing but the coordinator keeps them in order.

use std::{sync::Arc, time::Duration};

use accede_core::alone::{Knows, May};
use accede_proto::Xid;

use super::{Action, Call, Engine, arguments, fenced::patience, handled, sealed};
use crate::{
    agent::{Ended, Job, Pools},
    error::Error,
    store::{
        fence::Promise,
        finish::{BranchKey, PhaseTwoError, UndoPolicy},
        outcome::Outcome,
    },
};

/// What handlers get that work in no database of this library's: the names by which they must
/// keep themselves in order.
///
/// The promise is weaker than with a fence. `confirm` and `cancel` are repeated until one attempt
/// is known to have succeeded, so both must be idempotent. `cancel` also comes for a try that
/// failed, that never began, or that is still running: it must do nothing in the first two cases,
/// and make the try fail in the third. The transaction's id and the branch's number, together, are
/// the same for all three.
#[derive(Debug)]
pub struct Unfenced {
    key: BranchKey,
}

impl Unfenced {
    /// The global transaction.
    #[must_use]
    pub fn xid(&self) -> Xid {
        self.key.xid
    }

    /// The branch's number in it, from 1.
    #[must_use]
    pub fn branch(&self) -> u32 {
        self.key.branch
    }
}

pub(crate) struct Bare;

impl sealed::Place for Unfenced {
    type Engine = Bare;

    fn engine(_: &Pools, _: Option<&str>) -> Result<Bare, Error> {
        Ok(Bare)
    }
}

impl Engine<Unfenced> for Bare {
    async fn begin<A: Action<Transaction = Unfenced>>(
        &self,
        call: Call<'_, A>,
        arguments: A::Arguments,
    ) -> Result<A::Output, A::Error> {
        let registration = call.registration(patience(&call.context));
        let xid = registration.xid;
        let registered = call.registrar.register(registration).await;
        let registered = registered.map_err(Error::from)?;
        let mut outcome = Outcome::new(Arc::clone(call.registrar), xid, registered.branch);
        let key = BranchKey {
            xid,
            branch: registered.branch,
        };
        // Whatever happens from here on, it may have had an effect.
        outcome.sent = true;
        match call.action.begin(&mut Unfenced { key }, arguments).await {
            Ok(output) => {
                outcome.done();
                Ok(output)
            }
            Err(error) => {
                outcome.doomed(format!(
                    "the try of {:?} failed, and nothing says that it had no effect",
                    call.action.resource()
                ));
                Err(error)
            }
        }
    }

    async fn finish<A: Action<Transaction = Unfenced>>(
        &self,
        action: &A,
        key: BranchKey,
        job: Job,
        payload: &[u8],
    ) -> Result<Ended, PhaseTwoError> {
        let mut unfenced = Unfenced { key };
        match job {
            Job::RollBack {
                policy: UndoPolicy::AcceptCurrent,
                ..
            } => {}
            Job::Commit => {
                let arguments = arguments::decode(action, payload)?;
                handled(action.commit(&mut unfenced, arguments), failed).await?;
            }
            Job::RollBack { .. } => {
                let arguments = arguments::decode(action, payload)?;
                handled(action.undo(&mut unfenced, arguments), failed).await?;
            }
            Job::PreCommit => return Err(needs_database()),
            Job::Run | Job::Prepare | Job::CommitOnePhase => {
                return Err(super::no_step(action.resource()));
            }
        }
        Ok(Ended::Finished)
    }

    async fn promises(
        &self,
        _: &str,
        _: Duration,
        _: usize,
    ) -> Result<Vec<Promise>, PhaseTwoError> {
        Ok(Vec::new())
    }

    async fn act_alone<A: Action<Transaction = Unfenced>>(
        &self,
        _: &A,
        _: BranchKey,
        _: Knows,
        _: &[u8],
    ) -> Result<May, PhaseTwoError> {
        Err(needs_database())
    }
}

fn needs_database() -> PhaseTwoError {
    PhaseTwoError::stuck("a participant of 3PC keeps its promise in a database of this agent's")
}

fn failed(error: &sqlx::Error) -> PhaseTwoError {
    PhaseTwoError::Failed {
        reason: error.to_string(),
    }
}

#[cfg(test)]
#[path = "unfenced_tests.rs"]
mod tests;
