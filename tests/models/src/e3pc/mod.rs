//! E3PC, the quorum-based three-phase commit of Keidar and Dolev: whoever leads attempts a
//! pre-commit or a pre-abort under the number of its election, and decides once a majority has
//! taken the attempt. Each node keeps two numbers, of the last election that it took part in and of
//! the last attempt that it took; a later leader goes by the nodes with the newest attempt.
//!
//! Elections are numbered by whoever begins one, one above the last that it knows of; who has
//! joined one with that number or a higher one does not join. The network falls apart in any way,
//! in that messages come late or never; what is under way stays so until all of it is lost.

mod nodes;

use std::fmt;

use nodes::{Election, FIRST_LEADER, MAJORITY, Message, NODES, Node, Phase, Report, State};

use crate::{
    explorer::{Model, Next},
    limits::Faults,
    rules::{Outcome, Party},
};

/// E3PC, every node a participant.
pub(crate) struct E3pc {
    /// Off in a variant that must tear: any pre-commit that a leader hears of is gone by, however
    /// old the attempt.
    pub(crate) goes_by_newest_attempt: bool,
    pub(crate) faults: Faults,
}

/// Nodes are numbered from 0 here, from 1 in what is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    VoteYes(usize),
    AbortAlone(usize),
    BeginElection(usize, u8),
    RepeatElection(usize),
    Join(usize, Election),
    /// With the reports of the nodes in this set of bits, its own among them.
    Attempt(usize, Outcome, u8),
    RepeatAttempt(usize),
    Take(usize, Election),
    Decide(usize, Outcome),
    Tell(usize),
    Hear(usize, Outcome),
    LoseMessages,
    Crash(usize),
    Restart(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VoteYes(n) => write!(f, "node {} votes yes", n + 1),
            Self::AbortAlone(n) => write!(f, "node {} has not voted and aborts", n + 1),
            Self::BeginElection(n, k) => write!(f, "node {} begins election {k}", n + 1),
            Self::RepeatElection(n) => write!(f, "node {} asks once more to be joined", n + 1),
            Self::Join(n, e) => {
                write!(
                    f,
                    "node {} joins election {} of node {}",
                    n + 1,
                    e.number,
                    e.leader + 1
                )
            }
            Self::Attempt(n, outcome, who) => {
                let who: Vec<_> = (0..NODES).filter(|at| who & (1 << at) != 0).collect();
                let who: Vec<_> = who.iter().map(|at| (at + 1).to_string()).collect();
                let (who, what) = (who.join(", "), attempt_name(outcome));
                write!(
                    f,
                    "node {} knows of nodes [{who}] and attempts a {what}",
                    n + 1
                )
            }
            Self::RepeatAttempt(n) => write!(f, "node {} repeats its attempt", n + 1),
            Self::Take(n, e) => {
                let (number, leader) = (e.number, e.leader + 1);
                write!(
                    f,
                    "node {} takes the attempt of election {number} of node {leader}",
                    n + 1
                )
            }
            Self::Decide(n, outcome) => {
                write!(
                    f,
                    "node {} has a majority and has {}",
                    n + 1,
                    decision_name(outcome)
                )
            }
            Self::Tell(n) => write!(f, "node {} tells all what is decided", n + 1),
            Self::Hear(n, outcome) => {
                write!(
                    f,
                    "node {} hears it and has {}",
                    n + 1,
                    decision_name(outcome)
                )
            }
            Self::LoseMessages => f.write_str("all messages under way are lost"),
            Self::Crash(n) => write!(f, "node {} crashes", n + 1),
            Self::Restart(n) => write!(f, "node {} restarts", n + 1),
        }
    }
}

fn attempt_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "pre-commit",
        Outcome::Aborted => "pre-abort",
    }
}

fn decision_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "committed",
        Outcome::Aborted => "aborted",
    }
}

fn add(next: &mut Next<E3pc>, from: &State, step: Step, change: impl FnOnce(&mut State)) {
    next.add(from, step, |state| {
        change(state);
        state.prune();
    });
}

