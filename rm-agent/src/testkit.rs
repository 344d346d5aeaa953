//! For `accede-testkit` alone: actions without an agent, finished when the kit says so. No promise
//! is made about what is in here.

use std::{fmt, sync::Arc};

use accede_core::alone::Knows;
use accede_proto::{Xid, v1::StepOrder};
use bytes::Bytes;

use crate::{
    AtPool, Error, Registrar,
    agent::{DoStep, Ended, Finish, Job, Pools},
    mariadb,
    saga::SagaAction,
    sqlite,
    store::finish::{BranchKey, PhaseTwoError, UndoPolicy},
    tcc::Tcc,
    three_phase,
};

/// The name of a place's database.
const NAME: &str = "testkit";

/// Where an action's fences are.
#[derive(Clone)]
pub enum Place {
    /// In PostgreSQL.
    Postgres(AtPool),
    /// In MariaDB.
    MariaDb(mariadb::AtPool),
    /// In SQLite.
    Sqlite(sqlite::AtPool),
    /// It has none.
    Nowhere,
}

impl Place {
    fn pools(&self) -> Pools {
        let mut pools = Pools::default();
        match self {
            Self::Postgres(pool) => drop(pools.postgres.insert(NAME.to_owned(), pool.clone())),
            Self::MariaDb(pool) => drop(pools.mariadb.insert(NAME.to_owned(), pool.clone())),
            Self::Sqlite(pool) => drop(pools.sqlite.insert(NAME.to_owned(), pool.clone())),
            Self::Nowhere => {}
        }
        pools
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::MariaDb(_) => "MariaDB",
            Self::Sqlite(_) => "SQLite",
            Self::Nowhere => "no database",
        })
    }
}

/// What to do with a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Confirm it.
    Commit,
    /// Tell it that its commit is decided: 3PC only.
    PreCommit,
    /// Cancel it.
    RollBack {
        /// Its try reported that it took effect.
        was_done: bool,
    },
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing is owed to it any more.
    Finished,
    /// It has heard that its commit is decided.
    PreCommitted,
}

/// Why a branch is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// May work later.
    Passing(String),
    /// Will never work by itself.
    Stuck(String),
}

/// An action that can be told to finish branches.
#[derive(Clone)]
pub struct Participant(Arc<dyn Finish>);

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Participant").finish()
    }
}

/// What a test calls.
pub enum Callable<A, E, O> {
    /// An action of TCC.
    Tcc(Tcc<A, E, O>),
    /// A participant of 3PC.
    ThreePhase(three_phase::Participant<A, E, O>),
}

impl<A, E, O> fmt::Debug for Callable<A, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcc(action) => action.fmt(f),
            Self::ThreePhase(participant) => participant.fmt(f),
        }
    }
}

impl<A: 'static, E: From<Error> + 'static, O: 'static> Callable<A, E, O> {
    /// Its name.
    #[must_use]
    pub fn resource(&self) -> &str {
        match self {
            Self::Tcc(action) => action.resource(),
            Self::ThreePhase(participant) => participant.resource(),
        }
    }

    /// Calls it in a transaction.
    ///
    /// # Errors
    /// As its own `call_in`.
    pub async fn call_in(&self, xid: Xid, arguments: A) -> Result<O, E> {
        match self {
            Self::Tcc(action) => action.call_in(xid, arguments).await,
            Self::ThreePhase(participant) => participant.call_in(xid, arguments).await,
        }
    }
}

/// Ties an action to its place and a coordinator. Once only.
///
/// # Errors
/// [`Error::Configuration`] if it is tied already, or its handlers work in another kind of place.
pub fn bind<A, E, O>(
    action: &Callable<A, E, O>,
    place: &Place,
    registrar: Arc<dyn Registrar>,
) -> Result<Participant, Error>
where
    A: 'static,
    E: From<Error> + 'static,
    O: 'static,
{
    let pools = place.pools();
    let database = (!matches!(place, Place::Nowhere)).then_some(NAME);
    let unbound = match action {
        Callable::Tcc(action) => action.unbound(),
        Callable::ThreePhase(participant) => participant.unbound(),
    };
    let bound = unbound.bind(&pools, database, registrar)?;
    Ok(Participant(bound))
}

