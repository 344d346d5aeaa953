//! Damage to the files of a directory.

use super::{Files, signed};
use crate::input::Input;

/// Bytes that most edits take.
pub(super) const OPERANDS: usize = 8;
/// Edits of one program.
const MOST_EDITS: usize = 16;
/// Bytes that a file may grow to.
const LARGEST_FILE: usize = 64 * 1024;

/// What was done, for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// One bit of what is in use in a file.
    Flip,
    Overwrite,
    Zero,
    Cut,
    Grow,
    CopyRange,
    DuplicateRecord,
    SwapRecords,
    ChangeLength,
    Remove,
    CopyFile,
    Replace,
    Sign,
    /// There was nothing to do it to.
    Nothing,
}

const ALL: [Edit; 13] = [
    Edit::Flip,
    Edit::Overwrite,
    Edit::Zero,
    Edit::Cut,
    Edit::Grow,
    Edit::CopyRange,
    Edit::DuplicateRecord,
    Edit::SwapRecords,
    Edit::ChangeLength,
    Edit::Remove,
    Edit::CopyFile,
    Edit::Replace,
    Edit::Sign,
];

/// Numbers at which fields go wrong.
const EDGES: [u64; 8] = [
    0,
    1,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    1 << 32,
    u32::MAX as u64,
    1 << 14,
];

/// Applies the rest of the input. Returns what was done.
pub(super) fn apply(
    input: &mut Input<'_>,
    files: &mut Files,
    damageable: fn(&str) -> bool,
) -> Vec<Edit> {
    let mut done = Vec::new();
    while !input.is_empty() && done.len() < MOST_EDITS {
        done.push(one(input, files, damageable));
    }
    done
}

fn one(input: &mut Input<'_>, files: &mut Files, damageable: fn(&str) -> bool) -> Edit {
    let what = ALL[usize::from(input.u8()) % ALL.len()];
    let names: Vec<String> = files
        .keys()
        .filter(|name| damageable(name))
        .cloned()
        .collect();
    let Some(name) = names.get(usize::from(input.u8()) % names.len().max(1)) else {
        return Edit::Nothing;
    };
    match what {
        Edit::Remove => drop(files.remove(name)),
        Edit::CopyFile => copy_file(input, files, name),
        Edit::CopyRange => copy_range(input, files, &names, name),
        _ => {
            let bytes = files.get_mut(name).expect("the name comes from the files");
            match what {
                Edit::DuplicateRecord | Edit::SwapRecords | Edit::ChangeLength => {
                    return with_records(what, input, bytes);
                }
                Edit::Sign => sign(input, name, bytes),
                _ => return in_bytes(what, input, bytes),
            }
        }
    }
    what
}

/// Most places are in what is used of a file.
fn place(input: &mut Input<'_>, bytes: &[u8]) -> usize {
    let at = usize::from(input.u16());
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    // The page of a segment's header is mostly padding.
    let padding = signed::SEGMENT_HEADER - 64;
    let at = at % (used + 64);
    if used > signed::SEGMENT_HEADER && (64..padding).contains(&at) {
        return at % 64;
    }
    at
}

fn in_bytes(what: Edit, input: &mut Input<'_>, bytes: &mut Vec<u8>) -> Edit {
    let at = place(input, bytes);
    let length = usize::from(input.u8());
    let end = (at + length).min(bytes.len());
    match what {
        Edit::Flip => match bytes.get_mut(at) {
            Some(byte) => *byte ^= 1 << (length % 8),
            None => return Edit::Nothing,
        },
        Edit::Overwrite => {
            let new = input.bytes(length.min(16));
            for (old, new) in bytes.iter_mut().skip(at).zip(new) {
                *old = new;
            }
        }
        Edit::Zero => bytes.get_mut(at..end).unwrap_or_default().fill(0),
        Edit::Cut => bytes.truncate(at),
        Edit::Grow => bytes.resize((bytes.len() + length * 8).min(LARGEST_FILE), 0),
        // Whatever follows becomes the file.
        _ => {
            let mut new = input.bytes(LARGEST_FILE);
            if length % 2 == 0 {
                // Behind a header that is right.
                let header = signed::SEGMENT_HEADER.min(bytes.len());
                new.truncate(bytes.len() - header);
                bytes[header..header + new.len()].copy_from_slice(&new);
            } else {
                *bytes = new;
            }
        }
    }
    what
}

