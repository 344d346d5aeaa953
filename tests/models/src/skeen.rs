//! Three-phase commit as in the textbooks, after Skeen: whoever waits too long acts alone. Before
//! it has seen the pre-commit it aborts, afterwards it commits.
//!
//! This rests on more than messages that are in time: a time-out must mean that the other side is
//! down, and an order goes to all participants or, if its sender crashes, to none. Where the second
//! is not so, or the network falls apart, decisions tear.

use std::fmt;

use crate::{
    explorer::{Model, Next},
    limits,
    rules::{Outcome, Party},
};

/// Textbook three-phase commit.
pub(crate) struct Skeen {
    pub(crate) fault: Fault,
}

/// What may happen besides crashes and restarts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The coordinator crashes when it has told some participants and not others.
    CutShort,
    /// Participants are cut off from the coordinator, once, and may be joined again.
    Partition,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    coordinator: Coordinator,
    participants: Vec<Participant>,
    was_cut: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Coordinator {
    is_up: bool,
    phase: Phase,
}

/// Voting is the coordinator's Waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Working,
    Waiting,
    PreCommitted,
    Committed,
    Aborted,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Participant {
    is_up: bool,
    /// It was down; what it missed it must ask for, and time-outs tell it nothing.
    is_back: bool,
    /// It is on the other side of a partition.
    is_cut_off: bool,
    phase: Phase,
    /// Under way to it, in order: the phase that the coordinator wants it to take.
    orders: Vec<Phase>,
    /// Under way from it: the phase that it has taken.
    reply: Option<Phase>,
    /// The coordinator knows of its yes, then of its pre-commit.
    known: Phase,
}

/// Participants are numbered from 0 here, from 1 in what is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    VoteYes(usize),
    VoteNo(usize),
    Follow(usize, Phase),
    HearReply(usize, Phase),
    Advance(Phase),
    /// As above, but only those in this set of bits are told before a crash.
    AdvanceInPart(Phase, u8),
    TimeOut(usize, Phase),
    AskPeers(usize),
    CrashCoordinator,
    RestartCoordinator,
    Crash(usize),
    Restart(usize),
    /// Those in this set of bits are cut off.
    CutOff(u8),
    Heal,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VoteYes(p) => write!(f, "participant {} is asked and votes yes", p + 1),
            Self::VoteNo(p) => write!(f, "participant {} is asked, votes no and aborts", p + 1),
            Self::Follow(p, phase) => write!(f, "participant {} is told: {}", p + 1, phase.name()),
            Self::HearReply(p, phase) => {
                let what = phase.name();
                write!(
                    f,
                    "the coordinator hears from participant {}: {what}",
                    p + 1
                )
            }
            Self::Advance(phase) => {
                write!(
                    f,
                    "the coordinator tells all participants: {}",
                    phase.name()
                )
            }
            Self::AdvanceInPart(phase, told) => {
                let (who, what) = (numbers(told), phase.name());
                write!(
                    f,
                    "the coordinator tells only participants [{who}]: {what}, and crashes"
                )
            }
            Self::TimeOut(p, phase) => {
                write!(
                    f,
                    "participant {} hears nothing and acts alone: {}",
                    p + 1,
                    phase.name()
                )
            }
            Self::AskPeers(p) => write!(f, "participant {} asks one who has decided", p + 1),
            Self::CrashCoordinator => f.write_str("the coordinator crashes"),
            Self::RestartCoordinator => f.write_str("the coordinator restarts"),
            Self::Crash(p) => write!(f, "participant {} crashes", p + 1),
            Self::Restart(p) => write!(f, "participant {} restarts", p + 1),
            Self::CutOff(who) => {
                write!(
                    f,
                    "participants [{}] are cut off from the coordinator",
                    numbers(who)
                )
            }
            Self::Heal => f.write_str("the network is whole again"),
        }
    }
}

fn numbers(bits: u8) -> String {
    let numbers = (0..8).filter(|at| bits & (1 << at) != 0);
    let numbers: Vec<String> = numbers.map(|at| (at + 1).to_string()).collect();
    numbers.join(", ")
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Working => "has not voted",
            Self::Waiting => "yes",
            Self::PreCommitted => "pre-commit",
            Self::Committed => "commit",
            Self::Aborted => "abort",
        }
    }

    fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Committed => Some(Outcome::Committed),
            Self::Aborted => Some(Outcome::Aborted),
            Self::Working | Self::Waiting | Self::PreCommitted => None,
        }
    }

    /// What one does alone who hears nothing any more.
    fn alone(self) -> Self {
        match self {
            Self::Working | Self::Waiting | Self::Aborted => Self::Aborted,
            Self::PreCommitted | Self::Committed => Self::Committed,
        }
    }
}