impl Participant {
    /// Finishes a branch, as an order from the coordinator would.
    ///
    /// # Errors
    /// What the agent would tell the coordinator.
    pub async fn finish(
        &self,
        xid: Xid,
        branch: u32,
        end: End,
        payload: &[u8],
    ) -> Result<Done, Trouble> {
        let job = match end {
            End::Commit => Job::Commit,
            End::PreCommit => Job::PreCommit,
            End::RollBack { was_done } => Job::RollBack {
                was_done,
                policy: UndoPolicy::Check,
            },
        };
        let key = BranchKey { xid, branch };
        let finished = self.0.finish(key, job, payload).await;
        match finished.map_err(trouble)? {
            Ended::PreCommitted => Ok(Done::PreCommitted),
            // Only steps of sagas end otherwise, and no action here is one.
            Ended::Finished | Ended::Ran(_) | Ended::Refused(_) | Ended::Prepared => {
                Ok(Done::Finished)
            }
        }
    }

    /// Has a participant of 3PC do what it may when it hears nothing.
    ///
    /// # Errors
    /// What its agent would log.
    pub async fn hear_nothing(&self, xid: Xid, branch: u32, payload: &[u8]) -> Result<(), Trouble> {
        let key = BranchKey { xid, branch };
        let done = self.0.act_alone(key, Knows::Silence, payload).await;
        done.map(drop).map_err(trouble)
    }
}

/// A step of sagas that can be told to be done and compensated.
#[derive(Clone)]
pub struct Step(Arc<dyn DoStep>);

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Step").finish()
    }
}

/// How a step ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It is done and returned this.
    Ran(Bytes),
    /// It cannot be done, and did nothing.
    Refused(String),
}

/// Ties a step to its place. Once only.
///
/// # Errors
/// [`Error::Configuration`] if it is tied already, or its handlers work in another kind of place.
pub fn bind_step(action: &SagaAction, place: &Place) -> Result<Step, Error> {
    if matches!(place, Place::Nowhere) {
        let resource = action.resource();
        return Err(Error::Configuration(format!(
            "the step {resource:?} works in a database: make the kit with one; a service without \
             one takes part by a callback"
        )));
    }
    let bound = action.unbound().bind(&place.pools(), NAME)?;
    Ok(Step(bound))
}

impl Step {
    /// Does it, as an order from the coordinator would.
    ///
    /// # Errors
    /// What the agent would tell the coordinator.
    pub async fn run(
        &self,
        xid: Xid,
        branch: u32,
        input: &[u8],
        order: &StepOrder,
    ) -> Result<StepEnd, Trouble> {
        let ran = self.0.run(BranchKey { xid, branch }, input, order).await;
        match ran.map_err(trouble)? {
            Ended::Ran(result) => Ok(StepEnd::Ran(result)),
            Ended::Refused(reason) => Ok(StepEnd::Refused(reason)),
            // Of what is no step.
            other @ (Ended::Finished | Ended::PreCommitted | Ended::Prepared) => {
                Err(Trouble::Passing(format!("{other:?}")))
            }
        }
    }

    /// Takes back what it did, as an order from the coordinator would.
    ///
    /// # Errors
    /// What the agent would tell the coordinator.
    pub async fn compensate(
        &self,
        xid: Xid,
        branch: u32,
        was_done: bool,
        input: &[u8],
        order: &StepOrder,
    ) -> Result<(), Trouble> {
        let undo = (was_done, UndoPolicy::Check);
        let key = BranchKey { xid, branch };
        let compensated = self.0.compensate(key, undo, input, order).await;
        compensated.map_err(trouble)
    }
}

/// What comes of a future that is polled so many times and then left as it is, or dropped if it is
/// not lent; `None` if it had not ended.
pub async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    crate::polled::polled(times, future).await
}

fn trouble(error: PhaseTwoError) -> Trouble {
    match error {
        PhaseTwoError::Stuck { reason, .. } => Trouble::Stuck(reason),
        passing => Trouble::Passing(passing.to_string()),
    }
}
