//! One function from bytes to a number, the same on every replica and in every run: where a key
//! lies in a hash table, and a digest that tells two requests apart.
//!
//! The digests are part of snapshots, so it must not change. The tables are never iterated, so
//! nothing depends on it there but speed. It is not keyed: a client that may register branches
//! could slow a table down on purpose, as it could by asking for millions of locks; the limits
//! bound both.

use core::hash::{BuildHasherDefault, Hasher};

/// A hash table with this module's function.
pub(crate) type HashMap<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<Folded>>;

/// Digits of pi: odd, with about as many ones as zeros.
const FIRST: u64 = 0x243f_6a88_85a3_08d3;
const SECOND: u64 = 0x1319_8a2e_0370_7345;

/// Multiplies and folds the upper half of the product into the lower one, eight bytes at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Folded(u64);

impl Default for Folded {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Folded {
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(SECOND);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length keeps trailing zeros apart from none.
        self.add(u64::from_le_bytes(last) ^ (bytes.len() as u64).rotate_left(56));
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }

    fn finish(&self) -> u64 {
        // Both ends must vary: tables take the place from one and a tag from the other.
        self.0.wrapping_mul(FIRST).rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};
    use core::hash::{BuildHasher as _, Hash};

    use super::*;
    use crate::id::{LockKey, Xid};

    fn hash(value: &impl Hash) -> u64 {
        BuildHasherDefault::<Folded>::default().hash_one(value)
    }

    #[test]
    fn neighbours_lie_apart() {
        let xids = (1..=4096_u64).map(|n| hash(&Xid::new(n << 13).expect("not zero")));
        let hashes: Vec<u64> = xids.collect();
        let low: BTreeSet<u64> = hashes.iter().map(|h| h & 0xffff).collect();
        let high: BTreeSet<u64> = hashes.iter().map(|h| h >> 57).collect();
        assert!(low.len() > 3800, "{} places of 4096", low.len());
        assert_eq!(high.len(), 128, "all tags are used");
    }

    #[test]
    fn it_never_changes() {
        let mut digest = Folded::default();
        digest.write_u64(1);
        digest.write(b"order-db");
        assert_eq!(digest.finish(), 6_111_171_412_030_154_873);
    }

    #[test]
    fn every_byte_and_the_length_count() {
        let long: Vec<u8> = (1..=40).collect();
        let mut all = BTreeSet::new();
        for length in 0..=long.len() {
            assert!(all.insert(hash(&LockKey::from(&long[..length]))));
            assert!(all.insert(hash(&LockKey::from(alloc::vec![0; length + 1]))));
        }
        for place in 0..long.len() {
            let mut other = long.clone();
            other[place] ^= 0x80;
            assert!(all.insert(hash(&LockKey::from(other))));
        }
    }
}
