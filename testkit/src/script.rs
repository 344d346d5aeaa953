//! What happens in one case, drawn from its seed.

use std::fmt;

use accede_core::Decision;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// How many polls a future may get before its agent dies. Tries take some ten.
pub(crate) const MOST_POLLS: usize = 14;

/// What becomes of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is left alone.
    Undisturbed,
    /// Its agent dies at this moment.
    Dies(usize),
    /// The transaction is rolled back at this moment, and its cancel overtakes the try or meets it.
    Late(usize),
}

/// How an order comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Its agent dies at this moment.
    Dies(usize),
    /// It comes, and is heard of.
    Once,
    /// It comes to two agents at the same time.
    Twice,
}

/// One transaction with one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// Which arguments it is called with.
    pub(crate) number: u64,
    pub(crate) fate: Fate,
    /// What is asked for, if the try succeeds.
    pub(crate) wanted: Decision,
    pub(crate) deliveries: Vec<Delivery>,
    /// Its order comes once more when everything is over.
    pub(crate) echo: bool,
    /// A participant of 3PC hears nothing any more after it heard of its commit.
    pub(crate) silence: bool,
}

/// Transactions that share what they work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) scripts: Vec<Script>,
    /// They end in the reverse order of their tries.
    pub(crate) reversed: bool,
}

impl Case {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..=2);
        let mut scripts: Vec<_> = (0..count).map(|n| Script::draw(&mut random, n)).collect();
        let reversed = random.random_bool(0.5);
        for script in &mut scripts {
            script.silence = random.random_bool(0.3);
        }
        Self { scripts, reversed }
    }
}

impl Script {
    fn draw(random: &mut StdRng, number: u64) -> Self {
        let fate = match random.random_range(0..10) {
            0..=4 => Fate::Undisturbed,
            5..=7 => Fate::Dies(random.random_range(1..=MOST_POLLS)),
            _ => Fate::Late(random.random_range(1..=MOST_POLLS)),
        };
        let wanted = match random.random_bool(0.6) {
            true => Decision::Commit,
            false => Decision::RollBack,
        };
        let deliveries = (0..random.random_range(0..=3)).map(|_| match random.random_range(0..4) {
            0 | 1 => Delivery::Dies(random.random_range(1..=MOST_POLLS)),
            2 => Delivery::Once,
            _ => Delivery::Twice,
        });
        Self {
            number,
            fate,
            wanted,
            deliveries: deliveries.collect(),
            echo: random.random_bool(0.5),
            silence: false,
        }
    }

    /// One that nothing disturbs.
    pub(crate) fn undisturbed(number: u64, wanted: Decision) -> Self {
        Self {
            number,
            fate: Fate::Undisturbed,
            wanted,
            deliveries: Vec::new(),
            echo: false,
            silence: false,
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = match self.wanted {
            Decision::Commit => "commits",
            Decision::RollBack => "rolls back",
        };
        let fate = match self.fate {
            Fate::Undisturbed => "is tried".to_owned(),
            Fate::Dies(polls) => format!("is tried by an agent that dies after step {polls}"),
            Fate::Late(polls) => format!("is cancelled while step {polls} of its try is done"),
        };
        write!(f, "transaction {}: {fate}; then it {wanted}", self.number)?;
        for delivery in &self.deliveries {
            match delivery {
                Delivery::Dies(polls) => {
                    write!(f, "; ordered to an agent that dies after step {polls}")?;
                }
                Delivery::Once => f.write_str("; ordered")?,
                Delivery::Twice => f.write_str("; ordered to two agents at once")?,
            }
        }
        if self.silence {
            f.write_str("; in 3PC nothing is heard after the pre-commit")?;
        }
        f.write_str(if self.echo {
            "; ordered to its end, and again"
        } else {
            "; ordered to its end"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_same_story_again() {
        for seed in 0..50 {
            assert_eq!(Case::draw(seed), Case::draw(seed));
        }
        let fates: Vec<Fate> = (0..200)
            .flat_map(|seed| Case::draw(seed).scripts)
            .map(|script| script.fate)
            .collect();
        assert!(fates.contains(&Fate::Undisturbed));
        assert!(fates.iter().any(|fate| matches!(fate, Fate::Dies(_))));
        assert!(fates.iter().any(|fate| matches!(fate, Fate::Late(_))));
    }
}
