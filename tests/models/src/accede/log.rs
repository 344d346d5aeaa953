//! The coordinators' replicated log, as far as one transaction can tell.
//!
//! A message between coordinators that is late changes nothing that the same step, taken when it
//! arrives, would not: it is refused by a newer term, or it brings what its receiver has. So
//! replication and votes are single steps between two nodes that are up, at any time or never.

use super::{
    Planted,
    entries::{Command, Entries, Entry},
};
use crate::rules::Outcome;

/// What the log makes of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Status {
    Active,
    Preparing,
    PreCommitted,
    Committing,
    RollingBack,
}

/// A coordinator.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node {
    pub(crate) is_up: bool,
    /// Durable, as is the log.
    term: u8,
    log: Entries,
    /// It believes that it leads its term, and knows that so many of its entries are decided. One
    /// that does not know yet is one that does nothing with it yet.
    leads: Option<usize>,
}

/// All coordinators.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    pub(crate) nodes: Vec<Node>,
}

/// The transaction's status after these entries.
fn status(log: &Entries, planted: Planted) -> Status {
    let mut status = Status::Active;
    let mut pre_committed_in = 0;
    for entry in log.iter() {
        let is_revocable = planted == Planted::RevocablePreCommit && entry.term > pre_committed_in;
        status = match (status, entry.command) {
            (Status::Active, Command::Prepare) => Status::Preparing,
            (Status::Preparing, Command::PreCommit) => {
                pre_committed_in = entry.term;
                Status::PreCommitted
            }
            (Status::PreCommitted, Command::Commit) => Status::Committing,
            (Status::Active | Status::Preparing, Command::RollBack) => Status::RollingBack,
            (Status::PreCommitted, Command::RollBack) if is_revocable => Status::RollingBack,
            (
                unchanged,
                Command::TakeOffice
                | Command::Prepare
                | Command::PreCommit
                | Command::Commit
                | Command::RollBack,
            ) => unchanged,
        };
    }
    status
}

impl Log {
    /// So many coordinators; the first of them leads.
    pub(crate) fn new(nodes: usize) -> Self {
        let took_office = Entry {
            term: 1,
            command: Command::TakeOffice,
        };
        let mut log = Entries::default();
        log.push(took_office);
        let node = |at| Node {
            is_up: true,
            term: 1,
            log,
            leads: (at == 0).then_some(1),
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
        }
    }

    pub(crate) fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    pub(crate) fn has_majority_up(&self) -> bool {
        self.nodes.iter().filter(|n| n.is_up).count() >= self.majority()
    }

    /// Whether somebody leads whom no majority has left.
    pub(crate) fn has_leader(&self) -> bool {
        self.nodes
            .iter()
            .any(|n| n.leads.is_some() && self.follows_majority(n))
    }

    /// The read barrier: a majority that is up knows of no newer term.
    fn follows_majority(&self, leader: &Node) -> bool {
        let agrees = |n: &&Node| n.is_up && n.term <= leader.term;
        leader.is_up && self.nodes.iter().filter(agrees).count() >= self.majority()
    }

    /// The decided entries that this node may act on: it leads, and its first entry is decided.
    fn in_office(&self, at: usize) -> Option<Entries> {
        let node = &self.nodes[at];
        let decided = node.log.first(node.leads?);
        let took_office = decided.last().is_some_and(|entry| entry.term == node.term);
        (node.is_up && took_office).then_some(decided)
    }

    /// What this node may tell participants by itself: what it knows to be decided.
    pub(crate) fn status_in_office(&self, at: usize, planted: Planted) -> Option<Status> {
        self.in_office(at).map(|decided| status(&decided, planted))
    }

    /// What this node answers who asks: what a leader has decided of whom a majority, and it
    /// itself, knows no newer one.
    pub(crate) fn answer(&self, at: usize, planted: Planted) -> Option<Status> {
        let node = &self.nodes[at];
        if !node.is_up {
            return None;
        }
        if planted == Planted::NoReadBarrier {
            return Some(status(&node.log, planted));
        }
        let leads = |l: &usize| {
            let leader = &self.nodes[*l];
            self.follows_majority(leader) && node.term <= leader.term
        };
        let mut leaders = (0..self.nodes.len()).filter(leads);
        leaders.find_map(|leader| self.status_in_office(leader, planted))
    }

