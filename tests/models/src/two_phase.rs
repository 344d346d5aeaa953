//! Two-phase commit: one coordinator, who decides when all have voted, and participants who ask
//! it, and each other, when they hear nothing.
//!
//! Messages come late, never, or several times: who has sent one may be asked for it again, so a
//! message stays under way until all that is under way is lost. Losing less is no step of its own:
//! a message that comes too late for ever shows the same, and more messages help to an end.

use std::fmt;

use crate::{
    explorer::{Model, Next},
    limits,
    rules::{Outcome, Party},
};

/// Two-phase commit with presumed abort and cooperative termination.
pub(crate) struct TwoPhase {
    /// A coordinator that is down comes back some day. Else nothing but its crash goes wrong.
    pub(crate) comes_back: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    coordinator: Coordinator,
    participants: Vec<Participant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Coordinator {
    is_up: bool,
    /// Counts votes; after a restart it does not any more.
    counts: bool,
    /// Durable.
    decided: Option<Outcome>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Participant {
    is_up: bool,
    /// Durable.
    phase: Phase,
    /// Under way to it: the request to vote.
    asked: bool,
    /// Under way from it: its yes.
    yes: bool,
    /// Under way to it.
    told: Option<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    Working,
    VotedYes,
    Decided(Outcome),
}

/// Participants are numbered from 0 here, from 1 in what is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    VoteYes(usize),
    AbortAlone(usize),
    RepeatYes(usize),
    Decide(Outcome),
    Tell,
    /// The first asks the second.
    AskPeer(usize, usize),
    Hear(usize),
    LoseMessages,
    CrashCoordinator,
    RestartCoordinator,
    Crash(usize),
    Restart(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VoteYes(p) => write!(f, "participant {} is asked and votes yes", p + 1),
            Self::AbortAlone(p) => write!(f, "participant {} has not voted and aborts", p + 1),
            Self::RepeatYes(p) => write!(f, "participant {} hears nothing, votes yes again", p + 1),
            Self::Decide(Outcome::Committed) => {
                f.write_str("the coordinator has every yes and decides to commit")
            }
            Self::Decide(Outcome::Aborted) => f.write_str("the coordinator decides to abort"),
            Self::Tell => f.write_str("the coordinator tells all what it has decided"),
            Self::AskPeer(p, q) => write!(f, "participant {} asks participant {}", p + 1, q + 1),
            Self::Hear(p) => write!(f, "participant {} hears the decision", p + 1),
            Self::LoseMessages => f.write_str("all messages under way are lost"),
            Self::CrashCoordinator => f.write_str("the coordinator crashes"),
            Self::RestartCoordinator => f.write_str("the coordinator restarts"),
            Self::Crash(p) => write!(f, "participant {} crashes", p + 1),
            Self::Restart(p) => write!(f, "participant {} restarts", p + 1),
        }
    }
}

impl Participant {
    fn decide(&mut self, outcome: Outcome) {
        (self.phase, self.asked, self.told) = (Phase::Decided(outcome), false, None);
    }

    fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Decided(_))
    }
}

impl TwoPhase {
    fn coordinator_steps(state: &State, next: &mut Next<Self>) {
        let c = &state.coordinator;
        if !c.is_up {
            next.add(state, Step::RestartCoordinator, |s| {
                s.coordinator.is_up = true
            });
            return;
        }
        next.add(state, Step::CrashCoordinator, |s| {
            (s.coordinator.is_up, s.coordinator.counts) = (false, false);
        });
        let decide = |outcome| move |s: &mut State| s.coordinator.decided = Some(outcome);
        match c.decided {
            None => {
                let step = Step::Decide(Outcome::Aborted);
                next.add(state, step, decide(Outcome::Aborted));
                if c.counts && state.participants.iter().all(|p| p.yes) {
                    let step = Step::Decide(Outcome::Committed);
                    next.add(state, step, decide(Outcome::Committed));
                }
            }
            Some(outcome) => next.add(state, Step::Tell, |s| {
                for p in s.participants.iter_mut().filter(|p| p.is_open()) {
                    p.told = Some(outcome);
                }
            }),
        }
    }

