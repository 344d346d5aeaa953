//! The bytes of a segment: header, records, checksums. `FORMAT.md` is the description.

use std::cell::OnceCell;

use crc32fast::Hasher;

use crate::config::ClusterId;
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};

/// Format version of segments, records and snapshots written by this build.
pub(crate) const VERSION: u8 = 1;
/// The header has a page of its own, so that no later write can tear it.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// Header of one record.
pub(crate) const RECORD_HEADER: usize = 32;
/// Where a record has its version.
const VERSION_AT: usize = 8;
/// Indexes and terms are below this: no log gets there, and counting on from one stays possible.
pub(crate) const NUMBER_LIMIT: u64 = 1 << 62;
/// Records start at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Most a record adds to its payload, and the seal that must still fit behind it.
pub(crate) const RECORD_OVERHEAD: u64 = (RECORD_HEADER + ALIGN) as u64 + RESERVED_BYTES as u64;
/// Kept free at the end of a segment for its seal.
pub(crate) const SEAL_BYTES: usize = RECORD_HEADER;
/// Room for the vote, committed and purged records that open a segment, and its seal.
const RESERVED_BYTES: usize = 3 * (RECORD_HEADER + ALIGN) + SEAL_BYTES;

const MAGIC: &[u8; 8] = b"ACCDLOG\n";
const HEADER_USED: usize = 48;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry with a command of the state machine.
    Command = 1,
    /// An entry without content: a new leader's first.
    Blank = 2,
    /// An entry with the members of the cluster.
    Membership = 3,
    /// This replica's vote: term, candidate in the index field, one byte "committed".
    Vote = 4,
    /// Entries up to (term, index) are decided.
    Committed = 5,
    /// Entries up to (term, index) are in a snapshot and gone from the log.
    Purged = 6,
    /// Entries above the index are void; one byte: 0 = all entries are.
    Truncate = 7,
    /// The segment ends here; the next generation goes on.
    Seal = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Command,
            2 => Self::Blank,
            3 => Self::Membership,
            4 => Self::Vote,
            5 => Self::Committed,
            6 => Self::Purged,
            7 => Self::Truncate,
            8 => Self::Seal,
            _ => return None,
        })
    }

    /// Whether the record is an entry of the log.
    pub(crate) fn is_entry(self) -> bool {
        matches!(self, Self::Command | Self::Blank | Self::Membership)
    }
}

/// One record, before it is written or after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) payload: &'a [u8],
}

/// A record found in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) record: Record<'a>,
    /// Offset at which the write began that carried this record. Everything before it had been
    /// forced to disk by then, so a bad byte before it is damage, not a torn write.
    pub(crate) batch: u32,
    /// Offset of the next record.
    pub(crate) next: usize,
}

/// What stands at an offset.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// A whole record.
    Record(Found<'a>),
    /// A record of a later format version, with a right checksum.
    Newer(u32),
    /// Nothing that can be trusted.
    Bad(&'static str),
}

/// Where a segment stands in the order of segments, and how its checksums are salted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u32);

impl Salt {
    pub(crate) fn new(cluster: ClusterId, generation: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&cluster.0.to_le_bytes());
        #[cfg(feature = "planted-bugs")]
        let generation = match planted::is(Bug::OldRecordsCount) {
            true => 0,
            false => generation,
        };
        hasher.update(&generation.to_le_bytes());
        Self(hasher.finalize())
    }

    /// The checksum of the record `bytes` (header and payload) at `offset`.
    fn crc(self, offset: usize, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&(offset as u64).to_le_bytes());
        hasher.update(&bytes[4..]);
        hasher.finalize()
    }
}

/// Checksums of a segment's beginnings. With them a long record is checked at the price of a short
/// one: bytes that claim a long record at every place would take hours otherwise.
#[derive(Debug)]
pub(crate) struct Sums<'a> {
    segment: &'a [u8],
    /// Of the first n * [`SUM_STEP`] bytes; made when the first long record asks.
    beginnings: OnceCell<Vec<u32>>,
}

/// Records of less than two such steps are read as they are.
const SUM_STEP: usize = 4096;

impl<'a> Sums<'a> {
    pub(crate) fn new(segment: &'a [u8]) -> Self {
        Self {
            segment,
            beginnings: OnceCell::new(),
        }
    }

    fn beginnings(&self) -> &[u32] {
        self.beginnings.get_or_init(|| {
            let mut hasher = Hasher::new();
            let after = |part| {
                hasher.update(part);
                hasher.clone().finalize()
            };
            let parts = self.segment.chunks_exact(SUM_STEP).map(after);
            [0].into_iter().chain(parts).collect()
        })
    }

    /// As [`Salt::crc`] of the bytes from `offset` to `end`.
    fn crc(&self, salt: Salt, offset: usize, end: usize) -> u32 {
        let (first, last) = ((offset + 4).div_ceil(SUM_STEP), end / SUM_STEP);
        if end - offset < 2 * SUM_STEP {
            return salt.crc(offset, &self.segment[offset..end]);
        }
        let (from, to) = (first * SUM_STEP, last * SUM_STEP);
        let length = (to - from) as u64;
        let mut before = Hasher::new_with_initial(self.beginnings()[first]);
        before.combine(&Hasher::new_with_initial_len(0, length));
        let between = before.finalize() ^ self.beginnings()[last];
        let mut hasher = Hasher::new_with_initial(salt.0);
        hasher.update(&(offset as u64).to_le_bytes());
        hasher.update(&self.segment[offset + 4..from]);
        hasher.combine(&Hasher::new_with_initial_len(between, length));
        hasher.update(&self.segment[to..end]);
        hasher.finalize()
    }

