//! What is known to be true, and the invariants that are checked against it.
//!
//! The oracle has a replica of its own, the witness: it applies every entry that became durable,
//! in order, and never restarts. What was sent as an answer is a promise; what got lost on its way
//! or ran into a time-out may have happened or not.

mod locks;

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{
    BranchId, Command, Decision, Effect, Effects, Entry, Reply, Resource, State, Transaction,
    Waiter, Xid,
    alone::{Knows, Phase},
    codec,
};

use self::locks::Locks;
use crate::{
    coordinator::Applied,
    database::{Database, Image},
    invariants::{Invariant, all},
    message::Answer,
};

/// What was seen to break a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub invariant: &'static str,
    /// When, in simulated milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

/// One command that was decided and applied.
pub(crate) struct Step<'a> {
    pub(crate) command: &'a Command,
    pub(crate) reply: &'a Reply,
    pub(crate) effects: &'a [Effect],
    /// The transaction that it names, as it was before.
    pub(crate) before: Option<&'a Transaction>,
}

/// What happened.
pub(crate) enum News<'a> {
    /// A command took effect.
    Applied(&'a Step<'a>),
    /// The leader and the witness applied the same entry.
    BothApplied {
        leader: &'a Applied,
        witness: &'a Applied,
        index: u64,
    },
    /// An answer left the coordinator.
    Answered {
        index: u64,
        xid: Option<Xid>,
        answer: &'a Answer,
    },
    /// An order was carried out, so sent or kept for an agent.
    Ordered(&'a accede_core::Order),
    /// A coordinator has opened its directory again.
    Recovered { state: &'a State, last_index: u64 },
    /// A snapshot was taken; the directory holds so many files.
    Snapshot { files: usize },
    /// A client made an XID.
    XidMade(Xid),
    /// A client was told how its transaction was decided.
    Told(Xid, Decision),
    /// A branch committed locally.
    LocalCommit {
        database: &'a Resource,
        xid: Xid,
        branch: BranchId,
        images: &'a [Image],
        /// Rows that it read shared and relies on.
        read: &'a [usize],
    },
    /// A participant of 3PC went on.
    Promise {
        xid: Xid,
        branch: BranchId,
        from: Phase,
        to: Phase,
    },
    /// A participant of 3PC heard what no fault leads to.
    CannotBe {
        xid: Xid,
        branch: BranchId,
        phase: Phase,
        knows: Knows,
    },
    /// A branch was undone; before that its rows were as given.
    Undone {
        database: &'a Resource,
        xid: Xid,
        branch: BranchId,
        images: &'a [Image],
        found: &'a [Option<i64>],
    },
    /// A branch cannot be undone any more.
    Kept { xid: Xid, branch: BranchId },
    /// A branch could not be undone for this reason.
    CannotUndo {
        xid: Xid,
        branch: BranchId,
        why: String,
    },
    /// An agent has done a step of a saga, for the first time.
    StepDone { xid: Xid, branch: BranchId },
    /// An agent has compensated a step of a saga, or barred one that was never done.
    Compensated { xid: Xid, branch: BranchId },
    /// A locking read was granted while the local locks are held.
    Read {
        database: &'a Resource,
        xid: Xid,
        rows: &'a [usize],
    },
    /// How much is held in the memory of processes.
    Memory {
        what: &'static str,
        count: usize,
        limit: usize,
    },
    /// Everything should be over by now, but this is left.
    Unfinished(&'a str),
    /// The run is over and nothing is under way.
    Over(&'a [Database]),
}

/// What all invariants may look at.
pub(crate) struct Facts {
    /// The state after everything that became durable.
    pub(crate) witness: State,
    /// The log index of its last entry.
    pub(crate) last_index: u64,
    /// How transactions were decided.
    pub(crate) decisions: BTreeMap<Xid, Decision>,
    /// Transactions that ended.
    pub(crate) ended: BTreeSet<Xid>,
    /// Row locks and queues, kept by other means than the state machine's.
    pub(crate) locks: Locks,
}

/// The oracle.
pub(crate) struct Oracle {
    pub(crate) facts: Facts,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    pub(crate) transactions: u64,
}

impl Oracle {
    pub(crate) fn new(databases: &[Database]) -> Self {
        let facts = Facts {
            witness: State::new(),
            last_index: 0,
            decisions: BTreeMap::new(),
            ended: BTreeSet::new(),
            locks: Locks::default(),
        };
        Self {
            facts,
            invariants: all(databases),
            violation: None,
            transactions: 0,
        }
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Records that a rule was broken; the first one counts.
    pub(crate) fn broken(&mut self, at_ms: u64, invariant: &'static str, what: String) {
        self.violation.get_or_insert(Violation {
            invariant,
            at_ms,
            what,
        });
    }

    pub(crate) fn hear(&mut self, now: u64, news: &News<'_>) {
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.check(&self.facts, news) {
                let invariant = invariant.name();
                self.violation.get_or_insert(Violation {
                    invariant,
                    at_ms: now,
                    what,
                });
            }
        }
    }

    /// An entry became durable: the witness applies it. What the witness makes of it.
    pub(crate) fn entry(&mut self, now: u64, index: u64, bytes: &[u8]) -> Option<Applied> {
        let batch = match codec::decode_batch(bytes) {
            Ok(batch) => batch,
            Err(error) => {
                self.broken(now, "log_keeps_entries", format!("entry {index}: {error}"));
                return None;
            }
        };
        let mut applied = Applied::default();
        for command in batch.commands {
            let mut effects = Effects::new();
            let xid = command.xid();
            let before = xid
                .and_then(|xid| self.facts.witness.transaction(xid))
                .cloned();
            let (at, wall) = (batch.at, batch.wall);
            let entry = Entry {
                index,
                at,
                wall,
                command: command.clone(),
            };
            let reply = self.facts.witness.apply(entry, &mut effects);
            let step = Step {
                command: &command,
                reply: &reply,
                effects: &effects,
                before: before.as_ref(),
            };
            self.applied(now, &step);
            applied.add(reply, effects);
        }
        applied.next_deadline = self.facts.witness.next_deadline();
        self.facts.last_index = index;
        Some(applied)
    }

    fn applied(&mut self, now: u64, step: &Step<'_>) {
        if let (Command::Begin(_), None, Reply::Ok) = (step.command, step.before, step.reply) {
            self.transactions += 1;
        }
        for effect in step.effects {
            if let Effect::Ended { xid, .. } = effect {
                self.facts.ended.insert(*xid);
            }
        }
        let Facts { locks, witness, .. } = &mut self.facts;
        locks.follow(witness, step);
        self.hear(now, &News::Applied(step));
        for effect in step.effects {
            if let Effect::Decided { xid, decision } = effect {
                self.facts.decisions.entry(*xid).or_insert(*decision);
            }
        }
    }
}

/// The answers to registers and checks that a command brought, in order: its own and those of
/// others who waited.
pub(crate) fn request_answers<'a>(
    step: &'a Step<'_>,
) -> impl Iterator<Item = (Xid, accede_core::RequestId, &'a Reply)> {
    let own = match step.command {
        Command::RegisterBranch(c) => Some((c.xid, c.request, step.reply)),
        Command::CheckLocks(c) => Some((c.xid, c.request, step.reply)),
        _ => None,
    };
    let others = step.effects.iter().filter_map(|effect| match effect {
        Effect::Answer {
            waiter: Waiter::Request(xid, request),
            reply,
        } => Some((*xid, *request, reply)),
        _ => None,
    });
    own.into_iter().chain(others)
}
