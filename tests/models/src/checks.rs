//! The models, what may befall each, and what is expected to be found.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    accede::{Accede, Planted},
    e3pc::E3pc,
    explorer::{Explored, Model, explore},
    limits::{self, Faults},
    rules::Finding,
    skeen::{Fault, Skeen},
    two_phase::TwoPhase,
};

/// A model and what it must come to.
struct Check {
    name: &'static str,
    nodes: String,
    faults: String,
    expected: Option<Finding>,
    run: Box<dyn Fn() -> Explored + Sync>,
}

fn check<M: Model + Sync + 'static>(
    name: &'static str,
    nodes: &str,
    faults: &str,
    expected: Option<Finding>,
    model: M,
) -> Check {
    Check {
        name,
        nodes: nodes.to_owned(),
        faults: faults.to_owned(),
        expected,
        run: Box::new(move || explore(&model, limits::STATES)),
    }
}

fn two_phase() -> Vec<Check> {
    let nodes = format!("1 coordinator, {} participants", limits::PARTICIPANTS);
    let two_phase = |name, faults, expected, comes_back| {
        check(name, &nodes, faults, expected, TwoPhase { comes_back })
    };
    vec![
        two_phase("2pc", "messages late, repeated, lost; crashes", None, true),
        two_phase(
            "2pc, its coordinator stays down",
            "its crash, nothing else",
            Some(Finding::Blocked),
            false,
        ),
    ]
}

fn skeen() -> Vec<Check> {
    let nodes = format!("1 coordinator, {} participants", limits::PARTICIPANTS);
    let skeen =
        |name, faults, expected, fault| check(name, &nodes, faults, expected, Skeen { fault });
    vec![
        skeen(
            "textbook 3pc",
            "crashes that are noticed",
            None,
            Fault::None,
        ),
        skeen(
            "textbook 3pc, orders cut short",
            "crashes that are noticed, also between two orders",
            Some(Finding::Tear),
            Fault::CutShort,
        ),
        skeen(
            "textbook 3pc, partition",
            "crashes that are noticed, one partition",
            Some(Finding::Tear),
            Fault::Partition,
        ),
    ]
}

fn e3pc() -> Vec<Check> {
    let nodes = format!("{} nodes", limits::E3PC_NODES);
    let e3pc = |name, expected, goes_by_newest_attempt, faults: Faults| {
        let model = E3pc {
            goes_by_newest_attempt,
            faults,
        };
        check(name, &nodes, &faults.text(), expected, model)
    };
    let tear = Some(Finding::Tear);
    vec![
        e3pc("e3pc", None, true, limits::E3PC_OVERTAKEN),
        e3pc("e3pc, crashes", None, true, limits::E3PC_CRASHED),
        e3pc(
            "e3pc, planted: any pre-commit counts",
            tear,
            false,
            limits::E3PC_OVERTAKEN,
        ),
    ]
}

fn accede() -> Vec<Check> {
    let accede = |name, coordinators, expected, planted, faults: Faults| {
        let nodes = match coordinators {
            1 => format!("1 coordinator, {} participants", limits::BRANCHES),
            n => format!("{n} coordinators, {} participants", limits::BRANCHES),
        };
        let model = Accede {
            coordinators,
            planted,
            faults,
        };
        check(name, &nodes, &faults.text(), expected, model)
    };
    let correct = |name, nodes, faults| accede(name, nodes, None, Planted::Nothing, faults);
    let tears = |name, planted| {
        accede(
            name,
            3,
            Some(Finding::Tear),
            planted,
            limits::ACCEDE_OVERTAKEN,
        )
    };
    vec![
        correct("accede", 3, limits::ACCEDE_OVERTAKEN),
        correct("accede, crashes", 3, limits::ACCEDE_CRASHED),
        correct("accede, one coordinator", 1, limits::ACCEDE_ALONE),
        tears(
            "accede, planted: aborts on silence",
            Planted::AbortOnSilence,
        ),
        tears("accede, planted: no read barrier", Planted::NoReadBarrier),
        tears(
            "accede, planted: revocable pre-commit",
            Planted::RevocablePreCommit,
        ),
        tears(
            "accede, planted: commits before pre-commit",
            Planted::CommitBeforePreCommit,
        ),
        accede(
            "accede, planted: waits for every vote",
            1,
            Some(Finding::Blocked),
            Planted::NoExpiry,
            limits::ACCEDE_ALONE,
        ),
    ]
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The protocol, and what is particular about this variant of it.
    pub model: &'static str,
    /// Who takes part.
    pub nodes: String,
    /// What may go wrong.
    pub faults: String,
    /// Different states seen.
    pub states: usize,
    /// Steps to the farthest of them.
    pub depth: usize,
    /// All states were seen, or all up to a tear.
    pub whole: bool,
    /// What must be found; `None`: nothing may be.
    pub expected: Option<Finding>,
    /// What was found, if anything was.
    pub found: Option<Finding>,
    /// How it comes about, step by step, in a shortest way.
    pub trace: Vec<String>,
    /// The state at the end of the trace.
    pub end: Option<String>,
    /// Whether all is as it must be.
    pub as_expected: bool,
}

impl Check {
    fn report(&self) -> Report {
        let explored = (self.run)();
        let story = explored.worst;
        let found = story.as_ref().map(|story| story.finding);
        let (trace, end) = story.map(|story| (story.steps, story.end)).unzip();
        Report {
            model: self.name,
            nodes: self.nodes.clone(),
            faults: self.faults.clone(),
            states: explored.states,
            depth: explored.depth,
            whole: explored.whole,
            expected: self.expected,
            found,
            trace: trace.unwrap_or_default(),
            end,
            as_expected: explored.whole && found == self.expected,
        }
    }
}

/// Explores every model, on all cores.
#[must_use]
pub fn explore_all() -> Vec<Report> {
    let checks: Vec<Check> = [two_phase(), skeen(), e3pc(), accede()]
        .into_iter()
        .flatten()
        .collect();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    let work = || {
        loop {
            let place = next.fetch_add(1, Relaxed);
            let Some(check) = checks.get(place) else {
                return;
            };
            let report = check.report();
            reports
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((place, report));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(place, _)| *place);
    reports.into_iter().map(|(_, report)| report).collect()
}
