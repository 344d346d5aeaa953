//! A model agent: does branches in its databases, registers them, finishes them when ordered.
//!
//! What it holds in memory is lost when it dies; its databases keep what was committed.

mod connection;
mod job;
mod kept_open;
mod phase_one;
mod phase_two;
mod promises;

use std::collections::BTreeMap;

use accede_core::{Attempt, BranchId, Command, Epoch, ProcessId, Reply, RequestId};

use self::{job::Job, kept_open::Open, phase_two::InHand, promises::Asked};
use crate::{
    database::{BranchKey, LocalId, NotCommitted},
    message::{Address, Answer, Ask, Message, Peer},
    oracle::News,
    outside::Outside,
};

/// What happens inside an agent.
#[derive(Debug)]
pub(crate) enum AgentEvent {
    Start,
    ConnectionLost(u64),
    Connect,
    /// A local lock was granted to a job.
    LocalLock(u64),
    /// A job has waited long enough for its local locks.
    LocalLockTimeout(u64),
    /// Looks whether a job still waits for its local locks, in this local transaction.
    Blocked(u64, LocalId),
    /// A refused job tries again.
    Again(u64),
    /// Sends the request of a job, the first time or again.
    Request(u64, RequestId),
    /// The patience of a job with the coordinator is over.
    Patience(u64, RequestId),
    /// The message with COMMIT arrives at the database.
    CommitArrives(u64),
    /// The database's answer arrives; `None` if there is none.
    CommitAnswered(u64, Option<Result<(), NotCommitted>>),
    /// A message that must arrive is sent again.
    Deliver(u64),
    /// Phase two of a branch is carried out.
    PhaseTwo(BranchKey),
    /// What came of it is told.
    PhaseTwoDone(BranchKey, accede_core::Outcome),
    /// Looks for old markers.
    Sweep,
    /// Looks for promises of which nothing was heard for long.
    Alone,
    /// Nobody has answered that question in time.
    NoAnswer(u64),
    /// A branch that is kept open has waited long enough.
    OpenTooLong(BranchKey),
}

/// The numbers that an answer to an order must echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    attempt: Attempt,
    epoch: Epoch,
}

/// An agent, in whichever life it is.
pub(crate) struct Agent {
    pub(crate) number: usize,
    /// The databases it serves.
    pub(crate) databases: Vec<usize>,
    life: u32,
    alive: bool,
    process: ProcessId,
    session: u64,
    connected: bool,
    /// The newest attempt to connect.
    attach_tag: Option<u64>,
    last_number: u64,
    jobs: BTreeMap<u64, Job>,
    /// Ends of phase one that the coordinator has not acknowledged.
    deliveries: BTreeMap<u64, Command>,
    in_hand: BTreeMap<BranchKey, InHand>,
    /// Open local transactions of XA.
    kept_open: BTreeMap<BranchKey, Open>,
    /// The newest question of the sweeper, with the database it is about.
    sweep: Option<(u64, usize)>,
    sweeps: usize,
    /// The newest question about promises.
    asked: Option<(u64, Vec<Asked>)>,
}

impl Agent {
    pub(crate) fn new(number: usize, databases: Vec<usize>) -> Self {
        Self {
            number,
            databases,
            life: 0,
            alive: false,
            process: ProcessId(0),
            session: 0,
            connected: false,
            attach_tag: None,
            last_number: 0,
            jobs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            kept_open: BTreeMap::new(),
            sweep: None,
            sweeps: 0,
            asked: None,
        }
    }

    pub(crate) fn me(&self) -> Peer {
        Peer {
            address: Address::Agent(self.number),
            life: self.life,
            process: self.process,
            session: self.session,
        }
    }

