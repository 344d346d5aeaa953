//! A branch whose local transaction is kept open: how it ends.

use std::time::{Duration, Instant};

use super::{XaName, prepare::Last};
use crate::{
    clock, limits,
    store::{
        finish::BranchKey,
        mariadb::{
            AtPool,
            branch::{commit_error, in_time},
            connection::Held,
            session::Session,
        },
        xa::open::{End, Vote},
    },
};

/// The local transaction of such a branch.
#[derive(Debug)]
pub(in crate::store) struct Local {
    pub(super) held: Held,
    pub(super) name: XaName,
    /// What the database said when it began, and when its answer was received.
    pub(super) begun: (Session, Instant),
    /// When its registration was sent, and how long after that it may be prepared.
    pub(super) sent: Instant,
    pub(super) give_up: Duration,
}

impl Local {
    pub(in crate::store::mariadb) async fn end(
        &mut self,
        pool: &AtPool,
        key: BranchKey,
        end: End,
    ) -> Vote {
        let (sent, give_up) = match end {
            End::Prepare => (self.sent, self.give_up),
            // No deadline counts any more, but a message that hangs for very long must not come to
            // anything: what bars the branch does not stay for ever.
            End::CommitOnePhase => (clock::now(), limits::XA_ONE_PHASE_WITHIN),
        };
        let (session, begun) = &self.begun;
        let last = Last {
            key,
            name: &self.name,
            backend: session.backend,
            created: in_time(session, *begun, sent, give_up),
        };
        let Err((error, certain)) = last.send(pool, &mut self.held, end).await else {
            return Vote::Yes;
        };
        let why = commit_error(key.xid, error, certain).to_string();
        if !certain {
            self.held.close().await;
            return Vote::Unknown(why);
        }
        // The connection is closed if this fails, which rolls back as well.
        let _ = self.held.roll_back().await;
        Vote::No(why)
    }

    /// Whether it is certain.
    pub(in crate::store::mariadb) async fn roll_back(&mut self) -> bool {
        self.held.roll_back().await.is_ok()
    }
}
