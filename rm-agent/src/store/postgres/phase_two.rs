//! Finishing branches: dropping undo records after a commit, undoing rows after
//! a rollback, and looking after what was left behind.
//!
//! Everything here may run twice, in two processes at once: the undo row's own
//! lock lets one of them work and shows the other what was done.

mod apply;
mod report;
mod rows;
mod sweep;
mod together;
mod xa;

use sqlx::{PgPool, Row as _, error::ErrorKind};

pub(crate) use sweep::{claim_cluster, leftovers, purge_markers, read_meta};
pub(crate) use together::roll_back_together;
#[cfg(test)]
pub(super) use together::{MARK, RECORDS};
pub(crate) use xa::{commit_open, commit_prepared, prepare_open, prepared, roll_back_prepared};

use self::apply::Failure;
use super::connection::Held;
pub(crate) use crate::store::finish::{BranchKey, PhaseTwoError, UndoPolicy};
use crate::{
    at::codec::UndoRecord,
    error::sql_state,
    limits,
    store::finish::{DEFENCE, UNDOABLE, UNDONE},
};

impl From<sqlx::Error> for PhaseTwoError {
    fn from(error: sqlx::Error) -> Self {
        failure(&error)
    }
}

/// What the database said, as phase two takes it.
pub(super) fn failure(error: &sqlx::Error) -> PhaseTwoError {
    let reason = error.to_string();
    let Some(state) = sql_state(error) else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => PhaseTwoError::Unavailable { reason },
            _ => PhaseTwoError::Failed { reason },
        };
    };
    let constraint = error
        .as_database_error()
        .is_some_and(|database| database.kind() != ErrorKind::Other);
    match state.as_str() {
        // Connection classes, and a server that starts, stops or is full.
        code if code.starts_with("08") || code.starts_with("57P") => {
            PhaseTwoError::Unavailable { reason }
        }
        "53300" => PhaseTwoError::Unavailable { reason },
        "55P03" => PhaseTwoError::Failed {
            reason: "a local transaction holds locks on the rows; it will be tried again"
                .to_owned(),
        },
        code if constraint || code.starts_with("23") || code.starts_with("42") => {
            PhaseTwoError::stuck(format!(
                "the database refuses to undo the rows: {reason}; remove the cause and \
                 repair with retry, or repair the rows by hand and accept"
            ))
        }
        _ => PhaseTwoError::Failed { reason },
    }
}

/// The condition for the rows of branches, whose names are `$1` and `$2`. Looks them up one after
/// the other by their keys: a join may be planned to read the whole table, which mostly holds dead
/// rows of branches that have ended. `OFFSET 0` keeps it from becoming one.
pub(super) fn is_of_branches(table: &str) -> String {
    format!(
        "ctid = ANY (ARRAY(
            SELECT u.ctid FROM unnest($1::bigint[], $2::integer[]) AS k(xid, branch_id)
            CROSS JOIN LATERAL (
                SELECT u.ctid FROM {table} u
                WHERE u.xid = k.xid AND u.branch_id = k.branch_id OFFSET 0
            ) u))"
    )
}

