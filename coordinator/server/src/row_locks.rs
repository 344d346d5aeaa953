//! Row locks on the wire and in the core.

use std::sync::Arc;

use accede_core::{
    ColumnDelta, LockKey, LockMode, RowLock, RowLockStatus, Timestamp, limits as core_limits,
};
use accede_proto::v1;
use bytes::Bytes;

use crate::{
    convert::{self, Checked},
    refusal,
};

/// All row locks of a register, sorted by key.
///
/// # Errors
/// Says which is too large or has no sense.
pub(crate) fn wanted(wire: &v1::RegisterBranch) -> Checked<Vec<RowLock>> {
    let exclusive = keys(&wire.row_locks)?;
    let mut locks: Vec<RowLock> = exclusive.into_iter().map(RowLock::from).collect();
    if wire.shared_row_locks.is_empty() && wire.escrow_row_locks.is_empty() {
        return Ok(locks);
    }
    let shared = keys(&wire.shared_row_locks)?;
    locks.extend(shared.into_iter().map(|key| RowLock {
        key,
        mode: LockMode::Shared,
    }));
    for escrow in &wire.escrow_row_locks {
        locks.push(RowLock {
            key: key(&escrow.row)?,
            mode: LockMode::Escrow(Arc::new(escrow.columns.iter().map(delta).collect())),
        });
    }
    locks.sort_unstable();
    if locks.windows(2).any(|pair| pair[0].key == pair[1].key) {
        return Err(Box::new(refusal::invalid(
            "a row is to be locked in two modes: leave the weaker one out, or lock it exclusively",
        )));
    }
    Ok(locks)
}

/// Sorts and checks a list of row locks.
///
/// # Errors
/// Says which is too large or has no sense.
pub(crate) fn keys(wire: &[Bytes]) -> Checked<Vec<LockKey>> {
    if wire.len() > core_limits::MAX_LOCKS_PER_BRANCH {
        return Err(Box::new(refusal::too_large(
            "the list of row locks",
            wire.len(),
            core_limits::MAX_LOCKS_PER_BRANCH,
        )));
    }
    let total = wire.iter().map(Bytes::len).sum();
    let mut keys = wire.iter().map(key).collect::<Checked<Vec<LockKey>>>()?;
    if total > core_limits::MAX_LOCK_BYTES_PER_BRANCH {
        return Err(Box::new(refusal::too_large(
            "the list of row locks (in bytes)",
            total,
            core_limits::MAX_LOCK_BYTES_PER_BRANCH,
        )));
    }
    if !keys.is_sorted_by(|a, b| a < b) {
        keys.sort_unstable();
        keys.dedup();
    }
    Ok(keys)
}

fn key(wire: &Bytes) -> Checked<LockKey> {
    if wire.is_empty() {
        return Err(Box::new(refusal::invalid("a row lock has no bytes")));
    }
    if wire.len() > core_limits::MAX_LOCK_KEY_BYTES {
        return Err(Box::new(refusal::too_large(
            "a row lock (in bytes)",
            wire.len(),
            core_limits::MAX_LOCK_KEY_BYTES,
        )));
    }
    Ok(Arc::from(&wire[..]))
}

fn delta(wire: &v1::ColumnDelta) -> ColumnDelta {
    ColumnDelta {
        column: wire.column.as_str().into(),
        delta: wire.delta,
        value: wire.value,
        lower: wire.lower.unwrap_or(i64::MIN),
        upper: wire.upper.unwrap_or(i64::MAX),
    }
}

/// A row for an operator.
pub(crate) fn status(row: &RowLockStatus, now: Timestamp) -> v1::RowLockStatus {
    let holders = row.holders.iter().map(|holder| {
        let (mode, columns) = mode(&holder.mode);
        v1::RowLockHolder {
            xid: holder.xid.get(),
            mode: mode.into(),
            columns,
        }
    });
    let waiting = row.waiting.iter().map(|waiter| {
        let (mode, columns) = mode(&waiter.mode);
        v1::RowLockWaiter {
            xid: convert::on_wire(waiter.xid),
            waiting_for_ms: now.since(waiter.since),
            gives_up_in_ms: waiter.until.since(now),
            holds_local_locks: waiter.holds_local_locks,
            mode: mode.into(),
            columns,
        }
    });
    v1::RowLockStatus {
        resource: (*row.resource).to_owned(),
        key: Bytes::copy_from_slice(&row.key),
        holders: holders.collect(),
        waiting: waiting.collect(),
    }
}

fn mode(mode: &LockMode) -> (v1::RowLockMode, Vec<v1::ColumnDelta>) {
    match mode {
        LockMode::Exclusive => (v1::RowLockMode::Exclusive, Vec::new()),
        LockMode::Shared => (v1::RowLockMode::Shared, Vec::new()),
        LockMode::Escrow(deltas) => {
            let columns = deltas.iter().map(|change| v1::ColumnDelta {
                column: (*change.column).to_owned(),
                delta: change.delta,
                value: change.value,
                lower: (change.lower != i64::MIN).then_some(change.lower),
                upper: (change.upper != i64::MAX).then_some(change.upper),
            });
            (v1::RowLockMode::Escrow, columns.collect())
        }
    }
}