    /// Whether a whole record with a right checksum stands at `offset`.
    pub(crate) fn is_record(&self, offset: usize, salt: Salt) -> bool {
        let Some(header) = self.segment.get(offset..offset + RECORD_HEADER) else {
            return false;
        };
        let end = offset + RECORD_HEADER + u32_at(header, 4) as usize;
        header[VERSION_AT] != 0
            && end <= self.segment.len()
            && self.crc(salt, offset, end) == u32_at(header, 0)
    }
}

/// Bytes a record with this payload takes.
pub(crate) fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER + payload).next_multiple_of(ALIGN)
}

/// Appends a record to `buf`, whose first byte stands at `batch` in the segment. Returns the
/// offset of the record in the segment.
pub(crate) fn put_record(buf: &mut Vec<u8>, batch: u32, salt: Salt, record: Record<'_>) -> u32 {
    let start = buf.len();
    let offset = batch as usize + start;
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
    buf.extend_from_slice(&[VERSION, record.kind as u8, 0, 0]);
    buf.extend_from_slice(&batch.to_le_bytes());
    buf.extend_from_slice(&record.term.to_le_bytes());
    buf.extend_from_slice(&record.index.to_le_bytes());
    buf.extend_from_slice(record.payload);
    let crc = salt.crc(offset, &buf[start..]);
    buf[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    buf.resize(start + record_bytes(record.payload.len()), 0);
    offset as u32
}

/// Reads the record at `offset` of a whole `segment`.
pub(crate) fn parse(segment: &[u8], offset: usize, salt: Salt) -> Parsed<'_> {
    parse_alone(segment.get(offset..).unwrap_or_default(), offset, salt)
}

/// Reads the record that `bytes` begin with and that stands at `offset` of its segment.
pub(crate) fn parse_alone(bytes: &[u8], offset: usize, salt: Salt) -> Parsed<'_> {
    let Some(header) = bytes.get(..RECORD_HEADER) else {
        return Parsed::Bad("the segment ends inside a record header");
    };
    let version = header[VERSION_AT];
    if version == 0 {
        return Parsed::Bad("there is no record");
    }
    let payload = u32_at(header, 4) as usize;
    let Some(whole) = bytes.get(..RECORD_HEADER + payload) else {
        return Parsed::Bad("a record is longer than the segment");
    };
    if salt.crc(offset, whole) != u32_at(header, 0) {
        return Parsed::Bad("the checksum does not match");
    }
    let kind = Kind::from_byte(header[9]);
    let (VERSION, Some(kind)) = (version, kind) else {
        // A right checksum: someone meant this. An unknown kind is as new as a new version.
        return Parsed::Newer(u32::from(version).max(u32::from(VERSION) + 1));
    };
    let batch = u32_at(header, 12);
    if batch as usize > offset {
        return Parsed::Bad("a record claims to be older than its own write");
    }
    Parsed::Record(Found {
        record: Record {
            kind,
            term: u64_at(header, 16),
            index: u64_at(header, 24),
            payload: &whole[RECORD_HEADER..],
        },
        batch,
        next: offset + record_bytes(payload),
    })
}

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) generation: u64,
    pub(crate) segment_bytes: u64,
}

/// Why a segment header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Newer(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    /// The header page.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES as usize);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&u32::from(VERSION).to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&self.cluster.0.to_le_bytes());
        page.extend_from_slice(&self.generation.to_le_bytes());
        page.extend_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32fast::hash(&page);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        page.resize(HEADER_BYTES as usize, 0);
        page
    }

    /// Reads a header page.
    pub(crate) fn decode(page: &[u8]) -> Result<Self, BadHeader> {
        let Some(used) = page.get(..HEADER_USED) else {
            return Err(BadHeader::Damaged("the file is shorter than its header"));
        };
        if &used[..8] != MAGIC {
            return Err(BadHeader::Damaged("this is not a log segment"));
        }
        let version = u32_at(used, 8);
        if version > u32::from(VERSION) {
            return Err(BadHeader::Newer(version));
        }
        let mut unsigned = used.to_vec();
        unsigned[12..16].fill(0);
        if version == 0 || crc32fast::hash(&unsigned) != u32_at(used, 12) {
            return Err(BadHeader::Damaged(
                "the checksum of the header does not match",
            ));
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&used[16..32]);
        Ok(Self {
            cluster: ClusterId(u128::from_le_bytes(cluster)),
            generation: u64_at(used, 32),
            segment_bytes: u64_at(used, 40),
        })
    }
}

/// Little-endian number at an offset; the caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Little-endian number at an offset; the caller has checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_say_what_the_checksum_says() {
        let segment: Vec<u8> = (0..40_000_u32).map(|n| ((n * n) >> 3) as u8).collect();
        let (sums, salt) = (Sums::new(&segment), Salt(77));
        for offset in (0..30_000).step_by(1000) {
            for length in [32, 33, 4096, 8191, 8192, 8193, 9999] {
                let expected = salt.crc(offset, &segment[offset..offset + length]);
                assert_eq!(sums.crc(salt, offset, offset + length), expected);
            }
        }
    }

    #[test]
    fn a_long_record_is_found_and_a_changed_one_is_not() {
        let salt = Salt(5);
        let mut segment = vec![0; 4096];
        let payload = vec![9; 20_000];
        let record = Record {
            kind: Kind::Command,
            term: 1,
            index: 2,
            payload: &payload,
        };
        let mut bytes = Vec::new();
        put_record(&mut bytes, 4096, salt, record);
        segment.extend(bytes);
        assert!(Sums::new(&segment).is_record(4096, salt));
        assert!(!Sums::new(&segment).is_record(4104, salt));
        segment[12_000] ^= 1;
        assert!(!Sums::new(&segment).is_record(4096, salt));
    }
}
