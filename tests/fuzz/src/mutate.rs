//! Seeded damage to bytes.

use crate::Random;

/// Numbers at which lengths and counts go wrong.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0x81, 0xfe, 0xff, 0x40];

/// `bytes` with one to four pieces of damage; splices take from `other`.
#[must_use]
pub fn mutate(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        damage(random, &mut out, other);
    }
    out
}

fn damage(random: &mut Random, out: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(out.len());
    let span = at..out.len().min(at + random.below(64));
    match random.below(8) {
        // Cuts: the end, or a piece in the middle.
        0 => out.truncate(at),
        1 => drop(out.drain(span)),
        // Splices: the other's end behind our beginning, or a piece of it in the middle.
        2 => {
            out.truncate(at);
            out.extend_from_slice(&other[random.below(other.len())..]);
        }
        3 => {
            let from = random.below(other.len());
            let piece = &other[from..other.len().min(from + random.below(64))];
            drop(out.splice(at..at, piece.iter().copied()));
        }
        // A piece twice.
        4 => {
            let piece = out[span.clone()].to_vec();
            drop(out.splice(span.start..span.start, piece));
        }
        // A byte at an edge, as lengths and tags are; sometimes a long number.
        5 => {
            let edge = EDGES[random.below(EDGES.len())];
            let count = if random.below(4) == 0 { 8 } else { 1 };
            out.iter_mut().skip(at).take(count).for_each(|b| *b = edge);
        }
        // One more or less.
        6 => {
            if let Some(byte) = out.get_mut(at) {
                *byte = byte.wrapping_add(if random.below(2) == 0 { 1 } else { 0xff });
            }
        }
        _ => {
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}
