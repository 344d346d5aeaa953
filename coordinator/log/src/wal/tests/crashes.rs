//! Random lives with crashes, compared with what was acknowledged.

use proptest::prelude::*;

use super::{all, append, entry, filled, now, open, records, segment};
use crate::sim::{Faults, SimFs};
use crate::wal::queue::Wal;
use crate::wal::{LogEntry, Mark};

/// One step of a random life.
#[derive(Clone, Debug)]
enum Step {
    Append { entries: usize, bytes: usize },
    Truncate { back: u64 },
    Purge { back: u64 },
    Committed,
    Crash { power_off_after: u64, kill: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..5_usize, 0..3000_usize).prop_map(|(entries, bytes)| Step::Append { entries, bytes }),
        1 => (0..6_u64).prop_map(|back| Step::Truncate { back }),
        1 => (0..20_u64).prop_map(|back| Step::Purge { back }),
        1 => Just(Step::Committed),
        2 => (0..40_u64, any::<bool>())
            .prop_map(|(power_off_after, kill)| Step::Crash { power_off_after, kill }),
    ]
}

/// What must be found again (`sure`) and what may be (`tail`: asked for, never acknowledged).
#[derive(Default)]
struct Expected {
    first: u64,
    sure: Vec<LogEntry>,
    tail: Vec<LogEntry>,
    term: u64,
    purging: Option<u64>,
    truncating: Option<usize>,
}

impl Expected {
    fn next(&self) -> u64 {
        self.first + self.sure.len() as u64
    }

    /// Compares with what a reopened log holds, and takes that as the truth from now on.
    fn check(&mut self, wal: &Wal) {
        let found = all(wal);
        let found_first = found.first().map_or(self.next(), |entry| entry.index);
        let mut firsts = vec![self.first];
        firsts.extend(self.purging.map(|upto| upto + 1));
        let skipped = (found_first.saturating_sub(self.first) as usize).min(self.sure.len());
        if !found.is_empty() && found_first < self.next() {
            assert!(
                firsts.contains(&found_first),
                "starts at {found_first}, {firsts:?}"
            );
        }
        let mut could_be = self.sure.clone();
        could_be.extend(self.tail.iter().cloned());
        let could_be = &could_be[skipped..];
        assert!(
            found.len() <= could_be.len(),
            "{} found, {} asked",
            found.len(),
            could_be.len()
        );
        assert_eq!(found, could_be[..found.len()], "order or content changed");
        let must = self
            .truncating
            .unwrap_or(self.sure.len())
            .saturating_sub(skipped);
        if self.purging.is_none() {
            assert!(
                found.len() >= must,
                "{} found, {must} were acknowledged",
                found.len()
            );
        }
        *self = Self {
            first: found_first,
            sure: found,
            term: self.term + 1,
            ..Self::default()
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_life_with_crashes_keeps_what_was_acknowledged(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        live(seed, &steps);
    }
}

fn live(seed: u64, steps: &[Step]) {
    let mut fs = SimFs::new(seed);
    let mut wal = open(&fs).unwrap();
    let mut expected = Expected {
        term: 1,
        ..Expected::default()
    };
    for step in steps {
        match *step {
            Step::Append { entries, bytes } => {
                let from = expected.next();
                let batch: Vec<_> = (from..from + entries as u64)
                    .map(|index| entry(expected.term, index, bytes))
                    .collect();
                if append(&wal, batch.clone()) {
                    expected.sure.extend(batch);
                } else {
                    expected.tail = batch;
                    // Killed before its forced write, or the whole machine went.
                    let kill = from.is_multiple_of(2);
                    (fs, wal) = reopen(&fs, wal, kill, &mut expected);
                }
            }
            Step::Truncate { back } => {
                let keep = expected.sure.len().saturating_sub(back as usize).max(1);
                let Some(last) = expected.sure.get(keep - 1) else {
                    continue;
                };
                let mark = Mark {
                    term: last.term,
                    index: last.index,
                };
                if now(wal.truncate(Some(mark))).is_ok() {
                    expected.sure.truncate(keep);
                    expected.term += 1;
                } else {
                    expected.truncating = Some(keep);
                    (fs, wal) = reopen(&fs, wal, keep.is_multiple_of(2), &mut expected);
                }
            }
            Step::Purge { back } => {
                let gone = expected.sure.len().saturating_sub(back as usize + 1);
                if gone == 0 {
                    continue;
                }
                let last = &expected.sure[gone - 1];
                let mark = Mark {
                    term: last.term,
                    index: last.index,
                };
                if now(wal.purge(mark)).is_ok() {
                    expected.first = mark.index + 1;
                    expected.sure.drain(..gone);
                } else {
                    expected.purging = Some(mark.index);
                    (fs, wal) = reopen(&fs, wal, gone.is_multiple_of(2), &mut expected);
                }
            }
            Step::Committed => {
                let last = expected.sure.last();
                wal.save_committed(last.map(|e| Mark {
                    term: e.term,
                    index: e.index,
                }));
            }
            Step::Crash {
                power_off_after: 0,
                kill,
            } => {
                (fs, wal) = reopen(&fs, wal, kill, &mut expected);
            }
            Step::Crash {
                power_off_after, ..
            } => {
                let at = fs.operations() + power_off_after;
                let short_writes = (power_off_after.is_multiple_of(3)).then_some(2);
                fs.set_faults(Faults {
                    power_off_at: Some(at),
                    short_writes,
                    ..Faults::default()
                });
            }
        }
    }
    drop(reopen(&fs, wal, false, &mut expected));
}

fn reopen(fs: &SimFs, wal: Wal, kill: bool, expected: &mut Expected) -> (SimFs, Wal) {
    drop(wal);
    let fs = if kill { fs.kill() } else { fs.crash() };
    let wal = open(&fs).unwrap();
    expected.check(&wal);
    (fs, wal)
}

/// The power goes at every single operation of a first start, and of a start that repairs a torn
/// tail. The next start must succeed and find the same.
#[test]
fn a_crash_at_any_moment_of_a_start_is_harmless() {
    for torn in [false, true] {
        let mut at = 0;
        loop {
            let (fs, sure) = if torn {
                let (fs, entries) = filled(at, 6, 40);
                let from = records(&fs)[3].0;
                fs.damage(&segment(1), |content| content[from + 5] ^= 0xff)
                    .unwrap();
                (fs, entries[..3].to_vec())
            } else {
                (SimFs::new(at), Vec::new())
            };
            let power_off_at = fs.operations() + at;
            fs.set_faults(Faults {
                power_off_at: Some(power_off_at),
                ..Faults::default()
            });
            let finished = open(&fs).is_ok() && fs.operations() <= power_off_at;
            let fs = fs.crash();
            let wal = open(&fs).unwrap_or_else(|e| panic!("power off at {at}: {e}"));
            assert_eq!(all(&wal), sure, "power off at {at}");
            if finished {
                break;
            }
            at += 1;
        }
        assert!(at > 5, "the start took {at} operations only");
    }
}
