//! Accede's three-phase commit: the coordinator is a replicated log, `PreCommitted` is one of its
//! entries and irrevocable, and participants do alone what the table of `accede_core::alone` says.
//!
//! Messages come late, never, or several times; what is under way stays so until all of it is
//! lost. A leader keeps no votes: it decides when every yes is under way to it, and whoever gave
//! one repeats it. Time-outs come at any point.

mod branch;
mod entries;
mod log;

use std::fmt;

use branch::Branch;
use entries::Command;
use log::{Log, Status};

use accede_core::alone::{Knows, Phase};

use crate::{
    explorer::{Model, Next},
    limits::{self, Faults},
    rules::{Outcome, Party},
};

/// Accede's three-phase commit.
pub(crate) struct Accede {
    pub(crate) coordinators: usize,
    pub(crate) planted: Planted,
    pub(crate) faults: Faults,
}

/// A bug that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// A participant that voted yes and hears nothing aborts.
    AbortOnSilence,
    /// A coordinator answers from its own log.
    NoReadBarrier,
    /// A later leader may roll back a pre-committed transaction.
    RevocablePreCommit,
    /// A participant that voted yes and hears nothing commits.
    CommitBeforePreCommit,
    /// Coordinators wait for votes as long as it takes.
    NoExpiry,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    log: Log,
    branches: Vec<Branch>,
    needless_elections: u8,
    crashes: u8,
}

/// Coordinators and participants are numbered from 0 here, from 1 in what is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Propose(usize, Command),
    Replicate(usize, usize),
    Elect(usize, usize),
    /// A coordinator in office tells all participants what is decided.
    Order(usize, Status),
    /// A participant hears nothing and asks a coordinator, whose answer is under way.
    Answer(usize, usize, Status),
    VoteYes(usize),
    RepeatYes(usize),
    /// A participant knows this and goes on to that phase.
    GoOn(usize, Knows, Phase),
    LoseMessages,
    CrashCoordinator(usize),
    RestartCoordinator(usize),
    Crash(usize),
    Restart(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Propose(c, command) => {
                let what = match command {
                    Command::TakeOffice => "TakeOffice",
                    Command::Prepare => "Preparing",
                    Command::PreCommit => "PreCommitted, as every yes is there",
                    Command::Commit => "Committing",
                    Command::RollBack => "RollingBack",
                };
                write!(f, "coordinator {} appends {what}", c + 1)
            }
            Self::Replicate(c, to) => {
                write!(
                    f,
                    "coordinator {} copies its log to coordinator {}",
                    c + 1,
                    to + 1
                )
            }
            Self::Elect(c, voter) if c == voter => {
                write!(f, "coordinator {} leads a new term", c + 1)
            }
            Self::Elect(c, voter) => {
                let voter = voter + 1;
                write!(
                    f,
                    "coordinator {} leads a new term by the vote of {voter}",
                    c + 1
                )
            }
            Self::Order(c, status) => {
                write!(
                    f,
                    "coordinator {} tells all participants: {status:?}",
                    c + 1
                )
            }
            Self::Answer(c, p, status) => {
                let p = p + 1;
                write!(
                    f,
                    "participant {p} asks; coordinator {} answers: {status:?}",
                    c + 1
                )
            }
            Self::VoteYes(p) => write!(f, "participant {} is asked and votes yes", p + 1),
            Self::RepeatYes(p) => write!(f, "participant {} repeats its yes", p + 1),
            Self::GoOn(p, Knows::Silence, phase) => {
                write!(
                    f,
                    "participant {} hears nothing and acts alone: {phase:?}",
                    p + 1
                )
            }
            Self::GoOn(p, knows, phase) => {
                write!(f, "participant {} hears {knows:?}: {phase:?}", p + 1)
            }
            Self::LoseMessages => f.write_str("all messages under way are lost"),
            Self::CrashCoordinator(c) => write!(f, "coordinator {} crashes", c + 1),
            Self::RestartCoordinator(c) => write!(f, "coordinator {} restarts", c + 1),
            Self::Crash(p) => write!(f, "participant {} crashes", p + 1),
            Self::Restart(p) => write!(f, "participant {} restarts", p + 1),
        }
    }
}

impl Accede {
    fn coordinator_steps(&self, state: &State, at: usize, next: &mut Next<Self>) {
        let log = &state.log;
        if !log.nodes[at].is_up {
            next.add(state, Step::RestartCoordinator(at), |s| {
                s.log.nodes[at].is_up = true
            });
            return;
        }
        if state.crashes > 0 {
            next.add(state, Step::CrashCoordinator(at), |s| {
                s.crashes -= 1;
                s.log.crash(at);
            });
        }
        let all_yes = state.branches.iter().all(|b| b.yes);
        for command in log.proposals(at, all_yes, self.planted) {
            next.add(state, Step::Propose(at, command), |s| {
                s.log.propose(at, command)
            });
        }
        let is_needless = log.has_leader();
        for other in 0..log.nodes.len() {
            if log.can_replicate(at, other) {
                next.add(state, Step::Replicate(at, other), |s| {
                    s.log.replicate(at, other)
                });
            }
            if log.can_elect(at, other) && (!is_needless || state.needless_elections > 0) {
                next.add(state, Step::Elect(at, other), |s| {
                    s.needless_elections -= u8::from(is_needless);
                    s.log.elect(at, other);
                });
            }
        }
        self.tell_steps(state, at, next);
    }

