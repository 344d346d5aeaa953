//! What a transaction will do, drawn when it begins.

use std::collections::BTreeSet;

use accede_core::Mode;

use super::saga::SagaScript;
use crate::{
    outside::Outside,
    random::Random,
    work::{Change, Work},
};

/// The whole plan of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) ending: Ending,
    /// Goes on when a part was not done.
    pub(super) ignores_failures: bool,
    pub(super) timeout_ms: u32,
    /// What the coordinator does for it before the end.
    pub(super) saga: Option<SagaScript>,
}

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Parts that run at the same time.
    Work(Vec<Work>),
    /// A transaction of its own in between.
    Nested(Box<Script>),
    Pause(u64),
}

/// What its client asks for in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    RollBack,
    /// Nothing: the time-out ends it.
    Silence,
    /// First that its saga is done.
    Saga,
}

impl Script {
    pub(super) fn draw(out: &mut Outside, depth: u32) -> Self {
        let (databases, rows) = (out.plan.databases as u64, out.plan.rows as u64);
        let crowded = out.plan.crowded;
        let random = &mut out.random;
        let mut steps = Vec::new();
        // Some transactions are made of promises for the most part, most have none.
        let promises = match crowded {
            true => 0,
            false => *random.pick(&[0, 0, 0, 300, 800]).unwrap_or(&0),
        };
        for _ in 0..random.between(1, 3) {
            let parts = if random.chance(250) { 2 } else { 1 };
            let work = (0..parts).map(|_| match random.chance(promises) {
                true => draw_promise(random, databases),
                false => draw_work(random, databases, rows),
            });
            let mut work: Vec<Work> = work.collect();
            // Branches of one transaction are undone in the reverse of the order in which they
            // registered, so those that change one row must commit locally in that order.
            if work.len() == 1 || crowded {
                change_different_rows(&mut work);
                for part in &mut work {
                    let chance = if crowded { 700 } else { 150 };
                    part.registers_first =
                        !part.only_reads && part.promises.is_none() && random.chance(chance);
                }
            }
            steps.push(Step::Work(work));
            if random.chance(300) {
                steps.push(Step::Pause(random.between(1, 600)));
            }
            if depth == 0 && random.chance(80) {
                steps.push(Step::Nested(Box::new(Self::draw(out, depth + 1))));
                return Self::ended(out, steps);
            }
        }
        Self::ended(out, steps)
    }

    fn ended(out: &mut Outside, steps: Vec<Step>) -> Self {
        let random = &mut out.random;
        let ending = match random.below(20) {
            0..=14 => Ending::Commit,
            15..=18 => Ending::RollBack,
            _ => Ending::Silence,
        };
        let timeout_ms = if random.chance(150) {
            random.between(100, 2_000)
        } else {
            random.between(4_000, 25_000)
        };
        let in_order = steps.iter().any(
            |step| matches!(step, Step::Work(work) if work.iter().any(|work| work.registers_first)),
        );
        let ignores_failures = random.chance(150) && !in_order;
        // Crowded worlds are about rows.
        let may_be = ending == Ending::Commit && !out.plan.crowded;
        let saga = may_be && out.random.chance(300);
        Self {
            steps,
            ending,
            ignores_failures,
            timeout_ms: timeout_ms as u32,
            saga: saga.then(|| SagaScript::draw(out)),
        }
    }
}

/// Of the rows that several parts would change, the first changes them and the others read them.
fn change_different_rows(parts: &mut [Work]) {
    let mut changed = BTreeSet::new();
    for part in parts {
        for (row, change) in &mut part.rows {
            if changed.contains(&(part.database, *row)) {
                *change = Change::Read;
            }
        }
        let rows = part.rows.iter();
        let rows = rows.filter(|(_, change)| *change != Change::Read);
        changed.extend(rows.map(|(row, _)| (part.database, *row)));
    }
}

fn draw_promise(random: &mut Random, databases: u64) -> Work {
    let database = random.below(databases) as usize;
    let modes = [Mode::ThreePhase, Mode::ThreePhase, Mode::Tcc, Mode::Xa];
    Work {
        database,
        promises: random.pick(&modes).copied(),
        rows: Vec::new(),
        only_reads: false,
        registers_first: false,
        wait_limit_ms: 0,
        pause_ms: 0,
    }
}

fn draw_work(random: &mut Random, databases: u64, rows: u64) -> Work {
    let only_reads = random.chance(150);
    // The first rows are hot, and the last one, which is changed in escrow.
    let row = |random: &mut Random| {
        let row = match random.below(20) {
            0..=8 => random.below(2.min(rows)),
            9..=12 => rows - 1,
            _ => random.below(rows),
        };
        row as usize
    };
    let mut changes: Vec<(usize, Change)> = Vec::new();
    for _ in 0..random.between(1, 3) {
        let row = row(random);
        let small = random.below(31) as i64 - 15;
        let change = match random.below(12) {
            0..=1 => Change::Read,
            2..=4 if row + 1 == rows as usize => Change::Add(small),
            _ if row + 1 == rows as usize => Change::Escrow(small),
            2 => Change::Insert(random.below(1000) as i64),
            3 => Change::Delete,
            _ => Change::Add(random.below(200) as i64 - 100),
        };
        changes.push((row, change));
    }
    // Most code takes its locks in one order, some does not.
    if random.chance(700) {
        changes.sort_by_key(|(row, _)| *row);
    }
    let wait_limit_ms = match random.below(10) {
        0 => 0,
        1..=3 => random.between(50, 800),
        _ => random.between(800, 6_000),
    };
    Work {
        database: random.below(databases) as usize,
        promises: None,
        rows: changes,
        only_reads,
        registers_first: false,
        wait_limit_ms: wait_limit_ms as u32,
        pause_ms: if random.chance(100) {
            random.between(1, 500)
        } else {
            0
        },
    }
}
