//! Reading one segment: its records in order, and what may lie behind them.

use std::path::Path;

use bytes::Bytes;

use super::format::{
    self, ALIGN, Found, HEADER_BYTES, Kind, NUMBER_LIMIT, Parsed, Record, Salt, Sums, VERSION,
};
use super::memory::{Memory, Written};
use super::{LogEntry, Mark, Vote};
use crate::error::OpenError;

/// What a segment held.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Offset behind the last good record.
    pub(crate) end: usize,
    /// Whether a seal ended it.
    pub(crate) sealed: bool,
    /// Highest entry in it, also of those void by now.
    pub(crate) highest: Option<u64>,
    /// What stands at `end`.
    pub(crate) why: &'static str,
}

/// Applies the records of a segment to `memory`.
pub(crate) fn replay(
    content: &[u8],
    path: &Path,
    generation: u64,
    memory: &mut Memory,
) -> Result<Scan, OpenError> {
    let salt = Salt::new(memory.cluster(), generation);
    let mut scan = Scan {
        end: HEADER_BYTES as usize,
        sealed: false,
        highest: None,
        why: "",
    };
    loop {
        let found = match format::parse(content, scan.end, salt) {
            Parsed::Record(found) => found,
            Parsed::Newer(version) => {
                return Err(OpenError::NewerVersion {
                    file: path.to_path_buf(),
                    found: version,
                    supported: u32::from(VERSION),
                });
            }
            Parsed::Bad(why) => {
                scan.why = why;
                return Ok(scan);
            }
        };
        let offset = scan.end;
        scan.end = found.next;
        if found.record.kind == Kind::Seal {
            scan.sealed = true;
            return Ok(scan);
        }
        if found.record.kind.is_entry() {
            scan.highest = scan.highest.max(Some(found.record.index));
        }
        apply(&found, offset, generation, memory).map_err(|what| OpenError::DamagedMiddle {
            file: path.to_path_buf(),
            offset: offset as u64,
            what,
        })?;
    }
}

fn apply(
    found: &Found<'_>,
    offset: usize,
    generation: u64,
    memory: &mut Memory,
) -> Result<(), String> {
    let Record {
        kind,
        term,
        index,
        payload,
    } = found.record;
    let mark = Mark { term, index };
    if term >= NUMBER_LIMIT || (index >= NUMBER_LIMIT && kind != Kind::Vote) {
        return Err(format!("no log has a term {term} or an index {index}"));
    }
    match kind {
        Kind::Command | Kind::Blank | Kind::Membership => {
            if memory.purged.is_some_and(|purged| index <= purged.index) {
                return Ok(());
            }
            let payload = Bytes::copy_from_slice(payload);
            memory.append(LogEntry {
                term,
                index,
                kind,
                payload,
            })?;
            let bytes = (found.next - offset) as u32;
            memory.written(
                generation,
                &[Written {
                    index,
                    term,
                    offset: offset as u32,
                    bytes,
                }],
            );
        }
        Kind::Vote => {
            let committed = payload == [1];
            memory.vote = Some(Vote {
                term,
                node: index,
                committed,
            });
        }
        Kind::Committed => memory.committed = memory.committed.max(Some(mark)),
        Kind::Purged => memory.purge(mark),
        Kind::Truncate => memory.truncate((payload == [1]).then_some(index)),
        Kind::Seal => {}
    }
    Ok(())
}

/// Looks for whole records of this generation at or behind `from`, where no record could be
/// read. Returns the latest write that any of them belongs to, and where the last one ends.
pub(crate) fn last_batch(content: &[u8], from: usize, salt: Salt) -> Option<(u32, usize)> {
    let sums = Sums::new(content);
    let mut found = None;
    let mut offset = from.next_multiple_of(ALIGN);
    while offset < content.len() {
        if !sums.is_record(offset, salt) {
            offset += ALIGN;
            continue;
        }
        match format::parse(content, offset, salt) {
            Parsed::Record(record) => {
                let latest = found.map_or(0, |(batch, _)| batch);
                found = Some((record.batch.max(latest), record.next.min(content.len())));
                offset = record.next;
            }
            Parsed::Newer(_) | Parsed::Bad(_) => offset += ALIGN,
        }
    }
    found
}

/// Whether there is anything behind the header.
pub(crate) fn has_records(content: &[u8]) -> bool {
    content
        .get(HEADER_BYTES as usize..)
        .is_some_and(|rest| rest.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterId;

    /// Left behind by entries with such a content: takes hours if each claim is looked into.
    #[test]
    fn bytes_that_claim_a_long_record_at_every_place_take_no_time() {
        let mut content = vec![0; HEADER_BYTES as usize];
        let quarter = (1_u32 << 18).to_le_bytes();
        while content.len() < 1 << 20 {
            content.extend_from_slice(&[1, 1, 0, 0]);
            content.extend_from_slice(&quarter);
        }
        let salt = Salt::new(ClusterId(1), 1);
        assert_eq!(last_batch(&content, HEADER_BYTES as usize, salt), None);
    }
}
