//! All that is outside of a process: time, chance, the network, the databases, and the oracle
//! that watches.

use accede_core::{ProcessId, Xid};

use crate::{
    agenda::{Agenda, Event},
    agent::AgentEvent,
    client::ClientEvent,
    database::{Database, Granted},
    faults::{Plan, Rates},
    message::{Address, Answer, Ask, Message, Peer},
    network::{Fate, Network},
    oracle::{News, Oracle},
    random::Random,
    trace::Trace,
};

/// What every process may use.
pub(crate) struct Outside {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) agenda: Agenda,
    pub(crate) network: Network,
    pub(crate) databases: Vec<Database>,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) plan: Plan,
    /// What goes wrong now: nothing, once it is calm.
    pub(crate) rates: Rates,
    pub(crate) calm: bool,
    pub(crate) faults: u64,
    /// Which agents serve each database.
    pub(crate) serving: Vec<Vec<usize>>,
    processes: u64,
}

impl Outside {
    pub(crate) fn new(plan: Plan, random: Random, trace: Trace) -> Self {
        let databases = (0..plan.databases).map(|number| Database::new(number, plan.rows));
        let databases: Vec<Database> = databases.collect();
        Self {
            now: 0,
            random,
            agenda: Agenda::default(),
            network: Network::default(),
            oracle: Oracle::new(&databases),
            databases,
            trace,
            rates: plan.rates,
            calm: false,
            faults: 0,
            serving: Vec::new(),
            plan,
            processes: 0,
        }
    }

    /// A line of the trace.
    pub(crate) fn note(&self, who: Address, xid: Option<Xid>, what: impl FnOnce() -> String) {
        self.trace.line(self.now, who, xid, what);
    }

    /// Tells the oracle.
    pub(crate) fn tell(&mut self, news: &News<'_>) {
        self.oracle.hear(self.now, news);
    }

    /// Plans an event so many milliseconds from now.
    pub(crate) fn later(&mut self, ms: u64, event: Event) {
        self.agenda.plan(self.now + ms, event);
    }

    pub(crate) fn agent_later(&mut self, ms: u64, who: Peer, event: AgentEvent) {
        if let Address::Agent(number) = who.address {
            self.later(ms, Event::Agent(number, who.life, event));
        }
    }

    pub(crate) fn client_later(&mut self, ms: u64, who: Peer, event: ClientEvent) {
        if let Address::Client(number) = who.address {
            self.later(ms, Event::Client(number, who.life, event));
        }
    }

    /// A fresh random number for a process.
    pub(crate) fn new_process(&mut self) -> ProcessId {
        self.processes += 1;
        ProcessId((self.random.next() << 8) | (self.processes & 255))
    }

    /// Some agent that serves a database.
    pub(crate) fn agent_of(&mut self, database: usize) -> Address {
        let agents = self.serving.get(database);
        let chosen = agents.and_then(|agents| self.random.pick(agents));
        Address::Agent(chosen.copied().unwrap_or(0))
    }

    /// True as often as a rate says, which is a fault.
    pub(crate) fn goes_wrong(&mut self, rate: u64) -> bool {
        let wrong = self.random.chance(rate);
        self.faults += u64::from(wrong);
        wrong
    }

    /// Asks the coordinator.
    pub(crate) fn ask(&mut self, from: Peer, tag: u64, ask: Ask) {
        let message = Message::Ask { from, tag, ask };
        self.send(from.address, Address::Coordinator, None, message);
    }

    pub(crate) fn answer(&mut self, to: Peer, tag: u64, answer: Answer) {
        let message = Message::Answer { tag, answer };
        self.send(Address::Coordinator, to.address, Some(to.life), message);
    }

    /// Sends a message; what becomes of it is the network's affair.
    pub(crate) fn send(&mut self, from: Address, to: Address, life: Option<u32>, message: Message) {
        let begin = match &message {
            Message::Ask { from, .. } if message.is_begin() => Some(*from),
            _ => None,
        };
        let parts = (&mut self.agenda, &mut self.random, &self.rates);
        let fate = self
            .network
            .send(parts, self.now, (from, to, life), message);
        self.faults += u64::from(fate != Fate::Sent);
        if let (Fate::Lost, Some(client)) = (fate, begin) {
            // A stream that lost a part of itself ends; its process notices soon.
            let ms = self.random.between(5, 500);
            self.client_later(ms, client, ClientEvent::ConnectionLost(client.session));
        }
    }

    /// Wakes the agents that got a local lock.
    pub(crate) fn wake(&mut self, granted: Vec<Granted>) {
        for (agent, life, job) in granted {
            self.later(0, Event::Agent(agent, life, AgentEvent::LocalLock(job)));
        }
    }
}
