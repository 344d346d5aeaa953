//! The size limits of parts of commands.

use alloc::string::String;

use crate::{
    id::LockKey,
    limits::{
        MAX_LOCK_BYTES_PER_BRANCH, MAX_LOCK_KEY_BYTES, MAX_LOCKS_PER_BRANCH, MAX_NAME_BYTES,
        MAX_TEXT_BYTES,
    },
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
pub(super) fn locks(keys: &[LockKey]) -> Result<(), Rejection> {
    check("the list of row locks", keys.len(), MAX_LOCKS_PER_BRANCH)?;
    let mut bytes = 0;
    for key in keys {
        check("a row lock key", key.len(), MAX_LOCK_KEY_BYTES)?;
        bytes += key.len();
    }
    check(
        "all row lock keys together",
        bytes,
        MAX_LOCK_BYTES_PER_BRANCH,
    )?;
    if keys.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Rejection::Malformed(
            "row lock keys must be sorted, none twice",
        ));
    }
    Ok(())
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
