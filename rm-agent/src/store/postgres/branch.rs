//! What a branch knows beside its open local transaction.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use accede_proto::Xid;

use sqlx::postgres::PgQueryResult;

use super::{
    connection::{Held, Session},
    pool::AtPool,
};
pub(super) use crate::store::xa::Ending;
use crate::{
    at::undo::Changes,
    clock,
    context::Kind,
    error::{Error, sql_state},
    limits,
    registrar::Registered,
    store::outcome::Outcome,
};

/// The time of a row without which the local transaction cannot commit. It is NULL, which the table
/// refuses, once what is left has passed on the database's clock, counted from its BEGIN. A commit
/// that would be lost by a crash of the database must not be reported as done: it is made durable
/// whatever the session's setting.
macro_rules! in_time {
    ($left:literal) => {
        concat!(
            "CASE WHEN clock_timestamp() - transaction_timestamp() < ",
            $left,
            " AND (current_setting('synchronous_commit') <> 'off' \
             OR set_config('synchronous_commit', 'on', true) = 'on') \
             THEN clock_timestamp() END"
        )
    };
}

/// Writes an undo record. Prepared once in a session, for its analysis costs the database as much
/// as the change that it is for.
const PREPARE: &str = concat!(
    "PREPARE accede_undo(bigint, integer, bytea, interval) AS \
     INSERT INTO undo_log (xid, branch_id, rollback_info, log_status, log_created) \
     VALUES ($1, $2, $3, 0, ",
    in_time!("$4"),
    "); "
);

/// Asks whether the session has it.
pub(super) const IS_PREPARED: &str =
    "EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'accede_undo')";

/// The name of the statement that writes the fences of XA.
pub(super) const FENCE_STATEMENT: &str = "accede_xa_fence";

/// Prepares it, once in a session, for the same reason.
pub(super) fn prepare_fence(table: &str, status: i16) -> String {
    format!(
        concat!(
            "PREPARE {}(bigint, integer, text, interval) AS \
             INSERT INTO {} (xid, branch_id, status, resource, created) \
             VALUES ($1, $2, {}, $3, ",
            in_time!("$4"),
            "); "
        ),
        FENCE_STATEMENT, table, status
    )
}

/// The SQLSTATE of a session that does not.
pub(super) const NOT_PREPARED: &str = "26000";

/// What a branch keeps beside its open local transaction.
#[derive(Debug)]
pub(super) struct Branch {
    /// `None`: a local transaction outside of any, which only looks at row locks.
    pub(super) xid: Option<Xid>,
    pub(super) ending: Ending,
    pub(super) started: Instant,
    pub(super) patience: Duration,
    /// When the answer to BEGIN was received.
    pub(super) begun: Option<Instant>,
    /// The process in the database that runs it, as BEGIN's answer told.
    pub(super) backend: Option<i64>,
    /// A statement of XA may have taken the session's prepared statements away.
    pub(super) unsure: bool,
    pub(super) changes: Changes,
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
            backend: None,
            unsure: false,
            changes,
        })
    }

    /// The process in the database that runs it, once it has begun there.
    pub(super) fn backend(&self) -> Option<i64> {
        self.backend
    }

    /// What is left of the branch's patience.
    pub(super) fn remaining(&self) -> Duration {
        self.patience
            .saturating_sub(clock::now().saturating_duration_since(self.started))
    }

    pub(super) fn wait_limit(&self) -> Duration {
        self.remaining().saturating_sub(limits::LOCK_WAIT_MARGIN)
    }

    /// The undo record and COMMIT as one message; before it the record's statement, if the
    /// session does not have it yet.
    pub(super) fn commit_message(
        &self,
        xid: Xid,
        registered: Registered,
        sent: Instant,
        record: &[u8],
        session: Session,
    ) -> String {
        let begun = self.begun.expect("a branch with changes has begun");
        // The database began before its answer arrived: rather too early than too late.
        let left = sent.saturating_duration_since(begun) + registered.give_up;
        let prepare = if session.undo_prepared { "" } else { PREPARE };
        let mut message = String::with_capacity(prepare.len() + 2 * record.len() + 100);
        let _ = write!(
            message,
            "{prepare}EXECUTE accede_undo({}, {}, '\\x",
            xid.as_u64(),
            registered.branch,
        );
        for byte in record {
            for digit in [byte >> 4, byte & 15] {
                message.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        let _ = write!(message, "', '{} ms'); COMMIT", left.as_millis());
        message
    }
}

/// The time of a row whose transaction must commit so long after its BEGIN at the latest.
pub(super) fn in_time(left: Duration) -> String {
    format!(in_time!("'{} ms'"), left.as_millis())
}

/// How long after BEGIN a transaction may commit that must within `give_up` after `sent`; the answer
/// to its BEGIN was received at `begun`.
pub(super) fn left(begun: Instant, sent: Instant, give_up: Duration) -> Duration {
    // The database began before its answer arrived: rather too early than too late.
    let after = sent.saturating_duration_since(begun) + give_up;
    after.saturating_sub(begun.saturating_duration_since(sent))
}

/// Tells the coordinator how the message that ends phase one went, and frees the connection.
///
/// # Errors
/// Those of [`commit_error`].
pub(super) async fn settle(
    outcome: Outcome,
    held: &mut Held,
    answer: Result<PgQueryResult, sqlx::Error>,
) -> Result<(), Error> {
    let Err(error) = answer else {
        held.clean();
        outcome.done();
        return Ok(());
    };
    let certain = rolled_back_for_sure(&error);
    let error = commit_error(outcome.xid(), error, certain);
    if certain {
        outcome.withdrawn();
        // The connection is closed if this fails, which rolls back as well.
        let _ = held.roll_back().await;
    } else {
        outcome.doomed(error.to_string());
    }
    Err(error)
}

/// What a failed commit message of a branch means. `certain`: it did not commit.
pub(super) fn commit_error(xid: Xid, error: sqlx::Error, certain: bool) -> Error {
    if !certain {
        return Error::CommitUnknown {
            xid,
            reason: error.to_string(),
        };
    }
    let ours = error
        .as_database_error()
        .is_some_and(|database| matches!(database.table(), Some("undo_log" | "accede_fence")));
    match sql_state(&error).as_deref() {
        Some("23502") if ours => Error::GaveUp { xid },
        Some("23505") if ours => Error::RolledBackMeanwhile { xid },
        _ => Error::Database {
            doing: "committing the branch",
            source: error,
        },
    }
}

/// Whether this answer to the message that ends in COMMIT excludes a commit. An
/// ERROR does; what ends the connection does not.
pub(super) fn rolled_back_for_sure(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else {
        return false;
    };
    let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() else {
        return false;
    };
    matches!(postgres.severity(), sqlx::postgres::PgSeverity::Error)
        && !postgres.code().starts_with("57P")
}