impl E3pc {
    /// What a leader attempts who knows of these nodes, if they are a majority.
    fn attempt(&self, known: &[Report]) -> Outcome {
        let newest = known.iter().map(|r| r.attempt).max().unwrap_or(0);
        let is_pre_commit = |r: &Report| r.phase == Phase::Attempted(Outcome::Committed);
        let mut of_newest = known.iter().filter(|r| r.attempt == newest);
        let commits = if self.goes_by_newest_attempt {
            of_newest.all(is_pre_commit)
        } else {
            known.iter().any(is_pre_commit)
        };
        if commits {
            Outcome::Committed
        } else {
            Outcome::Aborted
        }
    }

    fn leader_steps(&self, state: &State, at: usize, next: &mut Next<Self>) {
        let node = &state.nodes[at];
        let election = node.elected;
        if election.number > 1 {
            add(next, state, Step::RepeatElection(at), |s| {
                s.send(Message::Elect(election))
            });
        }
        if let (Phase::Attempted(outcome), true) = (node.phase, node.attempt == election.number) {
            add(next, state, Step::RepeatAttempt(at), |s| {
                s.send(Message::Attempt(election, outcome));
                s.send(Message::Taken { election, from: at });
            });
            let took =
                |m: &&Message| matches!(m, Message::Taken { election: e, .. } if *e == election);
            if state.messages.iter().filter(took).count() >= MAJORITY {
                add(next, state, Step::Decide(at, outcome), |s| {
                    s.decide(at, outcome)
                });
            }
            return;
        }
        let attempts = if election.number == 1 {
            let yes = |m: &&Message| matches!(m, Message::Yes { .. });
            let all = state.messages.iter().filter(yes).count() == NODES;
            Vec::from_iter(all.then_some((Outcome::Committed, (1 << NODES) - 1)))
        } else {
            self.possible_attempts(state, at, next)
        };
        for (outcome, who) in attempts {
            add(next, state, Step::Attempt(at, outcome, who), |s| {
                s.take(at, outcome);
                s.send(Message::Attempt(election, outcome));
            });
        }
    }

    /// One for each majority that the leader may have heard of. A decision that one of them
    /// reports is taken over at once.
    fn possible_attempts(
        &self,
        state: &State,
        at: usize,
        next: &mut Next<Self>,
    ) -> Vec<(Outcome, u8)> {
        let reports = state.reports(at);
        let mut attempts = Vec::new();
        if let Some(outcome) = reports.iter().find_map(|r| r.phase.outcome()) {
            add(next, state, Step::Decide(at, outcome), |s| {
                s.decide(at, outcome)
            });
        }
        for chosen in 1_u8..(1 << reports.len()) {
            let is_chosen = |place: &usize| chosen & (1 << place) != 0;
            let places = (0..reports.len()).filter(is_chosen);
            let known: Vec<Report> = places.map(|place| reports[place]).collect();
            let who = known.iter().fold(0_u8, |who, r| who | (1 << r.from));
            // One that voted between two reports is still one node.
            let once = who.count_ones() as usize == known.len();
            let undecided = known.iter().all(|r| r.phase.outcome().is_none());
            if is_chosen(&0) && once && known.len() >= MAJORITY && undecided {
                attempts.push((self.attempt(&known), who));
            }
        }
        attempts
    }

    fn node_steps(&self, state: &State, at: usize, next: &mut Next<Self>) {
        let node = &state.nodes[at];
        if !node.is_up {
            add(next, state, Step::Restart(at), |s| s.nodes[at].is_up = true);
            return;
        }
        if state.crashes > 0 {
            add(next, state, Step::Crash(at), |s| {
                s.crashes -= 1;
                (s.nodes[at].is_up, s.nodes[at].leads) = (false, false);
            });
        }
        if let Some(outcome) = node.phase.outcome() {
            add(next, state, Step::Tell(at), |s| {
                s.send(Message::Decided(outcome))
            });
        } else {
            Self::election_steps(state, at, next);
            if node.phase == Phase::Working {
                add(next, state, Step::AbortAlone(at), |s| {
                    s.decide(at, Outcome::Aborted)
                });
            }
            if matches!(node.phase, Phase::Working | Phase::VotedYes) {
                // A second time it repeats its vote.
                add(next, state, Step::VoteYes(at), |s| {
                    s.nodes[at].phase = Phase::VotedYes;
                    s.send(Message::Yes { from: at });
                });
            }
            if node.leads {
                self.leader_steps(state, at, next);
            }
        }
        for message in &state.messages {
            Self::receive(state, at, *message, next);
        }
    }