    fn participant_steps(&self, state: &State, at: usize, next: &mut Next<Self>) {
        let p = &state.participants[at];
        if !p.is_up {
            next.add(state, Step::Restart(at), |s| {
                s.participants[at].is_up = true
            });
            return;
        }
        if !p.is_open() {
            // It only answers any more; who cannot be asked is one whose answers come late.
            return;
        }
        if self.comes_back {
            next.add(state, Step::Crash(at), |s| s.participants[at].is_up = false);
        }
        if let Some(outcome) = p.told {
            next.add(state, Step::Hear(at), |s| {
                s.participants[at].decide(outcome)
            });
        }
        if p.phase == Phase::Working {
            next.add(state, Step::AbortAlone(at), |s| {
                s.participants[at].decide(Outcome::Aborted)
            });
            if p.asked {
                next.add(state, Step::VoteYes(at), |s| {
                    let p = &mut s.participants[at];
                    (p.phase, p.asked, p.yes) = (Phase::VotedYes, false, true);
                });
            }
            return;
        }
        next.add(state, Step::RepeatYes(at), |s| {
            s.participants[at].yes = true
        });
        for (peer, q) in state.participants.iter().enumerate() {
            if peer != at && q.is_up && q.phase != Phase::VotedYes {
                next.add(state, Step::AskPeer(at, peer), |s| ask_peer(s, at, peer));
            }
        }
    }
}

/// A peer that has not voted aborts, so that it can give an answer.
fn ask_peer(state: &mut State, at: usize, peer: usize) {
    let q = &mut state.participants[peer];
    if q.phase == Phase::Working {
        q.decide(Outcome::Aborted);
    }
    if let Phase::Decided(outcome) = q.phase {
        state.participants[at].told = Some(outcome);
    }
}

impl Model for TwoPhase {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let participant = Participant {
            is_up: true,
            phase: Phase::Working,
            asked: true,
            yes: false,
            told: None,
        };
        State {
            coordinator: Coordinator {
                is_up: true,
                counts: true,
                decided: None,
            },
            participants: vec![participant; limits::PARTICIPANTS],
        }
    }

    fn steps(&self, state: &State, next: &mut Next<Self>) {
        for at in 0..state.participants.len() {
            self.participant_steps(state, at, next);
        }
        Self::coordinator_steps(state, next);
        if self.comes_back {
            next.add(state, Step::LoseMessages, |s| {
                for p in &mut s.participants {
                    (p.asked, p.yes, p.told) = (false, false, None);
                }
            });
        }
    }

    fn parties(&self, state: &State) -> Vec<Party> {
        let mut parties = vec![Party {
            decided: state.coordinator.decided,
            said_yes: true,
        }];
        parties.extend(state.participants.iter().map(|p| Party {
            decided: match p.phase {
                Phase::Decided(outcome) => Some(outcome),
                Phase::Working | Phase::VotedYes => None,
            },
            said_yes: p.phase != Phase::Working,
        }));
        parties
    }

    fn canonical(&self, state: &State) -> State {
        let mut state = state.clone();
        state.participants.sort();
        state
    }

    fn has_ended(&self, state: &State) -> bool {
        let mut participants = state.participants.iter();
        participants.all(|p| !p.is_up || !p.is_open())
    }

    fn helps(&self, _: &State, step: Step) -> bool {
        match step {
            Step::LoseMessages | Step::CrashCoordinator | Step::Crash(_) | Step::Restart(_) => {
                false
            }
            Step::RestartCoordinator => self.comes_back,
            Step::VoteYes(_)
            | Step::AbortAlone(_)
            | Step::RepeatYes(_)
            | Step::Decide(_)
            | Step::Tell
            | Step::AskPeer(..)
            | Step::Hear(_) => true,
        }
    }

    fn describe(&self, state: &State) -> String {
        let mut text = String::from("coordinator ");
        text += match (state.coordinator.is_up, state.coordinator.decided) {
            (false, _) => "down",
            (true, None) => "undecided",
            (true, Some(Outcome::Committed)) => "committed",
            (true, Some(Outcome::Aborted)) => "aborted",
        };
        for (at, p) in state.participants.iter().enumerate() {
            text += &format!("; participant {} ", at + 1);
            text += match p.phase {
                Phase::Working => "has not voted",
                Phase::VotedYes => "has voted yes",
                Phase::Decided(Outcome::Committed) => "committed",
                Phase::Decided(Outcome::Aborted) => "aborted",
            };
            if !p.is_up {
                text += ", down";
            }
        }
        text
    }
}
