//! What the application wants to run just before a transaction is asked to commit, and once it has
//! ended.

use std::{collections::HashMap, error, panic::AssertUnwindSafe, pin::Pin};

use accede_link::context::{self, NoTransaction};
use accede_proto::Xid;
use parking_lot::Mutex;

use crate::{
    CommitError, Committed, Error, GlobalTransaction, RollBackError, RolledBack, TransactionClient,
    limits::MAX_HOOKS,
};

/// Why a hook does not want the transaction to commit.
pub type HookError = Box<dyn error::Error + Send + Sync>;

/// How a transaction ended, as far as the process that began it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Decided: all its branches are or will be permanent.
    Committed(Committed),
    /// Decided: all its branches are or will be undone.
    RolledBack(RolledBack),
    /// Nothing of it is permanent: the coordinator never began it.
    NeverBegun {
        /// Which one.
        xid: Xid,
    },
    /// Not known here. [`TransactionClient::outcome`] tells, sooner or later.
    Unknown {
        /// Which one.
        xid: Xid,
        /// What happened instead of an answer.
        reason: String,
    },
}

impl Ended {
    pub(crate) fn of_commit(result: &Result<Committed, CommitError>) -> Self {
        match result {
            Ok(committed) => Self::Committed(*committed),
            Err(CommitError::RolledBack(back)) => Self::RolledBack(back.clone()),
            Err(CommitError::NeverBegun { xid, .. }) => Self::NeverBegun { xid: *xid },
            Err(error) => Self::Unknown {
                xid: error.xid(),
                reason: error.to_string(),
            },
        }
    }

    pub(crate) fn of_roll_back(xid: Xid, result: &Result<RolledBack, RollBackError>) -> Self {
        match result {
            Ok(back) => Self::RolledBack(back.clone()),
            Err(RollBackError::Committed(committed)) => Self::Committed(*committed),
            Err(error) => Self::Unknown {
                xid,
                reason: error.to_string(),
            },
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), HookError>> + Send>>;
type Before = Box<dyn FnOnce() -> Running + Send>;
type After = Box<dyn FnOnce(&Ended) + Send>;

#[derive(Default)]
struct OfTransaction {
    before: Vec<Before>,
    after: Vec<After>,
    /// How many there were, those that have run included.
    count: usize,
}

/// The hooks of the transactions that this process has begun and not ended.
#[derive(Default)]
pub(crate) struct Hooks(Mutex<HashMap<Xid, OfTransaction>>);

impl Hooks {
    pub(crate) fn open(&self, xid: Xid) {
        self.0.lock().insert(xid, OfTransaction::default());
    }

    fn add(&self, xid: Xid, add: impl FnOnce(&mut OfTransaction)) -> Result<(), Error> {
        let mut all = self.0.lock();
        let hooks = all.get_mut(&xid).ok_or(Error::BegunElsewhere { xid })?;
        if hooks.count >= MAX_HOOKS {
            return Err(Error::TooManyHooks {
                xid,
                limit: MAX_HOOKS,
            });
        }
        hooks.count += 1;
        add(hooks);
        Ok(())
    }

    /// Runs what shall run before the commit, in the order in which it was added; a hook may add
    /// further ones.
    pub(crate) async fn before_commit(
        &self,
        transaction: &GlobalTransaction,
    ) -> Result<(), HookError> {
        let xid = transaction.xid();
        loop {
            let next = {
                let mut all = self.0.lock();
                let Some(hooks) = all.get_mut(&xid) else {
                    return Ok(());
                };
                std::mem::take(&mut hooks.before)
            };
            if next.is_empty() {
                return Ok(());
            }
            for hook in next {
                transaction.scope(async move { hook().await }).await?;
            }
        }
    }

    /// Runs what shall run after the end. From now on nothing can be added.
    pub(crate) fn ended(&self, ended: impl FnOnce() -> Ended, xid: Xid) {
        let Some(hooks) = self.0.lock().remove(&xid) else {
            return;
        };
        if hooks.after.is_empty() {
            return;
        }
        let ended = ended();
        for hook in hooks.after {
            // What the caller is told about its transaction does not depend on a hook.
            if std::panic::catch_unwind(AssertUnwindSafe(|| hook(&ended))).is_err() {
                tracing::error!(%xid, "a hook after the transaction's end panicked");
            }
        }
    }
}

impl TransactionClient {
    /// Has `hook` run when the transaction that the running task works for is about to be asked to
    /// commit: inside of it, so that what the hook does in databases and services belongs to it.
    /// Hooks run one after the other, in the order in which they were given. If one fails, the
    /// transaction rolls back and its commit ends as [`CommitError::Prevented`]. They do not run
    /// when it rolls back.
    ///
    /// # Errors
    /// [`Error::Required`] outside of any transaction; [`Error::BegunElsewhere`] if another
    /// process, or another client, began it; [`Error::TooManyHooks`].
    pub fn before_commit<F, R>(&self, hook: F) -> Result<(), Error>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = Result<(), HookError>> + Send + 'static,
    {
        let hook: Before = Box::new(move || Box::pin(hook()));
        let add = |hooks: &mut OfTransaction| hooks.before.push(hook);
        self.inner
            .hooks
            .add(running("a hook before the commit")?, add)
    }

    /// Has `hook` run once the transaction that the running task works for has ended, however it
    /// did: exactly once, also if its guard is dropped, outside of it. It must not block. For what
    /// is no part of the transaction: caches, counters, wake-ups. It is lost when the process dies;
    /// what must happen belongs into a branch.
    ///
    /// # Errors
    /// As [`before_commit`](Self::before_commit).
    pub fn after_end(&self, hook: impl FnOnce(&Ended) + Send + 'static) -> Result<(), Error> {
        let add = |hooks: &mut OfTransaction| hooks.after.push(Box::new(hook));
        self.inner.hooks.add(running("a hook after the end")?, add)
    }
}

fn running(what: &str) -> Result<Xid, Error> {
    context::current_xid().ok_or_else(|| Error::Required {
        name: what.to_owned(),
        source: NoTransaction,
    })
}
