//! Row locks and their modes to and from bytes.

use alloc::sync::Arc;

use super::{DecodeError, Reader, Writer};
use crate::lock_mode::{ColumnDelta, LockMode, RowLock};

pub(crate) fn put_row_lock(w: &mut Writer, lock: &RowLock) {
    w.bytes(&lock.key);
    put_lock_mode(w, &lock.mode);
}

pub(crate) fn get_row_lock(r: &mut Reader<'_>) -> Result<RowLock, DecodeError> {
    Ok(RowLock {
        key: r.shared_bytes()?,
        mode: get_lock_mode(r)?,
    })
}

pub(super) fn put_lock_mode(w: &mut Writer, mode: &LockMode) {
    match mode {
        LockMode::Exclusive => w.u8(1),
        LockMode::Shared => w.u8(2),
        LockMode::Escrow(deltas) => {
            w.u8(3);
            w.list(deltas.iter(), put_delta);
        }
    }
}

pub(super) fn get_lock_mode(r: &mut Reader<'_>) -> Result<LockMode, DecodeError> {
    Ok(match r.u8()? {
        1 => LockMode::Exclusive,
        2 => LockMode::Shared,
        3 => LockMode::Escrow(Arc::new(r.list(get_delta)?)),
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "lock mode",
                tag,
            });
        }
    })
}

fn put_delta(w: &mut Writer, change: &ColumnDelta) {
    w.str(&change.column);
    for number in [change.delta, change.value, change.lower, change.upper] {
        w.fixed(number as u64);
    }
}

fn get_delta(r: &mut Reader<'_>) -> Result<ColumnDelta, DecodeError> {
    Ok(ColumnDelta {
        column: r.shared_str()?,
        delta: r.fixed()? as i64,
        value: r.fixed()? as i64,
        lower: r.fixed()? as i64,
        upper: r.fixed()? as i64,
    })
}
