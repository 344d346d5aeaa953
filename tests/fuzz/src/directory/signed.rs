//! The checksums of the format, made and checked apart from the log's own code: to sign damage,
//! and to tell whether damage is signed.

use std::collections::BTreeSet;

use crc32fast::Hasher;

use super::{CLUSTER, Files};

pub(super) const SEGMENT_HEADER: usize = 4096;
pub(super) const RECORD_HEADER: usize = 32;
const SNAPSHOT_HEADER: usize = 96;

/// The generation in a segment's name.
pub(super) fn generation(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    u64::from_str_radix(digits, 16).ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four) as usize)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(four) = bytes.get_mut(at..at + 4) {
        four.copy_from_slice(&value.to_le_bytes());
    }
}

/// Where the record at `offset` ends, by the length it claims.
pub(super) fn record_end(segment: &[u8], offset: usize) -> Option<usize> {
    let end = offset + RECORD_HEADER + u32_at(segment, offset + 4)?;
    (end <= segment.len()).then_some(end)
}

/// Offsets of the records, as far as their lengths lead.
pub(super) fn records(segment: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut offset = SEGMENT_HEADER;
    while segment.get(offset + 8).is_some_and(|version| *version != 0) {
        let Some(end) = record_end(segment, offset) else {
            break;
        };
        found.push(offset);
        offset = end.next_multiple_of(8);
    }
    found
}

fn record_checksum(segment: &[u8], generation: u64, offset: usize, end: usize) -> u32 {
    let mut salt = Hasher::new();
    salt.update(&CLUSTER.0.to_le_bytes());
    salt.update(&generation.to_le_bytes());
    let mut hasher = Hasher::new_with_initial(salt.finalize());
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(&segment[offset + 4..end]);
    hasher.finalize()
}

/// Gives the record at `offset` the checksum it should have.
pub(super) fn sign_record(segment: &mut [u8], generation: u64, offset: usize) {
    if let Some(end) = record_end(segment, offset) {
        let checksum = record_checksum(segment, generation, offset, end);
        put_u32(segment, offset, checksum);
    }
}

/// The checksum of a header of `length` bytes that holds it at byte 12.
fn header_checksum(bytes: &[u8], length: usize) -> Option<u32> {
    let mut header = bytes.get(..length)?.to_vec();
    put_u32(&mut header, 12, 0);
    Some(crc32fast::hash(&header))
}

/// Signs the header of a segment.
pub(super) fn sign_segment(bytes: &mut [u8]) {
    if let Some(checksum) = header_checksum(bytes, 48) {
        put_u32(bytes, 12, checksum);
    }
}

/// Signs header and content of a snapshot, and sets the length of the content right.
pub(super) fn sign_snapshot(bytes: &mut [u8]) {
    let Some(content) = u32_at(bytes, 92).map(|members| members + SNAPSHOT_HEADER) else {
        return;
    };
    if content > bytes.len() {
        return;
    }
    let (length, checksum) = (bytes.len() - content, crc32fast::hash(&bytes[content..]));
    bytes[80..88].copy_from_slice(&(length as u64).to_le_bytes());
    put_u32(bytes, 88, checksum);
    if let Some(checksum) = header_checksum(bytes, content) {
        put_u32(bytes, 12, checksum);
    }
}

/// Signs an identity file.
pub(super) fn sign_identity(bytes: &mut [u8]) {
    if let Some(id) = bytes.get(16..32) {
        let checksum = crc32fast::hash(id);
        put_u32(bytes, 12, checksum);
    }
}

/// Everything in a file that carries a right checksum, with the place where it counts.
fn signed(name: &str, bytes: &[u8], into: &mut BTreeSet<(u64, usize, Vec<u8>)>) {
    let stored = u32_at(bytes, 12).map(|crc| crc as u32);
    if let Some(generation) = generation(name) {
        if header_checksum(bytes, 48) == stored && stored.is_some() {
            into.insert((generation, 0, bytes[..48].to_vec()));
        }
        for offset in (SEGMENT_HEADER..bytes.len()).step_by(8) {
            let Some(end) = record_end(bytes, offset) else {
                continue;
            };
            let right = record_checksum(bytes, generation, offset, end);
            if u32_at(bytes, offset) == Some(right as usize) {
                into.insert((generation, offset, bytes[offset..end].to_vec()));
            }
        }
    } else if name.ends_with(".snap") {
        let header = u32_at(bytes, 92).map_or(0, |members| members + SNAPSHOT_HEADER);
        if stored.is_some() && header_checksum(bytes, header) == stored {
            into.insert((u64::MAX, 0, bytes.to_vec()));
        }
    } else if name == "IDENTITY" && bytes.len() >= 32 {
        into.insert((u64::MAX, 1, bytes[8..32].to_vec()));
    }
}

/// Whether a right checksum stands on something that the log never wrote.
pub(super) fn is_forged(original: &Files, damaged: &Files) -> bool {
    let all = |files: &Files| {
        let mut found = BTreeSet::new();
        for (name, bytes) in files {
            signed(name, bytes, &mut found);
        }
        found
    };
    !all(damaged).is_subset(&all(original))
}
