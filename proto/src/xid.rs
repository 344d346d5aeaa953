//! The transaction id as clients see it.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// The HTTP header and gRPC metadata key that carries an [`Xid`] between services.
pub const XID_HEADER: &str = "x-accede-xid";

/// The key that Seata clients use for the same purpose; accepted, never sent.
pub const XID_HEADER_SEATA: &str = "tx_xid";

const WORKER_BITS: u32 = 13;
const SEQUENCE_BITS: u32 = 9;
const TIME_BITS: u32 = 41;

/// A global transaction's id: 64 bits, shown as 16 hex digits.
///
/// Layout: `0 | 41 bits milliseconds since 2026-01-01 UTC | 9 bits sequence |
/// 13 bits worker`. Ids of one worker grow strictly; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(NonZeroU64);

/// The three numbers inside an [`Xid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidParts {
    /// Milliseconds since 2026-01-01 UTC, below 2^41. Borrowed from the worker's
    /// lease, so close to the time of creation but no clock.
    pub time_ms: u64,
    /// Counts ids within one millisecond, below 512.
    pub sequence: u16,
    /// The worker that made the id, below 8192.
    pub worker: u16,
}

impl XidParts {
    /// The largest sequence number within one millisecond.
    pub const MAX_SEQUENCE: u16 = (1 << SEQUENCE_BITS) - 1;
    /// The largest worker number.
    pub const MAX_WORKER: u16 = (1 << WORKER_BITS) - 1;
    /// The largest time part.
    pub const MAX_TIME_MS: u64 = (1 << TIME_BITS) - 1;
}

impl Xid {
    /// Puts an id together; `None` if a part does not fit or all are zero.
    #[must_use]
    pub fn from_parts(parts: XidParts) -> Option<Self> {
        let fits = parts.time_ms <= XidParts::MAX_TIME_MS
            && parts.sequence <= XidParts::MAX_SEQUENCE
            && parts.worker <= XidParts::MAX_WORKER;
        let bits = (parts.time_ms << (SEQUENCE_BITS + WORKER_BITS))
            | (u64::from(parts.sequence) << WORKER_BITS)
            | u64::from(parts.worker);
        fits.then(|| Self::from_u64(bits)).flatten()
    }

    /// Takes an id apart.
    #[must_use]
    pub fn parts(self) -> XidParts {
        let bits = self.0.get();
        XidParts {
            time_ms: bits >> (SEQUENCE_BITS + WORKER_BITS),
            sequence: (bits >> WORKER_BITS) as u16 & XidParts::MAX_SEQUENCE,
            worker: bits as u16 & XidParts::MAX_WORKER,
        }
    }

    /// Reads the wire form; `None` for zero and for a set top bit, which no id has.
    #[must_use]
    pub fn from_u64(bits: u64) -> Option<Self> {
        if bits >> 63 != 0 {
            return None;
        }
        NonZeroU64::new(bits).map(Self)
    }

    /// The wire form.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xid({self})")
    }
}

/// A text that is no XID. The sender is at fault; a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseXidError(String);

impl fmt::Display for ParseXidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no transaction id: expected 16 hex digits, for example 000c1f40a2e00001",
            self.0
        )
    }
}

impl std::error::Error for ParseXidError {}

impl FromStr for Xid {
    type Err = ParseXidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The length is checked first: a shorter text is more likely a typo than an id.
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .and_then(Self::from_u64)
            .ok_or_else(|| ParseXidError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_parts_round_trip() {
        let parts = XidParts {
            time_ms: 28_000_000_123,
            sequence: 511,
            worker: 8191,
        };
        let xid = Xid::from_parts(parts).expect("every part fits");
        assert_eq!(xid.parts(), parts);
        assert_eq!(xid.to_string().parse::<Xid>(), Ok(xid));
        assert_eq!(xid.to_string().len(), 16);
    }

    #[test]
    fn refuses_what_is_no_id() {
        for bad in [
            "",
            "0",
            "0000000000000000",
            "8000000000000000",
            "g00c1f40a2e00001",
            "+00c1f40a2e00001",
        ] {
            let error = bad.parse::<Xid>().expect_err("no id");
            assert!(error.to_string().contains("16 hex digits"), "{error}");
        }
        assert_eq!(
            Xid::from_parts(XidParts {
                time_ms: 1 << 41,
                sequence: 0,
                worker: 0
            }),
            None
        );
        assert_eq!(
            Xid::from_parts(XidParts {
                time_ms: 1,
                sequence: 512,
                worker: 0
            }),
            None
        );
        assert_eq!(
            Xid::from_parts(XidParts {
                time_ms: 1,
                sequence: 0,
                worker: 8192
            }),
            None
        );
    }
}
