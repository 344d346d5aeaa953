//! For `accede-testkit` alone: actions without an agent, finished when the kit says so. No promise
//! is made about what is in here.

use std::{fmt, sync::Arc};

use accede_core::alone::Knows;
use accede_proto::Xid;

use crate::{
    AtPool, Error, Registrar,
    agent::{Ended, Finish, Job, Pools},
    mariadb, sqlite,
    store::finish::{BranchKey, PhaseTwoError, UndoPolicy},
    tcc::Tcc,
    three_phase,
};

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
    const NAME: &str = "testkit";
    let mut pools = Pools::default();
    match place {
        Place::Postgres(pool) => drop(pools.postgres.insert(NAME.to_owned(), pool.clone())),
        Place::MariaDb(pool) => drop(pools.mariadb.insert(NAME.to_owned(), pool.clone())),
        Place::Sqlite(pool) => drop(pools.sqlite.insert(NAME.to_owned(), pool.clone())),
        Place::Nowhere => {}
    }
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
            Ended::Finished | Ended::Ran(_) | Ended::Refused(_) => Ok(Done::Finished),
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

fn trouble(error: PhaseTwoError) -> Trouble {
    match error {
        PhaseTwoError::Stuck { reason, .. } => Trouble::Stuck(reason),
        passing => Trouble::Passing(passing.to_string()),
    }
}
