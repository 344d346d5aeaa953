//! A branch whose local transaction is kept open: how it ends.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::prepare::{after, write_fence};
use crate::{
    clock,
    error::sql_state,
    limits,
    store::{
        finish::BranchKey,
        postgres::{
            AtPool,
            branch::{NOT_PREPARED, commit_error, rolled_back_for_sure},
            connection::Held,
        },
        watch::Watch,
        xa::{
            name::of_branch,
            open::{End, Vote},
        },
    },
};

/// The local transaction of such a branch.
#[derive(Debug)]
pub(in crate::store) struct Local {
    held: Held,
    /// When the answer to its BEGIN was received, and its process in the database.
    begun: Instant,
    backend: Option<i64>,
    /// How long after its BEGIN it may be prepared.
    left: Duration,
}

impl Local {
    pub(super) fn new(
        held: Held,
        (begun, backend): (Instant, Option<i64>),
        left: Duration,
    ) -> Self {
        Self {
            held,
            begun,
            backend,
            left,
        }
    }

    pub(in crate::store::postgres) async fn end(
        &mut self,
        pool: &AtPool,
        key: BranchKey,
        end: End,
    ) -> Vote {
        match self.message(pool, key, end).await {
            Ok(message) => self.send_message(pool, key, message).await,
            Err(why) => {
                // The connection is closed if this fails, which rolls back as well.
                let _ = self.held.roll_back().await;
                Vote::No(why)
            }
        }
    }

    /// Whether it is certain.
    pub(in crate::store::postgres) async fn roll_back(&mut self) -> bool {
        self.held.roll_back().await.is_ok()
    }

    async fn message(&mut self, pool: &AtPool, key: BranchKey, end: End) -> Result<String, String> {
        let known = pool.xa_known();
        let text = |error: crate::Error| error.to_string();
        let fence = known.fence(pool).await.map_err(text)?;
        let prefix = known.prefix(pool).await.map_err(text)?;
        let (left, last) = match end {
            End::Prepare => {
                let name = of_branch(prefix, key);
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
        let fence = write_fence(fence, key, pool.resource(), session, left);
        Ok(format!("{fence}; {last}"))
    }

    async fn send_message(&mut self, pool: &AtPool, key: BranchKey, message: String) -> Vote {
        // What a failed message leaves in the session is asked for the next time.
        let session = std::mem::take(self.held.session());
        let sent = sqlx::raw_sql(AssertSqlSafe(message)).execute(self.held.get());
        let answer = Watch::new(pool, Some(key.xid), self.backend)
            .over(sent)
            .await;
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
        let why = commit_error(key.xid, error, certain).to_string();
        if !certain {
            self.held.close().await;
            return Vote::Unknown(why);
        }
        let _ = self.held.roll_back().await;
        Vote::No(why)
    }
}