    fn election_steps(state: &State, at: usize, next: &mut Next<Self>) {
        let is_needless = state.has_leader();
        if is_needless && state.needless_elections == 0 {
            return;
        }
        let number = state.nodes[at].elected.number + 1;
        add(next, state, Step::BeginElection(at, number), |s| {
            s.needless_elections -= u8::from(is_needless);
            let election = Election { number, leader: at };
            (s.nodes[at].elected, s.nodes[at].leads) = (election, true);
            s.send(Message::Elect(election));
        });
    }

    fn receive(state: &State, at: usize, message: Message, next: &mut Next<Self>) {
        let node = &state.nodes[at];
        let is_open = node.phase.outcome().is_none();
        match message {
            Message::Elect(e) => {
                if at != e.leader && node.may_join(e) {
                    let (from, phase, attempt) = (at, node.phase, node.attempt);
                    add(next, state, Step::Join(at, e), |s| {
                        let n = &mut s.nodes[at];
                        (n.elected, n.leads) = (e, false);
                        let report = Report {
                            from,
                            phase,
                            attempt,
                        };
                        s.send(Message::Report(e, report));
                    });
                }
            }
            Message::Attempt(e, outcome) if is_open && e == node.elected && e.leader != at => {
                add(next, state, Step::Take(at, e), |s| s.take(at, outcome));
            }
            Message::Decided(outcome) if is_open => {
                let hear = |s: &mut State| s.nodes[at].phase = Phase::Decided(outcome);
                add(next, state, Step::Hear(at, outcome), hear);
            }
            // Leaders look for what they wait for among the messages under way.
            Message::Yes { .. }
            | Message::Report(..)
            | Message::Taken { .. }
            | Message::Attempt(..)
            | Message::Decided(_) => {}
        }
    }
}

impl Model for E3pc {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let node = |leads| Node {
            is_up: true,
            phase: Phase::Working,
            elected: Election {
                number: 1,
                leader: FIRST_LEADER,
            },
            attempt: 0,
            leads,
        };
        State {
            nodes: std::array::from_fn(|at| node(at == FIRST_LEADER)),
            messages: Vec::new(),
            needless_elections: self.faults.needless_elections,
            crashes: self.faults.crashes,
        }
    }

    fn steps(&self, state: &State, next: &mut Next<Self>) {
        if state.nodes.iter().all(|n| n.phase.outcome().is_some()) {
            return;
        }
        for at in 0..NODES {
            self.node_steps(state, at, next);
        }
        if self.faults.loses_messages {
            add(next, state, Step::LoseMessages, |s| s.messages.clear());
        }
    }

    fn parties(&self, state: &State) -> Vec<Party> {
        let party = |n: &Node| Party {
            decided: n.phase.outcome(),
            said_yes: n.phase != Phase::Working,
        };
        state.nodes.iter().map(party).collect()
    }

    /// Without a majority nobody has to decide.
    fn has_ended(&self, state: &State) -> bool {
        let up = || state.nodes.iter().filter(|n| n.is_up);
        up().count() < MAJORITY || up().all(|n| n.phase.outcome().is_some())
    }

    fn helps(&self, state: &State, step: Step) -> bool {
        match step {
            Step::LoseMessages | Step::Crash(_) | Step::Restart(_) => false,
            Step::BeginElection(..) => !state.has_leader(),
            Step::VoteYes(_)
            | Step::AbortAlone(_)
            | Step::RepeatElection(_)
            | Step::Join(..)
            | Step::Attempt(..)
            | Step::RepeatAttempt(_)
            | Step::Take(..)
            | Step::Decide(..)
            | Step::Tell(_)
            | Step::Hear(..) => true,
        }
    }

    fn describe(&self, state: &State) -> String {
        let node = |(at, n): (usize, &Node)| {
            let down = if n.is_up { "" } else { ", down" };
            let (phase, elected, attempt) = (n.phase, n.elected.number, n.attempt);
            let numbers = format!("last elected {elected}, last attempt {attempt}");
            format!("node {} {phase:?}, {numbers}{down}", at + 1)
        };
        let nodes: Vec<String> = state.nodes.iter().enumerate().map(node).collect();
        nodes.join("; ")
    }
}
