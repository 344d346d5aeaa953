//! Reproducible choices.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A source of choices that the same seed repeats.
pub(in crate::store) struct Random(StdRng);

impl Random {
    pub(in crate::store) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number below `limit`.
    pub(in crate::store) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    /// True once in `times`.
    pub(in crate::store) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(in crate::store) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
