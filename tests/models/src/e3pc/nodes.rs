//! The nodes of E3PC, what they know and what they say.

use crate::{limits, rules::Outcome};

pub(crate) const NODES: usize = limits::E3PC_NODES;
pub(crate) const MAJORITY: usize = NODES / 2 + 1;
/// Leads the attempt number 1; votes are for it.
pub(crate) const FIRST_LEADER: usize = 0;

/// All nodes, what is under way between them, and the faults that are left.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(crate) nodes: [Node; NODES],
    /// Under way; sorted, none twice.
    pub(crate) messages: Vec<Message>,
    pub(crate) needless_elections: u8,
    pub(crate) crashes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node {
    pub(crate) is_up: bool,
    /// Durable, as are the next two.
    pub(crate) phase: Phase,
    /// The last election that it took part in.
    pub(crate) elected: Election,
    /// The number of the last attempt that it took.
    pub(crate) attempt: u8,
    /// It leads `elected`.
    pub(crate) leads: bool,
}

/// Two leaders may have begun elections of the same number; at most one gets a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Election {
    pub(crate) number: u8,
    pub(crate) leader: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Working,
    VotedYes,
    /// It took an attempt towards this outcome.
    Attempted(Outcome),
    Decided(Outcome),
}

/// What nodes say to each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    Yes { from: usize },
    Elect(Election),
    Report(Election, Report),
    Attempt(Election, Outcome),
    Taken { election: Election, from: usize },
    Decided(Outcome),
}

/// What a node says of itself when it joins an election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Report {
    pub(crate) from: usize,
    pub(crate) phase: Phase,
    pub(crate) attempt: u8,
}

impl Phase {
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Decided(outcome) => Some(outcome),
            Self::Working | Self::VotedYes | Self::Attempted(_) => None,
        }
    }
}

impl Node {
    /// For the first time, or once more because its report may be lost.
    pub(crate) fn may_join(&self, election: Election) -> bool {
        let again = self.elected == election && self.attempt < election.number;
        self.elected.number < election.number || again
    }
}

impl State {
    pub(crate) fn send(&mut self, message: Message) {
        if let Err(place) = self.messages.binary_search(&message) {
            self.messages.insert(place, message);
        }
    }

    /// Whether the votes for the first attempt may still come together.
    pub(crate) fn can_vote(&self) -> bool {
        let votes = |n: &Node| matches!(n.phase, Phase::Working | Phase::VotedYes);
        self.nodes.iter().all(|n| n.is_up && votes(n))
    }

    pub(crate) fn decide(&mut self, at: usize, outcome: Outcome) {
        self.nodes[at].phase = Phase::Decided(outcome);
        self.send(Message::Decided(outcome));
    }

    pub(crate) fn take(&mut self, at: usize, outcome: Outcome) {
        let node = &mut self.nodes[at];
        node.phase = Phase::Attempted(outcome);
        node.attempt = node.elected.number;
        let election = node.elected;
        self.send(Message::Taken { election, from: at });
    }

    /// Whether somebody leads who can still have a majority of nodes that are up.
    pub(crate) fn has_leader(&self) -> bool {
        self.nodes.iter().any(|leader| self.can_win(leader))
    }

    pub(crate) fn can_win(&self, leader: &Node) -> bool {
        if leader.elected.number == 1 && leader.attempt == 0 && !self.can_vote() {
            return false;
        }
        let joins = |n: &&Node| {
            let election = leader.elected;
            n.is_up && (n.elected == election || n.elected.number < election.number)
        };
        leader.is_up && leader.leads && self.nodes.iter().filter(joins).count() >= MAJORITY
    }

    /// Messages that nobody can do anything with any more are as good as lost.
    pub(crate) fn prune(&mut self) {
        let nodes = self.nodes;
        let leads = |e: &Election| nodes[e.leader].leads && nodes[e.leader].elected == *e;
        let is_open = |n: &Node| n.phase.outcome().is_none();
        self.messages.retain(|message| match message {
            Message::Yes { .. } => {
                let first = &nodes[FIRST_LEADER];
                first.leads && first.elected.number == 1 && first.attempt == 0 && is_open(first)
            }
            Message::Elect(e) => (0..NODES).any(|at| at != e.leader && nodes[at].may_join(*e)),
            Message::Report(e, _) => {
                let leader = &nodes[e.leader];
                leads(e) && is_open(leader) && leader.attempt < e.number
            }
            Message::Taken { election, .. } => leads(election) && is_open(&nodes[election.leader]),
            Message::Attempt(e, _) => {
                let takes = |n: &Node| n.elected.number < e.number || n.elected == *e;
                (0..NODES).any(|at| at != e.leader && is_open(&nodes[at]) && takes(&nodes[at]))
            }
            Message::Decided(_) => nodes.iter().any(is_open),
        });
    }

    /// What a leader knows from the reports of these nodes and of its own state.
    pub(crate) fn reports(&self, leader: usize) -> Vec<Report> {
        let node = &self.nodes[leader];
        let own = Report {
            from: leader,
            phase: node.phase,
            attempt: node.attempt,
        };
        let heard = self.messages.iter().filter_map(|message| match message {
            Message::Report(election, report) if *election == node.elected => Some(*report),
            _ => None,
        });
        std::iter::once(own).chain(heard).collect()
    }
}