    fn tell_steps(&self, state: &State, at: usize, next: &mut Next<Self>) {
        if let Some(status) = state.log.status_in_office(at, self.planted) {
            next.add(state, Step::Order(at, status), |s| {
                for branch in &mut s.branches {
                    branch.tell(status);
                }
            });
        }
        let answer = state.log.answer(at, self.planted);
        // An answer that nothing is decided changes nothing.
        let Some(status) = answer.filter(|status| status.outcome().is_some()) else {
            return;
        };
        for (asking, branch) in state.branches.iter().enumerate() {
            if branch.is_up && branch.phase == Phase::Prepared {
                let step = Step::Answer(at, asking, status);
                next.add(state, step, |s| s.branches[asking].tell(status));
            }
        }
    }

    fn branch_steps(&self, state: &State, at: usize, next: &mut Next<Self>) {
        let branch = &state.branches[at];
        if branch.has_ended() {
            return;
        }
        if !branch.is_up {
            next.add(state, Step::Restart(at), |s| s.branches[at].is_up = true);
            return;
        }
        // One down is enough for another not to wait for it.
        if self.faults.participants_crash && state.branches.iter().all(|b| b.is_up) {
            next.add(state, Step::Crash(at), |s| s.branches[at].is_up = false);
        }
        if branch.phase == Phase::Working && branch.asked {
            next.add(state, Step::VoteYes(at), |s| {
                s.branches[at].go_on(Phase::Prepared);
                s.branches[at].yes = true;
            });
        }
        if branch.phase == Phase::Prepared {
            next.add(state, Step::RepeatYes(at), |s| s.branches[at].yes = true);
        }
        for knows in branch.news().chain([Knows::Silence]) {
            if let Some(phase) = branch.next_phase(knows, self.planted) {
                let step = Step::GoOn(at, knows, phase);
                next.add(state, step, |s| s.branches[at].go_on(phase));
            }
        }
    }
}

impl Model for Accede {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        State {
            log: Log::new(self.coordinators),
            branches: vec![Branch::new(); limits::BRANCHES],
            needless_elections: self.faults.needless_elections,
            crashes: self.faults.crashes,
        }
    }

    fn steps(&self, state: &State, next: &mut Next<Self>) {
        // Nothing is left that could tear.
        if state.branches.iter().all(Branch::has_ended) {
            return;
        }
        for at in 0..self.coordinators {
            self.coordinator_steps(state, at, next);
        }
        for at in 0..state.branches.len() {
            self.branch_steps(state, at, next);
        }
        if self.faults.loses_messages {
            next.add(state, Step::LoseMessages, |s| {
                s.branches.iter_mut().for_each(Branch::lose_messages);
            });
        }
    }

    fn parties(&self, state: &State) -> Vec<Party> {
        state.branches.iter().map(Branch::party).collect()
    }

    fn canonical(&self, state: &State) -> State {
        let mut state = state.clone();
        state.log.nodes.sort();
        state.branches.sort();
        state
    }

    fn contradicts(&self, state: &State) -> bool {
        let log = state.log.outcomes(self.planted);
        let branches = state.branches.iter().filter_map(|b| b.party().decided);
        let mut outcomes: Vec<Outcome> = log.chain(branches).collect();
        outcomes.dedup();
        outcomes.len() > 1 || state.branches.iter().any(Branch::is_contradicted)
    }

    fn has_ended(&self, state: &State) -> bool {
        state.branches.iter().all(|b| !b.is_up || b.has_ended())
    }

    /// A majority of coordinators must do: others come back only if they are needed for one.
    /// No participant waits for another to come back.
    fn helps(&self, state: &State, step: Step) -> bool {
        match step {
            Step::LoseMessages | Step::CrashCoordinator(_) | Step::Crash(_) | Step::Restart(_) => {
                false
            }
            Step::RestartCoordinator(_) => !state.log.has_majority_up(),
            Step::Elect(..) => !state.log.has_leader(),
            Step::Propose(..)
            | Step::Replicate(..)
            | Step::Order(..)
            | Step::Answer(..)
            | Step::VoteYes(_)
            | Step::RepeatYes(_)
            | Step::GoOn(..) => true,
        }
    }

    fn describe(&self, state: &State) -> String {
        let mut text = state.log.describe(self.planted);
        for (at, branch) in state.branches.iter().enumerate() {
            text += &format!("; participant {} {}", at + 1, branch.describe());
        }
        text
    }
}
