//! What happens in one case, drawn from its seed.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::script::MOST_POLLS;

/// How a saga is kept from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The step cannot be done: nobody has begun it.
    Refused,
    /// It is rolled back before the step is begun.
    RolledBack,
    /// It is rolled back when the step is done, which nobody has heard.
    Unheard,
    /// It is rolled back while the step is under way, at this moment: the compensation overtakes
    /// the step or meets it.
    Overtaken(usize),
}

/// One saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// Which plan it has.
    pub(super) number: u64,
    /// What happens when a step is ordered, as so many were before it.
    pub(super) trouble: Option<(u32, Trouble)>,
}

/// How an order comes before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Whoever has it dies at this moment.
    Dies(usize),
    /// It is carried out, and nobody hears the answer.
    Lost,
    /// It comes to two at the same time.
    Twice,
    /// Whoever has it dies at this moment, and the time for an answer passes. Of steps only.
    TimesOut(usize),
}

/// Draws what happens.
pub(super) struct Chance(StdRng);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// The sagas of a case; `longest` is the number of steps of its longest plan.
    pub(super) fn scripts(&mut self, longest: usize) -> Vec<Script> {
        let count = self.0.random_range(1..=2);
        (0..count).map(|n| self.script(n, longest)).collect()
    }

    fn script(&mut self, number: u64, longest: usize) -> Script {
        let at = self.0.random_range(0..longest.max(1)) as u32;
        let trouble = match self.0.random_range(0..10) {
            0..=3 => None,
            4 | 5 => Some(Trouble::Refused),
            6 => Some(Trouble::RolledBack),
            7 => Some(Trouble::Unheard),
            _ => Some(Trouble::Overtaken(self.polls())),
        };
        Script {
            number,
            trouble: trouble.map(|trouble| (at, trouble)),
        }
    }

    fn polls(&mut self) -> usize {
        self.0.random_range(1..=MOST_POLLS)
    }

    /// What happens to an order before it is answered.
    pub(super) fn deliveries(&mut self, runs: bool) -> Vec<Delivery> {
        let count = self.0.random_range(0..=2);
        let drawn = (0..count).map(|_| match self.0.random_range(0..8) {
            0..=2 => Delivery::Dies(self.polls()),
            3 | 4 => Delivery::Lost,
            5 if runs => Delivery::TimesOut(self.polls()),
            _ => Delivery::Twice,
        });
        drawn.collect()
    }

    /// One of so many.
    pub(super) fn one_of(&mut self, count: usize) -> usize {
        self.0.random_range(0..count.max(1))
    }

    /// So often in a hundred.
    pub(super) fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_same_story_again() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            let scripts = chance.scripts(3);
            (scripts, chance.deliveries(true), chance.percent(50))
        };
        for seed in 0..50 {
            assert_eq!(draw(seed), draw(seed));
        }
        let troubles: Vec<_> = (0..200)
            .flat_map(|seed| Chance::new(seed).scripts(3))
            .map(|script| script.trouble.map(|(_, trouble)| trouble))
            .collect();
        assert!(troubles.contains(&None));
        assert!(troubles.contains(&Some(Trouble::Refused)));
        assert!(troubles.contains(&Some(Trouble::RolledBack)));
        assert!(troubles.contains(&Some(Trouble::Unheard)));
        let overtaken = |trouble: &Option<_>| matches!(trouble, Some(Trouble::Overtaken(_)));
        assert!(troubles.iter().any(overtaken));
    }
}
