//! The byte form of what is kept: batches of commands in the log, and the pieces a snapshot of
//! the state is made of.
//!
//! A batch is: version byte, `at`, `wall`, number of commands, the commands. A command is a tag
//! byte and its fields in the order of the struct. Numbers that are usually small are varints
//! (LEB128, shortest form only), random ones fixed 8 bytes little endian, texts and keys a varint
//! length and the bytes. Tags and versions are never given a second meaning: old logs stay
//! readable.

mod command;
mod lock;
mod saga;
#[cfg(test)]
mod tests;
mod wire;

use alloc::vec::Vec;
use core::fmt;

use crate::{
    command::Command,
    id::{Timestamp, WallTime},
};

// The pieces of which the snapshot of the state is made too.
pub(crate) use self::{
    command::{
        get_asker, get_branch_id, get_command, get_mode, get_problem, get_process, get_repair_verb,
        get_request, get_worker, get_xid, put_command, put_mode, put_problem, put_repair_verb,
        put_request, put_xid,
    },
    lock::{get_row_lock, put_row_lock},
    saga::{get_step, is_acyclic, put_step},
    wire::{Reader, Writer},
};

/// The version that [`encode_batch`] writes.
pub const BATCH_VERSION: u8 = 1;

/// What one log entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// When the leader stamped it.
    pub at: Timestamp,
    /// Wall time at the leader.
    pub wall: WallTime,
    /// To be applied in this order, all with the index of the log entry.
    pub commands: Vec<Command>,
}

/// Why bytes cannot be read. The bytes are damaged or come from a newer version; reading them
/// again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a value, or a length in them is larger than what is left.
    Truncated,
    /// The value is complete and bytes are left over.
    TrailingBytes {
        /// How many.
        left: usize,
    },
    /// A variable-length number has more than 64 bits or is not in its shortest form.
    BadNumber,
    /// A number does not fit where it is used.
    OutOfRange {
        /// What it was to be.
        what: &'static str,
    },
    /// A version that this program does not know: a newer one wrote it.
    UnknownVersion {
        /// Of what.
        what: &'static str,
        /// As found.
        version: u8,
    },
    /// A tag that this version does not have.
    UnknownTag {
        /// Of what.
        what: &'static str,
        /// As found.
        tag: u8,
    },
    /// A text is not UTF-8.
    NotText,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the bytes end in the middle of a value"),
            Self::TrailingBytes { left } => write!(f, "{left} bytes follow the last value"),
            Self::BadNumber => f.write_str("a variable-length number is malformed"),
            Self::OutOfRange { what } => write!(f, "a number is not a valid {what}"),
            Self::UnknownVersion { what, version } => write!(
                f,
                "version {version} of a {what} is not known here; a newer accede wrote it, \
                 use that one or a newer one"
            ),
            Self::UnknownTag { what, tag } => write!(f, "{tag} is not a known {what}"),
            Self::NotText => f.write_str("a text is not valid UTF-8"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Bytes for one log entry. What it writes, [`decode_batch`] reads back as it was.
#[must_use]
pub fn encode_batch(at: Timestamp, wall: WallTime, commands: &[Command]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(24 + commands.len() * TYPICAL_COMMAND_BYTES);
    writer.u8(BATCH_VERSION);
    writer.varint(at.0);
    writer.varint(wall.0);
    writer.list(commands, put_command);
    writer.into_bytes()
}

/// Reads what [`encode_batch`] wrote.
///
/// # Errors
/// Says what is wrong with the bytes; never panics, and allocates no more than a small multiple
/// of their length.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != BATCH_VERSION {
        return Err(DecodeError::UnknownVersion {
            what: "batch of commands",
            version,
        });
    }
    let at = Timestamp(reader.varint()?);
    let wall = WallTime(reader.varint()?);
    let commands = reader.list(get_command)?;
    reader.end()?;
    Ok(Batch { at, wall, commands })
}

/// Room set aside per command before writing: a register with one lock.
const TYPICAL_COMMAND_BYTES: usize = 72;
