//! A branch whose local transaction is kept open: how it ends.

use std::time::{Duration, Instant};

use accede_proto::Xid;
use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use super::prepare::{after, write_fence};
use crate::{
    clock,
    error::sql_state,
    limits,
    store::{
        finish::BranchKey,
        outcome::Outcome,
        postgres::{
            AtPool,
            branch::{NOT_PREPARED, commit_error, rolled_back_for_sure},
            connection::Held,
        },
        watch::Watch,
        xa::{kept_open::Claim, name::of_branch},
    },
};

/// What is kept of such a branch. Dropped, its connection is closed and the coordinator told that
/// the transaction must roll back: its application was told that the branch is done.
#[derive(Debug)]
pub(in crate::store::postgres) struct Open {
    key: BranchKey,
    held: Held,
    outcome: Outcome,
    /// When the answer to its BEGIN was received, and its process in the database.
    begun: Instant,
    backend: Option<i64>,
    /// How long after its BEGIN it may be prepared.
    left: Duration,
}

/// How an open branch was to end, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::postgres) enum Vote {
    /// As it was to, durably.
    Yes,
    /// It is rolled back for certain.
    No(String),
    /// Nobody answered: the database must be asked.
    Unknown(String),
}

/// What an open branch is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::postgres) enum End {
    Prepare,
    CommitOnePhase,
}

impl Open {
    pub(super) fn new(
        key: BranchKey,
        held: Held,
        mut outcome: Outcome,
        (begun, backend): (Instant, Option<i64>),
        left: Duration,
    ) -> Self {
        // From now on it cannot be taken back without a word.
        outcome.sent = true;
        Self {
            key,
            held,
            outcome,
            begun,
            backend,
            left,
        }
    }

    /// Ends it for an order, whose answer tells the coordinator.
    pub(in crate::store::postgres) async fn end(mut self, pool: &AtPool, end: End) -> Vote {
        let vote = self.send(pool, end).await;
        self.outcome.told_by_order();
        vote
    }

    /// Prepares it without an order, as it would have been without being kept open.
    pub(super) async fn end_alone(mut self, pool: &AtPool) {
        match self.send(pool, End::Prepare).await {
            Vote::Yes => self.outcome.done(),
            Vote::No(why) | Vote::Unknown(why) => self.outcome.doomed(why),
        }
    }

    /// Rolls it back for an order; whether that is certain.
    pub(in crate::store::postgres) async fn roll_back(mut self) -> bool {
        let rolled_back = self.held.roll_back().await;
        self.outcome.told_by_order();
        rolled_back.is_ok()
    }

    async fn send(&mut self, pool: &AtPool, end: End) -> Vote {
        match self.message(pool, end).await {
            Ok(message) => self.send_message(pool, message).await,
            Err(why) => {
                // The connection is closed if this fails, which rolls back as well.
                let _ = self.held.roll_back().await;
                Vote::No(why)
            }
        }
    }

    async fn message(&mut self, pool: &AtPool, end: End) -> Result<String, String> {
        let known = pool.xa_known();
        let text = |error: crate::Error| error.to_string();
        let fence = known.fence(pool).await.map_err(text)?;
        let prefix = known.prefix(pool).await.map_err(text)?;
        let (left, last) = match end {
            End::Prepare => {
                let name = of_branch(prefix, self.key);
                (self.left, format!("PREPARE TRANSACTION '{name}'"))
            }
            // No deadline counts any more, but a message that hangs for very long must not come to
            // anything: what bars the branch does not stay for ever.
            End::CommitOnePhase => {
                let open = clock::now().saturating_duration_since(self.begun);
                (open + limits::XA_ONE_PHASE_WITHIN, "COMMIT".to_owned())
            }
        };
        let session = self.held.session().xa;
        let fence = write_fence(fence, self.key, pool.resource(), session, left);
        Ok(format!("{fence}; {last}"))
    }

    async fn send_message(&mut self, pool: &AtPool, message: String) -> Vote {
        // What a failed message leaves in the session is asked for the next time.
        let session = std::mem::take(self.held.session());
        let xid: Xid = self.key.xid;
        let sent = sqlx::raw_sql(AssertSqlSafe(message)).execute(self.held.get());
        let answer = Watch::new(pool, Some(xid), self.backend).over(sent).await;
        let Err(error) = answer else {
            self.held.clean();
            if pool.sessions_stay() {
                *self.held.session() = after(session);
            }
            return Vote::Yes;
        };
        if sql_state(&error).as_deref() == Some(NOT_PREPARED) {
            pool.doubt_sessions();
        }
        let certain = rolled_back_for_sure(&error);
        let why = commit_error(xid, error, certain).to_string();
        if !certain {
            self.held.close().await;
            return Vote::Unknown(why);
        }
        let _ = self.held.roll_back().await;
        Vote::No(why)
    }
}

/// Keeps a branch open, and sees to it that it does not stay so for too long.
pub(super) fn keep(pool: &AtPool, claim: Claim<Open>, open: Open) {
    claim.keep(open.key, open);
    if pool.kept_open().tend() {
        tokio::spawn(tend(pool.clone()));
    }
}

/// Prepares those that nobody came for, and those whose connection somebody waits for.
async fn tend(pool: AtPool) {
    loop {
        sleep(limits::XA_OPEN_LOOK).await;
        let patience = match pool.is_waited_for() {
            true => Duration::ZERO,
            false => limits::XA_KEPT_OPEN,
        };
        while let Some((open, claim)) = pool.kept_open().take_older(patience) {
            let pool = pool.clone();
            tokio::spawn(async move {
                open.end_alone(&pool).await;
                drop(claim);
            });
            if patience.is_zero() {
                // One connection for whoever waits; then it looks again.
                break;
            }
        }
        if pool.kept_open().rest() {
            return;
        }
    }
}

/// Keeps none open any more, and prepares those that are.
pub(crate) async fn end_all(pool: &AtPool) {
    pool.kept_open().allow(0);
    while let Some((open, claim)) = pool.kept_open().take_older(Duration::ZERO) {
        open.end_alone(pool).await;
        drop(claim);
    }
}