    /// What is not done yet, if anything.
    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        match self {
            Self { alive: false, .. } => Some("an agent is down"),
            Self {
                connected: false, ..
            } => Some("an agent is not connected"),
            Self { jobs, .. } if !jobs.is_empty() => Some("an agent is at work"),
            Self { deliveries, .. } if !deliveries.is_empty() => {
                Some("the end of a branch is not acknowledged")
            }
            Self { in_hand, .. } if !in_hand.is_empty() => Some("an order is in hand"),
            Self { kept_open, .. } if !kept_open.is_empty() => Some("a branch is kept open"),
            Self { .. } => None,
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn handle(&mut self, out: &mut Outside, life: u32, event: AgentEvent) {
        if life != self.life {
            return;
        }
        match event {
            AgentEvent::Start => self.start(out),
            AgentEvent::ConnectionLost(session) => self.connection_lost(out, session),
            AgentEvent::Connect => self.connect(out),
            AgentEvent::LocalLock(job) => self.go_on(out, job),
            AgentEvent::LocalLockTimeout(job) => self.local_lock_timeout(out, job),
            AgentEvent::Blocked(job, local) => self.blocked(out, job, local),
            AgentEvent::Again(job) => self.open(out, job),
            AgentEvent::Request(job, request) => self.request(out, job, request),
            AgentEvent::Patience(job, request) => self.patience_over(out, job, request),
            AgentEvent::CommitArrives(job) => self.commit_arrives(out, job),
            AgentEvent::CommitAnswered(job, answer) => self.commit_answered(out, job, answer),
            AgentEvent::Deliver(tag) => self.deliver_again(out, tag),
            AgentEvent::PhaseTwo(key) => self.phase_two(out, key),
            AgentEvent::PhaseTwoDone(key, outcome) => self.phase_two_done(out, key, outcome),
            AgentEvent::Sweep => self.sweep(out),
            AgentEvent::Alone => self.look_for_promises(out),
            AgentEvent::NoAnswer(tag) => self.silence(out, tag),
            AgentEvent::OpenTooLong(key) => self.open_too_long(out, key),
        }
    }

    /// Whether this life still is.
    pub(crate) fn lives(&self, life: Option<u32>) -> bool {
        self.alive && life.is_none_or(|life| life == self.life)
    }

    /// A message has arrived.
    pub(crate) fn receive(&mut self, out: &mut Outside, message: Message) {
        match message {
            Message::Work {
                from,
                tag,
                xid,
                work,
            } => self.begin(out, (from, tag), xid, work),
            Message::Order(order) => self.order(out, &order),
            Message::Answer { tag, answer } => self.answered(out, tag, answer),
            Message::Ask { .. } | Message::Worked { .. } => {}
        }
    }

    fn answered(&mut self, out: &mut Outside, tag: u64, answer: Answer) {
        match answer {
            Answer::Attached => self.attached(out, tag),
            Answer::Ended(ended) => self.swept(out, tag, &ended),
            Answer::Standing(standings) => self.told(out, tag, &standings),
            Answer::Reply(reply) if self.deliveries.contains_key(&tag) => {
                debug_assert!(!matches!(reply, Reply::Waiting(_)));
                self.deliveries.remove(&tag);
            }
            Answer::Reply(reply) => self.request_answered(out, tag, reply),
            Answer::Overloaded => self.overloaded(out, tag),
            // Asked again by itself.
            Answer::Unknown | Answer::Outcome(_) | Answer::Stuck(_) => {}
        }
    }

    fn start(&mut self, out: &mut Outside) {
        if self.alive {
            return;
        }
        self.alive = true;
        self.process = out.new_process();
        out.note(Address::Agent(self.number), None, || "starts".to_owned());
        self.connect(out);
        let ms = out.random.between(5_000, 10_000);
        out.agent_later(ms, self.me(), AgentEvent::Sweep);
        let ms = out.random.between(1_000, 4_000);
        out.agent_later(ms, self.me(), AgentEvent::Alone);
    }

    /// Dies: its connections end, and with them its local transactions.
    pub(crate) fn die(&mut self, out: &mut Outside) -> Option<Peer> {
        if !self.alive {
            return None;
        }
        let me = self.me();
        out.note(me.address, None, || "dies".to_owned());
        // A COMMIT that was sent may still arrive.
        let sent: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.is_committing())
            .map(|(n, _)| *n)
            .collect();
        for job in sent {
            if out.random.chance(500) {
                self.commit_arrives(out, job);
            }
        }
        self.alive = false;
        self.life += 1;
        self.connected = false;
        self.attach_tag = None;
        self.jobs.clear();
        self.deliveries.clear();
        self.in_hand.clear();
        self.kept_open.clear();
        self.sweep = None;
        self.asked = None;
        for database in 0..out.databases.len() {
            let granted = out.databases[database].end_all(Some(self.number));
            out.wake(granted);
        }
        let ms = out.random.between(100, 6_000);
        out.agent_later(ms, self.me(), AgentEvent::Start);
        Some(me)
    }

    /// A database has stopped: all its local transactions ended.
    pub(crate) fn database_stopped(&mut self, out: &mut Outside, database: usize) {
        self.open_lost(database);
        let lost: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.work.database == database)
            .map(|(number, _)| *number)
            .collect();
        for job in lost {
            self.local_lost(out, job);
        }
    }

    /// Sends a message that must arrive until it is acknowledged.
    fn deliver(&mut self, out: &mut Outside, command: Command) {
        let tag = self.next_number();
        self.deliveries.insert(tag, command);
        self.deliver_again(out, tag);
        out.tell(&News::Memory {
            what: "deliveries of an agent",
            count: self.deliveries.len(),
            limit: MOST_DELIVERIES,
        });
    }

    fn deliver_again(&mut self, out: &mut Outside, tag: u64) {
        let Some(command) = self.deliveries.get(&tag).cloned() else {
            return;
        };
        if self.connected {
            out.ask(self.me(), tag, Ask::Command(command));
        }
        out.agent_later(1_500, self.me(), AgentEvent::Deliver(tag));
    }
}

/// Ends of branches that may be unacknowledged at once in these small worlds.
const MOST_DELIVERIES: usize = 500;

/// The number of a branch for people.
fn number(branch: BranchId) -> u32 {
    branch.0
}