impl Participant {
    /// The coordinator does not wait for it any more.
    fn is_gone(&self) -> bool {
        !self.is_up || self.is_back || (self.is_cut_off && self.reply.is_none())
    }

    fn take(&mut self, phase: Phase) {
        self.phase = phase;
        self.reply = Some(phase).filter(|_| phase.outcome().is_none() && !self.is_cut_off);
        if phase.outcome().is_some() {
            self.orders.clear();
        }
    }

    fn drop_messages(&mut self) {
        self.orders.clear();
        self.reply = None;
    }
}

impl State {
    /// The coordinator takes a phase and sends it to the participants in the set of bits.
    fn advance(&mut self, phase: Phase, told: u8) {
        self.coordinator.phase = phase;
        for (at, p) in self.participants.iter_mut().enumerate() {
            let reachable = p.is_up && !p.is_cut_off && p.phase.outcome().is_none();
            if reachable && told & (1 << at) != 0 && p.orders.last() != Some(&phase) {
                p.orders.push(phase);
            }
        }
    }

    fn all(&self) -> u8 {
        (1 << self.participants.len()) - 1
    }

    /// The phases into which the coordinator may go on.
    fn next_phases(&self) -> Vec<Phase> {
        let heard = |wanted| self.participants.iter().all(|p| p.known == wanted);
        let missed = |wanted| {
            let mut missing = self.participants.iter().filter(|p| p.known != wanted);
            missing.all(Participant::is_gone)
        };
        match self.coordinator.phase {
            Phase::Waiting if heard(Phase::Waiting) => vec![Phase::PreCommitted],
            Phase::Waiting => {
                let refused = self.participants.iter().any(|p| p.known == Phase::Aborted);
                let gives_up = refused || missed(Phase::Waiting);
                Vec::from_iter(gives_up.then_some(Phase::Aborted))
            }
            Phase::PreCommitted => {
                Vec::from_iter(missed(Phase::PreCommitted).then_some(Phase::Committed))
            }
            Phase::Working | Phase::Committed | Phase::Aborted => Vec::new(),
        }
    }
}

impl Skeen {
    fn coordinator_steps(&self, state: &State, next: &mut Next<Self>) {
        if !state.coordinator.is_up {
            next.add(state, Step::RestartCoordinator, |s| {
                s.coordinator.is_up = true;
                let phase = s.coordinator.phase.alone();
                s.advance(phase, s.all());
            });
            return;
        }
        next.add(state, Step::CrashCoordinator, |s| {
            s.coordinator.is_up = false
        });
        for phase in state.next_phases() {
            next.add(state, Step::Advance(phase), |s| s.advance(phase, s.all()));
            if self.fault != Fault::CutShort {
                continue;
            }
            for told in 1..state.all() {
                next.add(state, Step::AdvanceInPart(phase, told), |s| {
                    s.advance(phase, told);
                    s.coordinator.is_up = false;
                });
            }
        }
        for (at, p) in state.participants.iter().enumerate() {
            if let Some(reply) = p.reply {
                next.add(state, Step::HearReply(at, reply), |s| {
                    (s.participants[at].known, s.participants[at].reply) = (reply, None);
                });
            }
        }
    }

    fn participant_steps(state: &State, at: usize, next: &mut Next<Self>) {
        let p = &state.participants[at];
        if !p.is_up {
            next.add(state, Step::Restart(at), |s| {
                let p = &mut s.participants[at];
                (p.is_up, p.is_back) = (true, true);
                if p.phase == Phase::Working {
                    p.take(Phase::Aborted);
                }
            });
            return;
        }
        if p.phase.outcome().is_some() {
            return;
        }
        next.add(state, Step::Crash(at), |s| {
            s.participants[at].is_up = false;
            s.participants[at].drop_messages();
        });
        if let Some(&order) = p.orders.first() {
            Self::order_steps(state, at, order, next);
        }
        let cut = p.is_cut_off || !state.coordinator.is_up;
        if cut && p.orders.is_empty() && !p.is_back {
            let phase = p.phase.alone();
            next.add(state, Step::TimeOut(at, phase), |s| {
                s.participants[at].take(phase)
            });
        }
        if p.is_back {
            let side = |cut_off| p.is_cut_off == cut_off;
            let coordinator =
                Some(state.coordinator.phase).filter(|_| state.coordinator.is_up && side(false));
            let peers = state
                .participants
                .iter()
                .filter(|q| q.is_up && side(q.is_cut_off));
            let mut phases = peers.map(|q| q.phase).chain(coordinator);
            if let Some(phase) = phases.find(|phase| phase.outcome().is_some()) {
                next.add(state, Step::AskPeers(at), |s| {
                    s.participants[at].take(phase)
                });
            }
        }
    }