    /// What this node, in office, may propose next, by what it knows to be decided. Each command
    /// is once in a log; proposals that others overtake are refused when they are applied.
    pub(crate) fn proposals(&self, at: usize, all_yes: bool, planted: Planted) -> Vec<Command> {
        let Some(decided) = self.in_office(at) else {
            return Vec::new();
        };
        let node = &self.nodes[at];
        let revokes = planted == Planted::RevocablePreCommit;
        let mut proposals = match status(&decided, planted) {
            Status::Active => vec![Command::Prepare, Command::RollBack],
            Status::Preparing if all_yes => vec![Command::PreCommit, Command::RollBack],
            Status::Preparing if planted == Planted::NoExpiry => Vec::new(),
            Status::Preparing => vec![Command::RollBack],
            Status::PreCommitted if revokes => vec![Command::Commit, Command::RollBack],
            Status::PreCommitted => vec![Command::Commit],
            Status::Committing | Status::RollingBack => Vec::new(),
        };
        proposals.retain(|command| node.log.iter().all(|entry| entry.command != *command));
        proposals
    }

    pub(crate) fn propose(&mut self, at: usize, command: Command) {
        let node = &mut self.nodes[at];
        let term = node.term;
        node.log.push(Entry { term, command });
        self.learn(at);
    }

    /// Whether the second node may take over the first one's log, and has not yet.
    pub(crate) fn can_replicate(&self, from: usize, to: usize) -> bool {
        let (leader, follower) = (&self.nodes[from], &self.nodes[to]);
        let reaches = from != to && leader.is_up && follower.is_up;
        let accepts = leader.leads.is_some() && follower.term <= leader.term;
        reaches && accepts && (follower.term, follower.log) != (leader.term, leader.log)
    }

    pub(crate) fn replicate(&mut self, from: usize, to: usize) {
        let (term, log) = (self.nodes[from].term, self.nodes[from].log);
        let follower = &mut self.nodes[to];
        (follower.term, follower.log, follower.leads) = (term, log, None);
        self.learn(from);
    }

    /// Decided is what a majority of its term has, up to an entry of its term.
    fn learn(&mut self, at: usize) {
        let node = &self.nodes[at];
        let is_decided = |length: &usize| {
            let entries = node.log.first(*length);
            let holds = |n: &&Node| n.term == node.term && n.log.first(*length) == entries;
            let of_its_term = entries.last().is_some_and(|entry| entry.term == node.term);
            of_its_term && self.nodes.iter().filter(holds).count() >= self.majority()
        };
        let known = node.leads.unwrap_or(0);
        let decided = (known + 1..=node.log.len()).rev().find(is_decided);
        self.nodes[at].leads = Some(decided.unwrap_or(known));
    }

    /// Whether this node may be elected with the vote of the other, or alone if it is the other
    /// and a majority by itself.
    pub(crate) fn can_elect(&self, at: usize, voter: usize) -> bool {
        let (candidate, v) = (&self.nodes[at], &self.nodes[voter]);
        let length = |n: &Node| (n.log.last().map(|entry| entry.term), n.log.len());
        // A leader stands again only when no majority follows it any more.
        let leads = candidate.leads.is_some() && self.follows_majority(candidate);
        let may_stand = candidate.is_up && !leads;
        let votes = if at == voter { 1 } else { 2 };
        let enough = votes >= self.majority();
        may_stand && v.is_up && enough && length(candidate) >= length(v)
    }

    /// Makes the node leader of a new term. A former leader hears of it only as a voter.
    pub(crate) fn elect(&mut self, at: usize, voter: usize) {
        let term = self.nodes[at].term.max(self.nodes[voter].term) + 1;
        (self.nodes[voter].term, self.nodes[voter].leads) = (term, None);
        (self.nodes[at].term, self.nodes[at].leads) = (term, Some(0));
        self.propose(at, Command::TakeOffice);
    }

    /// How the transaction ends by what leaders know to be decided.
    pub(crate) fn outcomes(&self, planted: Planted) -> impl Iterator<Item = Outcome> {
        let known = move |n: &Node| {
            n.leads
                .map(|decided| status(&n.log.first(decided), planted))
        };
        self.nodes.iter().filter_map(move |n| known(n)?.outcome())
    }

    pub(crate) fn crash(&mut self, at: usize) {
        (self.nodes[at].is_up, self.nodes[at].leads) = (false, None);
    }

    pub(crate) fn describe(&self, planted: Planted) -> String {
        let node = |(at, n): (usize, &Node)| {
            let role = match (n.is_up, n.leads) {
                (false, _) => "down",
                (true, None) => "follows",
                (true, Some(_)) => "leads",
            };
            let (status, term) = (status(&n.log, planted), n.term);
            format!(
                "coordinator {} {role}, term {term}, its log says {status:?}",
                at + 1
            )
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().map(node).collect();
        nodes.join("; ")
    }
}

impl Status {
    /// How it ends, once that is sure.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Active | Self::Preparing => None,
            Self::PreCommitted | Self::Committing => Some(Outcome::Committed),
            Self::RollingBack => Some(Outcome::Aborted),
        }
    }
}
