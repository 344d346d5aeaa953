//! How long ended transactions stay known. The leader's settings travel in the log, so that all
//! replicas forget the same transactions at the same entry.

use crate::{
    codec::{DecodeError, Reader, Writer},
    limits::{
        MAX_RETENTION_MS, MAX_RETENTION_TRANSACTIONS, MIN_RETENTION_MS, MIN_RETENTION_TRANSACTIONS,
        RETENTION_MS, RETENTION_TRANSACTIONS,
    },
};

/// How long ended transactions stay known: until one of the two bounds is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds since a transaction ended.
    pub ms: u64,
    /// How many are known at most; the oldest are forgotten first.
    pub transactions: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            ms: RETENTION_MS,
            transactions: RETENTION_TRANSACTIONS,
        }
    }
}

impl Retention {
    /// What every state had before the settings stood in the log. Old entries and snapshots mean
    /// it, whatever the defaults are now.
    pub(crate) const UNWRITTEN: Self = Self {
        ms: 600_000,
        transactions: 100_000,
    };

    /// The nearest that is allowed: a state stays bounded whatever the log says.
    pub(crate) fn allowed(self) -> Self {
        Self {
            ms: self.ms.clamp(MIN_RETENTION_MS, MAX_RETENTION_MS),
            transactions: self
                .transactions
                .clamp(MIN_RETENTION_TRANSACTIONS, MAX_RETENTION_TRANSACTIONS),
        }
    }
}

pub(crate) fn put_retention(w: &mut Writer, retention: Retention) {
    w.varint(retention.ms);
    w.varint(retention.transactions);
}

pub(crate) fn get_retention(r: &mut Reader<'_>) -> Result<Retention, DecodeError> {
    Ok(Retention {
        ms: r.varint()?,
        transactions: r.varint()?,
    })
}