    fn order_steps(state: &State, at: usize, order: Phase, next: &mut Next<Self>) {
        let follow = |phase| {
            move |s: &mut State| {
                let p = &mut s.participants[at];
                p.orders.remove(0);
                p.take(phase);
            }
        };
        if order == Phase::Waiting {
            next.add(state, Step::VoteYes(at), follow(Phase::Waiting));
            next.add(state, Step::VoteNo(at), |s| {
                follow(Phase::Aborted)(s);
                s.participants[at].reply = Some(Phase::Aborted);
            });
        } else {
            next.add(state, Step::Follow(at, order), follow(order));
        }
    }

    fn partition_steps(state: &State, next: &mut Next<Self>) {
        if state.participants.iter().any(|p| p.is_cut_off) {
            next.add(state, Step::Heal, |s| {
                for p in &mut s.participants {
                    p.is_cut_off = false;
                }
            });
        } else if !state.was_cut {
            for who in 1..=state.all() {
                next.add(state, Step::CutOff(who), |s| {
                    s.was_cut = true;
                    for (at, p) in s.participants.iter_mut().enumerate() {
                        if who & (1 << at) != 0 {
                            p.is_cut_off = true;
                            p.drop_messages();
                        }
                    }
                });
            }
        }
    }
}

impl Model for Skeen {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let participant = Participant {
            is_up: true,
            is_back: false,
            is_cut_off: false,
            phase: Phase::Working,
            orders: vec![Phase::Waiting],
            reply: None,
            known: Phase::Working,
        };
        State {
            coordinator: Coordinator {
                is_up: true,
                phase: Phase::Waiting,
            },
            participants: vec![participant; limits::PARTICIPANTS],
            was_cut: false,
        }
    }

    fn steps(&self, state: &State, next: &mut Next<Self>) {
        self.coordinator_steps(state, next);
        for at in 0..state.participants.len() {
            Self::participant_steps(state, at, next);
        }
        if self.fault == Fault::Partition {
            Self::partition_steps(state, next);
        }
    }

    fn parties(&self, state: &State) -> Vec<Party> {
        let mut parties = vec![Party {
            decided: state.coordinator.phase.outcome(),
            said_yes: true,
        }];
        parties.extend(state.participants.iter().map(|p| Party {
            decided: p.phase.outcome(),
            said_yes: p.phase != Phase::Working,
        }));
        parties
    }

    fn canonical(&self, state: &State) -> State {
        let mut state = state.clone();
        state.participants.sort();
        state
    }

    /// One who was down and is back may have nobody left to ask; all others must decide.
    fn has_ended(&self, state: &State) -> bool {
        let mut participants = state.participants.iter();
        participants.all(|p| !p.is_up || p.is_back || p.phase.outcome().is_some())
    }

    fn helps(&self, _: &State, step: Step) -> bool {
        match step {
            Step::VoteYes(_)
            | Step::VoteNo(_)
            | Step::Follow(..)
            | Step::HearReply(..)
            | Step::Advance(_)
            | Step::TimeOut(..)
            | Step::AskPeers(_) => true,
            Step::AdvanceInPart(..)
            | Step::CrashCoordinator
            | Step::RestartCoordinator
            | Step::Crash(_)
            | Step::Restart(_)
            | Step::CutOff(_)
            | Step::Heal => false,
        }
    }

    fn describe(&self, state: &State) -> String {
        let down = |is_up: bool| if is_up { "" } else { ", down" };
        let c = &state.coordinator;
        let mut text = format!("coordinator {:?}{}", c.phase, down(c.is_up));
        for (at, p) in state.participants.iter().enumerate() {
            text += &format!("; participant {} {:?}{}", at + 1, p.phase, down(p.is_up));
            if p.is_cut_off {
                text += ", cut off";
            }
        }
        text
    }
}
