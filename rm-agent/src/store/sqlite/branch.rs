//! What a branch knows beside its open local transaction.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use accede_proto::Xid;

use super::{FOREIGN_KEY, NOT_NULL, NOT_UNIQUE, catalog::Catalog, error_number, session::Session};
use crate::{clock, context::Kind, error::Error, limits};

/// What a branch keeps beside its open local transaction.
#[derive(Debug)]
pub(super) struct Branch {
    /// `None`: a local transaction outside of any, which only looks at row locks.
    pub(super) xid: Option<Xid>,
    pub(super) started: Instant,
    pub(super) patience: Duration,
    pub(super) begun: Option<Begun>,
}

/// What the database said, and when its answer was received.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) session: Session,
    pub(super) at: Instant,
    pub(super) catalog: Arc<Catalog>,
}

impl Branch {
    /// Nothing if the local transaction runs untouched.
    pub(super) fn new(kind: Kind, lock_wait: Duration) -> Option<Self> {
        if matches!(kind, Kind::Plain) {
            return None;
        }
        Some(Self {
            xid: kind.xid(),
            started: clock::now(),
            patience: kind.patience(lock_wait),
            begun: None,
        })
    }

    /// What is left of the branch's patience.
    pub(super) fn remaining(&self) -> Duration {
        self.patience
            .saturating_sub(clock::now().saturating_duration_since(self.started))
    }

    pub(super) fn wait_limit(&self) -> Duration {
        self.remaining().saturating_sub(limits::LOCK_WAIT_MARGIN)
    }
}

/// What a refused undo record means.
pub(super) fn undo_error(xid: Xid, error: sqlx::Error) -> Error {
    match error_number(&error) {
        Some(NOT_NULL) => Error::GaveUp { xid },
        Some(number) if NOT_UNIQUE.contains(&number) => Error::RolledBackMeanwhile { xid },
        _ => Error::Database {
            doing: "writing the undo record",
            source: error,
        },
    }
}

/// What a branch's failed COMMIT means, and whether it certainly did not commit.
pub(super) fn commit_error(xid: Xid, error: sqlx::Error) -> (Error, bool) {
    if error_number(&error) == Some(FOREIGN_KEY) {
        let error = Error::Database {
            doing: "committing the branch",
            source: error,
        };
        return (error, true);
    }
    let reason = error.to_string();
    (Error::CommitUnknown { xid, reason }, false)
}
