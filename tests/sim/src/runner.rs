//! Runs seeds: one with its trace, or many on all cores.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    oracle::Violation,
    trace::Trace,
    world::{Run, World},
};

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Run {
    run_with(seed, &Trace::new(false))
}

/// Runs one seed and tells its story: time, who, XID, what; the last line is the verdict.
#[must_use]
pub fn run_traced(seed: u64) -> (Run, String) {
    let trace = Trace::new(true);
    let run = run_with(seed, &trace);
    let mut story = trace.take();
    story.push_str(&verdict(seed, &run));
    story.push('\n');
    (run, story)
}

fn run_with(seed: u64, trace: &Trace) -> Run {
    let world = || World::new(seed, trace.clone()).run();
    catch_unwind(AssertUnwindSafe(world)).unwrap_or_else(|panic| {
        let violation = Violation {
            invariant: "no_panic",
            at_ms: 0,
            what: what_panicked(panic.as_ref()),
        };
        Run {
            violation: Some(violation),
            ..Run::default()
        }
    })
}

fn what_panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something panicked".to_owned())
}

/// One sentence about a run.
#[must_use]
pub fn verdict(seed: u64, run: &Run) -> String {
    match &run.violation {
        None => format!(
            "seed {seed}: all rules hold; {} transactions, {} faults, {} s of simulated time",
            run.transactions,
            run.faults,
            run.ended_at_ms / 1000
        ),
        Some(Violation {
            invariant,
            at_ms,
            what,
        }) => format!(
            "seed {seed}: {invariant} is broken at {}.{:03} s: {what}\n\
             repeat it with: ./dev sim --seed {seed}",
            at_ms / 1000,
            at_ms % 1000
        ),
    }
}

/// What came of many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs made.
    pub seeds: u64,
    /// Transactions that began in all of them.
    pub transactions: u64,
    /// Faults that struck in all of them.
    pub faults: u64,
    /// Runs in which nothing went wrong on purpose.
    pub harmless: u64,
    /// Seeds whose run broke a rule, in ascending order.
    pub broken: Vec<(u64, Run)>,
}

impl Summary {
    fn add(&mut self, seed: u64, run: Run) {
        self.seeds += 1;
        self.transactions += run.transactions;
        self.faults += run.faults;
        self.harmless += u64::from(run.faults == 0);
        if run.violation.is_some() {
            self.broken.push((seed, run));
        }
    }
}

/// Runs the seeds from `from` on all cores; `progress` hears how many are done. With
/// `stop_at_first` no new run begins once a rule was broken.
pub fn run_many(
    from: u64,
    count: u64,
    stop_at_first: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Summary {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let work = || {
        loop {
            let place = next.fetch_add(1, Relaxed);
            if place >= count || (stop_at_first && stop.load(Relaxed)) {
                return;
            }
            let run = run(from + place);
            if run.violation.is_some() {
                stop.store(true, Relaxed);
            }
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add(from + place, run);
            let (done, broken) = (summary.seeds, summary.broken.len() as u64);
            drop(summary);
            progress(done, broken);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.broken.sort_by_key(|(seed, _)| *seed);
    summary
}
