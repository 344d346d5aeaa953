//! Finishing branches in SQLite: dropping undo records after a commit, undoing rows
//! after a rollback, and looking after what was left behind.
//!
//! Everything here may run twice, in two processes at once: the database's write lock
//! lets one of them work and shows the other what was done.

mod apply;
pub(super) mod references;
mod report;
mod rows;
mod sweep;

use std::time::Duration;

use sqlx::Row as _;

pub(crate) use sweep::{claim_cluster, leftovers, purge_markers, read_meta};

use super::{CONSTRAINT, connection::Held, error_number, pool::AtPool, session};
use crate::{
    at::codec::UndoRecord,
    clock, limits,
    store::finish::{BranchKey, DEFENCE, PhaseTwoError, UNDOABLE, UNDONE, UndoPolicy},
};

/// The database's clock, in milliseconds since 1970.
pub(super) const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// What the database said, as phase two takes it.
pub(super) fn failure(error: &sqlx::Error) -> PhaseTwoError {
    let reason = error.to_string();
    if session::is_locked(error) {
        return PhaseTwoError::Failed {
            reason: "another transaction has the database's write lock; it will be tried again"
                .to_owned(),
        };
    }
    match error_number(error).map(|number| number & 0xff) {
        None => match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => PhaseTwoError::Unavailable { reason },
            _ => PhaseTwoError::Failed { reason },
        },
        // An error of the disk, the disk is full, the file cannot be opened.
        Some(10 | 13 | 14) => PhaseTwoError::Unavailable { reason },
        // An SQL error (a table or column is gone, a trigger's RAISE), a read-only
        // database, constraints, types.
        Some(1 | 8 | CONSTRAINT | 20) => PhaseTwoError::stuck(format!(
            "the database refuses to undo the rows: {reason}; remove the cause and repair with \
             retry, or repair the rows by hand and accept"
        )),
        Some(_) => PhaseTwoError::Failed { reason },
    }
}

/// Opens a transaction that may write.
pub(super) async fn begin(pool: &AtPool) -> Result<Held, PhaseTwoError> {
    let connection = pool
        .phase_two()
        .acquire()
        .await
        .map_err(|error| failure(&error))?;
    let mut held = Held::new(connection);
    let started = clock::now();
    let remaining = move || {
        let waited = clock::now().saturating_duration_since(started);
        limits::PHASE_TWO_LOCK_TIMEOUT.saturating_sub(waited)
    };
    let remaining: &(dyn Fn() -> Duration + Sync) = &remaining;
    let turn = pool.turns().of_finish(remaining()).await;
    session::lock(&mut held, turn, remaining)
        .await
        .map_err(|error| failure(&error))?;
    Ok(held)
}

/// Ends it: durable when it returns.
async fn commit(mut held: Held) -> Result<(), PhaseTwoError> {
    let committed = sqlx::raw_sql("COMMIT").execute(held.get()).await;
    match committed {
        Ok(_) => {
            held.clean();
            Ok(())
        }
        Err(error) => {
            held.roll_back().await;
            Err(failure(&error))
        }
    }
}

/// Drops the undo records of committed branches. Durable when it returns.
pub(crate) async fn delete_undo(
    pool: &AtPool,
    branches: &[BranchKey],
) -> Result<(), PhaseTwoError> {
    let mut held = begin(pool).await?;
    for key in branches {
        sqlx::query("DELETE FROM main.undo_log WHERE xid = ? AND branch_id = ? AND log_status = ?")
            .bind(key.xid_column())
            .bind(key.branch_column())
            .bind(UNDOABLE)
            .execute(held.get())
            .await
            .map_err(|error| failure(&error))?;
    }
    commit(held).await
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
    let mut held = begin(pool).await?;
    match roll_back_inside(pool, &mut held, key, was_done, policy).await {
        Ok(()) => commit(held).await,
        Err(error) => {
            held.roll_back().await;
            Err(error)
        }
    }
}

async fn roll_back_inside(
    pool: &AtPool,
    held: &mut Held,
    key: BranchKey,
    was_done: bool,
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    // A branch that commits at this moment has the write lock, so it has ended by now.
    // A row of ours makes one that has not yet begun to fail later.
    let row = sqlx::query(
        "SELECT rollback_info, log_status FROM main.undo_log WHERE xid = ? AND branch_id = ?",
    )
    .bind(key.xid_column())
    .bind(key.branch_column())
    .fetch_optional(held.get())
    .await
    .map_err(|error| failure(&error))?;
    let Some(row) = row else {
        if was_done && policy != UndoPolicy::AcceptCurrent {
            return Err(PhaseTwoError::stuck(format!(
                "branch {} of transaction {} committed here, but its undo record is gone: the \
                 database went back in time or the row was deleted; restore the rows by hand, \
                 then repair with accept",
                key.branch, key.xid
            )));
        }
        return mark(held, key, DEFENCE).await;
    };
    let record: Vec<u8> = row.try_get(0).map_err(|error| failure(&error))?;
    let status: i16 = row.try_get(1).map_err(|error| failure(&error))?;
    if status != UNDOABLE {
        return Ok(());
    }
    if policy != UndoPolicy::AcceptCurrent {
        let record =
            UndoRecord::decode(&record).map_err(|error| PhaseTwoError::stuck(error.to_string()))?;
        rows::undo(held.get(), pool, record, policy == UndoPolicy::Forced).await?;
    }
    mark(held, key, UNDONE).await
}

/// Leaves a row that holds nothing to undo.
async fn mark(held: &mut Held, key: BranchKey, status: i16) -> Result<(), PhaseTwoError> {
    let sql = format!(
        "INSERT OR REPLACE INTO main.undo_log \
         (xid, branch_id, rollback_info, log_status, log_created) VALUES (?, ?, X'', ?, {NOW})"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(key.xid_column())
        .bind(key.branch_column())
        .bind(status)
        .execute(held.get())
        .await
        .map(drop)
        .map_err(|error| failure(&error))
}