fn copy_range(input: &mut Input<'_>, files: &mut Files, names: &[String], from: &str) {
    let to = &names[usize::from(input.u8()) % names.len()];
    let source = files[from].clone();
    let at = place(input, &source);
    let piece = &source[at.min(source.len())
        ..(at + 8 * usize::from(input.u8()))
            .min(source.len())
            .max(at.min(source.len()))];
    let target = files.get_mut(to).expect("the name comes from the files");
    let at = place(input, target).min(target.len());
    let room = piece.len().min(target.len() - at);
    target[at..at + room].copy_from_slice(&piece[..room]);
}

/// The file under another name of its kind.
fn copy_file(input: &mut Input<'_>, files: &mut Files, from: &str) {
    let (number, move_it) = (u64::from(input.u8() % 48), input.u8().is_multiple_of(2));
    let to = if from.ends_with(".snap") {
        format!("snapshot-{number:016x}-{:016x}.snap", input.u8() % 4)
    } else {
        format!("log-{:016x}.seg", number % 8)
    };
    let content = files[from].clone();
    if move_it {
        files.remove(from);
    }
    files.insert(to, content);
}

fn with_records(what: Edit, input: &mut Input<'_>, bytes: &mut [u8]) -> Edit {
    let records = signed::records(bytes);
    let one = records.get(usize::from(input.u8()) % records.len().max(1));
    let other = records.get(usize::from(input.u8()) % records.len().max(1));
    let (Some(&one), Some(&other), Some(&last)) = (one, other, records.last()) else {
        return Edit::Nothing;
    };
    let end = |at: usize| {
        let end = signed::record_end(bytes, at).unwrap_or(at);
        end.next_multiple_of(8).min(bytes.len())
    };
    let (one, other, behind) = (one..end(one), other..end(other), end(last));
    match what {
        Edit::DuplicateRecord => {
            let room = one.len().min(bytes.len() - behind);
            bytes.copy_within(one.start..one.start + room, behind);
        }
        Edit::SwapRecords => {
            let (first, second) = (bytes[one.clone()].to_vec(), bytes[other.clone()].to_vec());
            let room = first.len().min(second.len());
            bytes[one.start..one.start + room].copy_from_slice(&second[..room]);
            bytes[other.start..other.start + room].copy_from_slice(&first[..room]);
        }
        _ => {
            let edge = EDGES[usize::from(input.u8()) % EDGES.len()] as u32;
            bytes[one.start + 4..one.start + 8].copy_from_slice(&edge.to_le_bytes());
        }
    }
    what
}

/// Sets a field to an edge and makes the checksum right again.
fn sign(input: &mut Input<'_>, name: &str, bytes: &mut [u8]) {
    let (which, field) = (usize::from(input.u8()), usize::from(input.u8()));
    let edge = EDGES[usize::from(input.u8()) % EDGES.len()];
    let put = |bytes: &mut [u8], at: usize, width: usize| {
        if let Some(place) = bytes.get_mut(at..at + width) {
            place.copy_from_slice(&edge.to_le_bytes()[..width]);
        }
    };
    if let Some(generation) = signed::generation(name) {
        let records = signed::records(bytes);
        match records.get(which % (records.len() + 1)) {
            Some(&at) => {
                match field % 8 {
                    0 => bytes[at + 9] = (field / 8) as u8 % 10,
                    1 => put(bytes, at + 12, 4),
                    2 | 3 => put(bytes, at + 16, 8),
                    4 | 5 => put(bytes, at + 24, 8),
                    6 => put(bytes, at + 32, 1),
                    _ => put(bytes, at + 4, 4),
                }
                signed::sign_record(bytes, generation, at);
            }
            None => {
                put(bytes, [8, 32, 40, 16][field % 4], 8);
                signed::sign_segment(bytes);
            }
        }
    } else if name.ends_with(".snap") {
        put(bytes, 32 + 8 * (which % 16), 8);
        signed::sign_snapshot(bytes);
    } else {
        put(bytes, 8 + 8 * (which % 3), 8);
        signed::sign_identity(bytes);
    }
}
