//! What a branch knows beside its open local transaction.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use accede_proto::Xid;

use futures_util::TryStreamExt as _;
use sqlx::{Executor as _, MySqlConnection};

use super::{
    connection::Held,
    error_number,
    pool::AtPool,
    session::{self, Session},
};
use crate::{
    at::{mysql::quote_qualified, undo::Changes},
    clock,
    context::Kind,
    error::Error,
    limits,
    registrar::Registered,
    store::{outcome::Outcome, xa::Ending},
};

/// What a branch keeps beside its open local transaction.
#[derive(Debug)]
pub(super) struct Branch {
    /// `None`: a local transaction outside of any, which only looks at row locks.
    pub(super) xid: Option<Xid>,
    pub(super) ending: Ending,
    pub(super) started: Instant,
    pub(super) patience: Duration,
    /// What the database said, and when its answer was received.
    pub(super) begun: Option<(Session, Instant)>,
    pub(super) changes: Changes,
    /// A statement may have locked rows without changing them.
    pub(super) locks_rows: bool,
    /// An image may have been put aside that no row took.
    pub(super) captures: bool,
}

impl Branch {
    /// Nothing if the local transaction runs untouched.
    pub(super) fn new(kind: Kind, pool: &AtPool, ending: Ending) -> Option<Self> {
        let changes = match (kind, ending) {
            (Kind::Plain, _) => return None,
            (Kind::Checked(_), _) | (_, Ending::Prepared) => Changes::locks_only(),
            (Kind::Branch(_), Ending::Recorded) => Changes::default().narrow(!pool.full_images()),
        };
        Some(Self {
            xid: kind.xid(),
            ending,
            started: clock::now(),
            patience: kind.patience(pool.lock_wait()),
            begun: None,
            changes,
            locks_rows: false,
            captures: false,
        })
    }

    /// The session's number in the database, once it has begun there.
    pub(super) fn backend(&self) -> Option<i64> {
        self.begun.as_ref().and_then(|(session, _)| session.backend)
    }

    /// The step between generated keys.
    pub(super) fn increment(&self) -> u64 {
        self.begun
            .as_ref()
            .map_or(1, |(session, _)| session.increment)
    }

    /// What is left of the branch's patience.
    pub(super) fn remaining(&self) -> Duration {
        self.patience
            .saturating_sub(clock::now().saturating_duration_since(self.started))
    }

    pub(super) fn wait_limit(&self) -> Duration {
        self.remaining().saturating_sub(limits::LOCK_WAIT_MARGIN)
    }

    /// The undo record and COMMIT as one message.
    pub(super) fn commit_message(
        &self,
        xid: Xid,
        database: &str,
        registered: Registered,
        sent: Instant,
        record: &[u8],
    ) -> String {
        let (session, begun) = self
            .begun
            .as_ref()
            .expect("a branch with changes has begun");
        let in_time = in_time(session, *begun, sent, registered.give_up);
        let mut message = String::with_capacity(2 * record.len() + 400);
        let _ = write!(
            message,
            "INSERT INTO {} (xid, branch_id, rollback_info, log_status, log_created) \
             VALUES ({}, {}, X'",
            quote_qualified(database, "undo_log"),
            xid.as_u64(),
            registered.branch,
        );
        for byte in record {
            for digit in [byte >> 4, byte & 15] {
                message.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        let _ = write!(message, "', 0, {in_time})");
        session::commit(&message)
    }
}

/// The time of a row whose transaction must commit within `give_up` after `sent`. It is NULL, which
/// the table refuses, once that has passed on the database's clock, counted from when the branch
/// began there, which was told at `begun`.
pub(super) fn in_time(
    session: &Session,
    begun: Instant,
    sent: Instant,
    give_up: Duration,
) -> String {
    // The database began before its answer arrived: rather too early than too late.
    let after = sent.saturating_duration_since(begun) + give_up;
    let left = after.saturating_sub(begun.saturating_duration_since(sent));
    format!(
        "CASE WHEN SYSDATE(6) >= '{began}' \
         AND SYSDATE(6) < '{began}' + INTERVAL {} MICROSECOND THEN SYSDATE(6) END",
        left.as_micros(),
        began = session.began,
    )
}

/// What a failed commit message means. `certain`: the local transaction did not
/// commit.
pub(super) fn commit_error(xid: Xid, error: sqlx::Error, certain: bool) -> Error {
    if !certain {
        return Error::CommitUnknown {
            xid,
            reason: error.to_string(),
        };
    }
    match error_number(&error) {
        Some(1048) => Error::GaveUp { xid },
        Some(1062) => Error::RolledBackMeanwhile { xid },
        // The savepoint of its beginning is gone.
        Some(1305) => Error::Broken {
            reason: "the database rolled it back before its end".to_owned(),
        },
        _ => Error::Database {
            doing: "committing the branch",
            source: error,
        },
    }
}

/// Tells the coordinator what became of a branch whose last message failed, and frees the
/// connection.
pub(super) async fn settle(
    outcome: Outcome,
    held: &mut Held,
    (error, certain): (sqlx::Error, bool),
) -> Error {
    let error = commit_error(outcome.xid(), error, certain);
    if certain {
        outcome.withdrawn();
        // The connection is closed if this fails, which rolls back as well.
        let _ = held.roll_back().await;
    } else {
        outcome.doomed(error.to_string());
    }
    error
}

/// Sends the message that commits or prepares, after `before` other statements. On an error:
/// whether the local transaction certainly did not commit. It did not if one of those was refused,
/// for then the database reads no further.
pub(super) async fn send_commit(
    connection: &mut MySqlConnection,
    message: String,
    before: usize,
) -> Result<(), (sqlx::Error, bool)> {
    let mut steps = connection.fetch_many(sqlx::raw_sql(sqlx::AssertSqlSafe(message)));
    let mut ended = 0;
    loop {
        match steps.try_next().await {
            Ok(Some(_)) => ended += 1,
            Ok(None) => return Ok(()),
            // The statement that counts has ended well.
            Err(_) if ended > before => return Ok(()),
            Err(error) => {
                let said = error_number(&error).is_some();
                return Err((error, ended < before && said));
            }
        }
    }
}
