//! The size limits of parts of commands.

use alloc::string::String;

use crate::{
    id::LockKey,
    limits::{
        MAX_ESCROW_COLUMNS, MAX_LOCK_BYTES_PER_BRANCH, MAX_LOCK_KEY_BYTES, MAX_LOCKS_PER_BRANCH,
        MAX_NAME_BYTES, MAX_TEXT_BYTES,
    },
    lock_mode::{ColumnDelta, LockMode},
    reply::Rejection,
};

pub(super) fn check(what: &'static str, found: usize, limit: usize) -> Result<(), Rejection> {
    if found <= limit {
        return Ok(());
    }
    Err(Rejection::TooLarge {
        what,
        found: found as u64,
        limit: limit as u64,
    })
}

pub(super) fn name(what: &'static str, name: &str) -> Result<(), Rejection> {
    check(what, name.len(), MAX_NAME_BYTES)
}

/// Keys must be sorted without repeats: a request then has one form only.
pub(super) fn locks<'a>(
    locks: impl ExactSizeIterator<Item = (&'a LockKey, &'a LockMode)>,
) -> Result<(), Rejection> {
    check("the list of row locks", locks.len(), MAX_LOCKS_PER_BRANCH)?;
    let (mut bytes, mut sorted, mut last) = (0, true, None);
    for (key, mode) in locks {
        check("a row lock key", key.len(), MAX_LOCK_KEY_BYTES)?;
        bytes += key.len();
        if let LockMode::Escrow(deltas) = mode {
            bytes += escrow(deltas)?;
        }
        sorted &= last.replace(key).is_none_or(|last| last < key);
    }
    check(
        "all row lock keys together",
        bytes,
        MAX_LOCK_BYTES_PER_BRANCH,
    )?;
    if !sorted {
        return Err(Rejection::Malformed(
            "row lock keys must be sorted, none twice",
        ));
    }
    Ok(())
}

/// The bytes that an escrow adds to its lock.
fn escrow(deltas: &[ColumnDelta]) -> Result<usize, Rejection> {
    check("an escrow", deltas.len(), MAX_ESCROW_COLUMNS)?;
    if deltas.is_empty() {
        return Err(Rejection::Malformed("an escrow must name a column"));
    }
    if deltas
        .windows(2)
        .any(|pair| pair[0].column >= pair[1].column)
    {
        return Err(Rejection::Malformed(
            "columns of an escrow must be sorted, none twice",
        ));
    }
    let mut bytes = 0;
    for change in deltas {
        name("a column's name", &change.column)?;
        bytes += change.column.len() + size_of::<[i64; 4]>();
        let bounds = change.lower..=change.upper;
        let before = change.value.checked_sub(change.delta);
        if !bounds.contains(&change.value) || !before.is_some_and(|v| bounds.contains(&v)) {
            return Err(Rejection::Malformed(
                "a column in escrow must be within its bounds before and after its change",
            ));
        }
    }
    Ok(bytes)
}

/// A text for people, cut to its limit: it must never be the reason to refuse a decision.
pub(super) fn text(text: &str) -> String {
    cut(text, MAX_TEXT_BYTES)
}

pub(super) fn cut(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    String::from(&text[..end.unwrap_or(0)])
}
