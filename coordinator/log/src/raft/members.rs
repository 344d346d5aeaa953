//! The bytes of a membership: part of the on-disk format.
//!
//! `u32` number of voter sets (two while they change), each a `u32` count and `u64` ids; then a
//! `u32` number of nodes, each a `u64` id, a `u32` length and that many bytes of address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::impls::BasicNode;

use super::types::Members;

pub(crate) fn encode(members: &Members) -> Vec<u8> {
    let mut out = Vec::new();
    let sets = members.get_joint_config();
    out.extend_from_slice(&(sets.len() as u32).to_le_bytes());
    for set in sets {
        out.extend_from_slice(&(set.len() as u32).to_le_bytes());
        for id in set {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }
    let nodes: Vec<_> = members.nodes().collect();
    out.extend_from_slice(&(nodes.len() as u32).to_le_bytes());
    for (id, node) in nodes {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&(node.addr.len() as u32).to_le_bytes());
        out.extend_from_slice(node.addr.as_bytes());
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> io::Result<Members> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a membership cannot be read");
    let mut rest = bytes;
    let (sets, nodes) = parts(&mut rest)
        .filter(|_| rest.is_empty())
        .ok_or_else(invalid)?;
    if sets.is_empty() {
        return Ok(Members::default());
    }
    Members::new(sets, nodes).map_err(io::Error::other)
}

type Parts = (Vec<BTreeSet<u64>>, BTreeMap<u64, BasicNode>);

fn parts(rest: &mut &[u8]) -> Option<Parts> {
    let mut sets = Vec::new();
    for _ in 0..count(rest)? {
        let mut set = BTreeSet::new();
        for _ in 0..count(rest)? {
            set.insert(number(rest)?);
        }
        sets.push(set);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..count(rest)? {
        let id = number(rest)?;
        let length = count(rest)? as usize;
        let addr = std::str::from_utf8(take(rest, length)?).ok()?;
        nodes.insert(id, BasicNode::new(addr));
    }
    Some((sets, nodes))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn count(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_le_bytes)
}