/// Drops the undo records of committed branches. Durable when it returns.
pub(crate) async fn delete_undo(
    pool: &PgPool,
    branches: &[BranchKey],
) -> Result<(), PhaseTwoError> {
    let rows = is_of_branches("undo_log");
    let sql = format!("DELETE FROM undo_log WHERE log_status = $3 AND {rows}");
    for branches in branches.chunks(limits::PHASE_TWO_BATCH) {
        let (xids, numbers) = columns_of(branches);
        // The pool's sessions have synchronous_commit = on.
        sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .bind(xids)
            .bind(numbers)
            .bind(UNDOABLE)
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// The names of branches as two columns.
fn columns_of(branches: &[BranchKey]) -> (Vec<i64>, Vec<i32>) {
    let columns = |key: &BranchKey| (key.xid_column(), key.branch_column());
    branches.iter().map(columns).unzip()
}

/// Undoes a branch. Durable when it returns; a repeat finds the marker and does
/// nothing. `was_done`: the branch reported its local commit, so its undo
/// record must be there.
pub(crate) async fn roll_back(
    pool: &PgPool,
    key: BranchKey,
    was_done: bool,
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    match roll_back_once(pool, key, was_done, policy, false).await {
        Err(Failure::InTheWay(_)) => Ok(roll_back_once(pool, key, was_done, policy, true).await?),
        result => Ok(result?),
    }
}

async fn roll_back_once(
    pool: &PgPool,
    key: BranchKey,
    was_done: bool,
    policy: UndoPolicy,
    patient: bool,
) -> Result<(), Failure> {
    let mut held = Held::new(pool.acquire().await?);
    held.soil();
    sqlx::raw_sql("BEGIN; SET CONSTRAINTS ALL DEFERRED")
        .execute(held.get())
        .await?;
    match roll_back_inside(&mut held, key, was_done, policy, patient).await {
        Ok(end) => {
            let end = sqlx::raw_sql(sqlx::AssertSqlSafe(end));
            end.execute(held.get()).await?;
            held.clean();
            Ok(())
        }
        Err(failure) => {
            // The connection is closed if this fails, which rolls back as well.
            let _ = held.roll_back().await;
            Err(failure)
        }
    }
}

/// Does all but the last message, which it returns.
async fn roll_back_inside(
    held: &mut Held,
    key: BranchKey,
    was_done: bool,
    policy: UndoPolicy,
    patient: bool,
) -> Result<String, Failure> {
    let nothing_to_undo = || "COMMIT".to_owned();
    // Waits for a branch that is committing at this moment: its undo row's key
    // is taken until its transaction ends. A row of ours makes it fail later.
    let fresh = sqlx::query(
        "INSERT INTO undo_log (xid, branch_id, rollback_info, log_status, log_created)
         VALUES ($1, $2, '', $3, clock_timestamp()) ON CONFLICT (xid, branch_id) DO NOTHING",
    )
    .bind(key.xid_column())
    .bind(key.branch_column())
    .bind(DEFENCE)
    .execute(&mut *held.get())
    .await?
    .rows_affected()
        == 1;
    if fresh {
        return if was_done && policy != UndoPolicy::AcceptCurrent {
            Err(PhaseTwoError::stuck(format!(
                "branch {} of transaction {} committed here, but its undo record is gone: the \
                 database went back in time or the row was deleted; restore the rows by hand, \
                 then repair with accept",
                key.branch, key.xid
            ))
            .into())
        } else {
            Ok(nothing_to_undo())
        };
    }
    let row = sqlx::query(
        "SELECT rollback_info, log_status FROM undo_log
         WHERE xid = $1 AND branch_id = $2 FOR UPDATE",
    )
    .bind(key.xid_column())
    .bind(key.branch_column())
    .fetch_optional(&mut *held.get())
    .await?;
    let Some(row) = row else {
        return Err(PhaseTwoError::Failed {
            reason: "the undo record vanished while it was being read".to_owned(),
        }
        .into());
    };
    if row.try_get::<i16, _>(1)? != UNDOABLE {
        return Ok(nothing_to_undo());
    }
    if policy != UndoPolicy::AcceptCurrent {
        let record = UndoRecord::decode(row.try_get::<&[u8], _>(0)?)
            .map_err(|error| PhaseTwoError::stuck(error.to_string()))?;
        rows::undo(held.get(), record, policy == UndoPolicy::Forced, patient).await?;
    }
    Ok(format!(
        "UPDATE undo_log SET log_status = {UNDONE}, rollback_info = '', \
         log_created = clock_timestamp() WHERE xid = {} AND branch_id = {}; COMMIT",
        key.xid_column(),
        key.branch_column(),
    ))
}
