//! Finishing branches in MariaDB: dropping undo records after a commit, undoing rows
//! after a rollback, and looking after what was left behind.
//!
//! Everything here may run twice, in two processes at once: the undo row's own lock
//! lets one of them work and shows the other what was done.

mod apply;
mod report;
mod rows;
mod sweep;
mod table;
mod xa;

use sqlx::{MySqlPool, Row as _};

pub(crate) use sweep::{claim_cluster, leftovers, purge_markers, read_meta};
pub(crate) use xa::{commit_open, commit_prepared, prepare_open, prepared, roll_back_prepared};

use super::{connection::Held, error_number, pool::AtPool, session::send};
use crate::{
    at::codec::UndoRecord,
    limits,
    store::finish::{BranchKey, DEFENCE, PhaseTwoError, UNDOABLE, UNDONE, UndoPolicy},
};

/// What the database said, as phase two takes it.
pub(super) fn failure(error: &sqlx::Error) -> PhaseTwoError {
    let reason = error.to_string();
    let Some(number) = error_number(error) else {
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
    match number {
        // A server that is full, starts or stops, or ended the session.
        1040 | 1053 | 1203 | 1226 | 1927 | 4031 => PhaseTwoError::Unavailable { reason },
        1205 | 1213 => PhaseTwoError::Failed {
            reason: "a local transaction holds locks on the rows; it will be tried again"
                .to_owned(),
        },
        // Rights, tables, columns, values, constraints.
        1044 | 1045 | 1048 | 1054 | 1062 | 1142 | 1143 | 1146 | 1264 | 1364 | 1366 | 1406
        | 1451 | 1452 | 4025 => PhaseTwoError::stuck(format!(
            "the database refuses to undo the rows: {reason}; remove the cause and repair with \
             retry, or repair the rows by hand and accept"
        )),
        _ => PhaseTwoError::Failed { reason },
    }
}

/// The names of branches as a condition with two parameters each.
fn keys_condition(count: usize) -> String {
    vec!["(xid = ? AND branch_id = ?)"; count].join(" OR ")
}

/// Drops the undo records of committed branches. Durable when it returns.
pub(crate) async fn delete_undo(
    pool: &MySqlPool,
    branches: &[BranchKey],
) -> Result<(), PhaseTwoError> {
    for branches in branches.chunks(limits::PHASE_TWO_BATCH) {
        // Few different texts, so that they are prepared once.
        let count = branches.len().next_power_of_two();
        let sql = format!(
            "DELETE FROM undo_log WHERE log_status = {UNDOABLE} AND ({})",
            keys_condition(count)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for key in branches
            .iter()
            .chain(branches.last().into_iter().cycle())
            .take(count)
        {
            query = query.bind(key.xid_column()).bind(key.branch_column());
        }
        query.execute(pool).await.map_err(|error| failure(&error))?;
    }
    Ok(())
}

/// Undoes a branch. Durable when it returns; a repeat finds the marker and does
/// nothing. `was_done`: the branch reported its local commit, so its undo record must
/// be there.
pub(crate) async fn roll_back(
    pool: &AtPool,
    key: BranchKey,
    was_done: bool,
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    let connection = pool
        .phase_two()
        .acquire()
        .await
        .map_err(|error| failure(&error))?;
    let mut held = Held::new(connection);
    held.soil();
    let result = match roll_back_inside(pool, &mut held, key, was_done, policy).await {
        Ok(end) => match send(held.get(), end).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(&error)),
        },
        Err(error) => Err(error),
    };
    if result.is_ok() {
        held.clean();
    } else {
        // The connection is closed: its settings are this library's own.
        held.close().await;
    }
    result
}

/// Does all but the last message, which it returns.
async fn roll_back_inside(
    pool: &AtPool,
    held: &mut Held,
    key: BranchKey,
    was_done: bool,
    policy: UndoPolicy,
) -> Result<String, PhaseTwoError> {
    // Waits for a branch that is committing at this moment: its undo row's key is taken
    // until its transaction ends. A row of ours makes it fail later. One that is there
    // is locked at once and exclusively, so that two of us never wait for each other;
    // the token tells a new row from an old one.
    let token = rand::random::<u128>().to_be_bytes();
    let (xid, branch) = (key.xid_column(), key.branch_column());
    let begin = format!(
        "START TRANSACTION; \
         INSERT INTO undo_log (xid, branch_id, rollback_info, log_status, log_created) \
         VALUES ({xid}, {branch}, X'{:032x}', {DEFENCE}, SYSDATE(6)) \
         ON DUPLICATE KEY UPDATE xid = VALUES(xid) RETURNING rollback_info, log_status",
        u128::from_be_bytes(token),
    );
    let nothing_to_undo = || "COMMIT".to_owned();
    let row = send(held.get(), begin)
        .await
        .and_then(|row| row.ok_or(sqlx::Error::RowNotFound))
        .map_err(|error| failure(&error))?;
    let record: Vec<u8> = row.try_get(0).map_err(|error| failure(&error))?;
    let status: i16 = row.try_get(1).map_err(|error| failure(&error))?;
    if status == DEFENCE && record == token {
        return if was_done && policy != UndoPolicy::AcceptCurrent {
            Err(PhaseTwoError::stuck(format!(
                "branch {} of transaction {} committed here, but its undo record is gone: the \
                 database went back in time or the row was deleted; restore the rows by hand, \
                 then repair with accept",
                key.branch, key.xid
            )))
        } else {
            Ok(nothing_to_undo())
        };
    }
    if status != UNDOABLE {
        return Ok(nothing_to_undo());
    }
    if policy != UndoPolicy::AcceptCurrent {
        let record =
            UndoRecord::decode(&record).map_err(|error| PhaseTwoError::stuck(error.to_string()))?;
        let forced = policy == UndoPolicy::Forced;
        rows::undo(held.get(), pool.planner(), record, forced).await?;
    }
    Ok(format!(
        "UPDATE undo_log SET log_status = {UNDONE}, rollback_info = '', log_created = SYSDATE(6) \
         WHERE xid = {xid} AND branch_id = {branch}; COMMIT"
    ))
}
