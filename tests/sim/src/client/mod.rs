//! A model client: a worker that makes XIDs under a lease, begins transactions, has agents do
//! their parts, and asks for the decision.

mod saga;
mod script;
mod transaction;
mod worker;

use std::collections::{BTreeMap, VecDeque};

use accede_core::{Begin, Command, LeaseWorker, ProcessId, Reply, Xid};

pub(crate) use self::saga::CANNOT;
use self::{transaction::Transaction, worker::Lease};
use crate::{
    message::{Address, Answer, Ask, Message, Outcome, Peer},
    oracle::News,
    outside::Outside,
};

/// What happens inside a client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClientEvent {
    Start,
    ConnectionLost(u64),
    Connect,
    Renew,
    /// Begins the next transaction, if it is time.
    Next,
    /// Goes on with a transaction.
    Go(Xid),
    /// A part takes too long.
    WorkTimeout(Xid, u64),
    /// The question for the decision is sent, the first time or again.
    AskDecision(Xid, u64),
    /// The client thinks better of its saga.
    ThinkBetter(Xid, u64),
    /// Patience with the coordinator is over.
    Patience(Xid, u64),
}

/// What an answer is awaited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open { sent: u64 },
    Renew { sent: u64 },
    Begin(Xid),
    Outcome(Xid),
}

/// A client, in whichever life it is.
pub(crate) struct Client {
    number: usize,
    life: u32,
    alive: bool,
    process: ProcessId,
    session: u64,
    connected: bool,
    lease: Option<Lease>,
    /// Time part and sequence of the newest XID under this worker number.
    last: Option<(u64, u64)>,
    /// Announced, not known to be logged.
    begins: VecDeque<Begin>,
    calls: BTreeMap<u64, Call>,
    last_tag: u64,
    transactions: BTreeMap<Xid, Transaction>,
    /// Transactions still to begin.
    left: u64,
}

impl Client {
    pub(crate) fn new(number: usize, transactions: u64) -> Self {
        Self {
            number,
            life: 0,
            alive: false,
            process: ProcessId(0),
            session: 0,
            connected: false,
            lease: None,
            last: None,
            begins: VecDeque::new(),
            calls: BTreeMap::new(),
            last_tag: 0,
            transactions: BTreeMap::new(),
            left: transactions,
        }
    }

    pub(crate) fn me(&self) -> Peer {
        Peer {
            address: Address::Client(self.number),
            life: self.life,
            process: self.process,
            session: self.session,
        }
    }

    /// What is not done yet, if anything.
    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        match self {
            Self { alive: false, .. } => Some("a client is down"),
            Self { left, .. } if *left > 0 => Some("a client has transactions to begin"),
            Self { transactions, .. } if !transactions.is_empty() => {
                Some("a client waits for the end of a transaction")
            }
            Self { .. } => None,
        }
    }

    fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    pub(crate) fn handle(&mut self, out: &mut Outside, life: u32, event: ClientEvent) {
        if life != self.life {
            return;
        }
        match event {
            ClientEvent::Start => self.start(out),
            ClientEvent::ConnectionLost(session) => self.connection_lost(out, session),
            ClientEvent::Connect => self.connect(out),
            ClientEvent::Renew => self.renew(out),
            ClientEvent::Next => self.next(out),
            ClientEvent::Go(xid) => self.go_on(out, xid),
            ClientEvent::WorkTimeout(xid, tag) => self.work_timeout(out, xid, tag),
            ClientEvent::AskDecision(xid, tag) => self.ask_decision(out, xid, tag),
            ClientEvent::ThinkBetter(xid, tag) => self.think_better(out, xid, tag),
            ClientEvent::Patience(xid, tag) => self.patience_over(out, xid, tag),
        }
    }

    fn start(&mut self, out: &mut Outside) {
        if self.alive {
            return;
        }
        self.alive = true;
        self.process = out.new_process();
        out.note(self.me().address, None, || "starts".to_owned());
        self.connect(out);
        out.client_later(5_000, self.me(), ClientEvent::Renew);
        let ms = out.random.between(10, 1_000);
        out.client_later(ms, self.me(), ClientEvent::Next);
    }

    /// Dies in the middle of whatever it does.
    pub(crate) fn die(&mut self, out: &mut Outside) {
        if !self.alive {
            return;
        }
        out.note(self.me().address, None, || "dies".to_owned());
        self.alive = false;
        self.life += 1;
        self.connected = false;
        self.lease = None;
        self.last = None;
        self.begins.clear();
        self.calls.clear();
        self.transactions.clear();
        let ms = out.random.between(100, 10_000);
        out.client_later(ms, self.me(), ClientEvent::Start);
    }

    fn connection_lost(&mut self, out: &mut Outside, session: u64) {
        if !self.alive || session < self.session {
            return;
        }
        // An answer to an earlier attempt says nothing about the next one.
        self.calls
            .retain(|_, call| !matches!(call, Call::Open { .. }));
        if !self.connected {
            return;
        }
        out.note(self.me().address, None, || {
            "loses its connection".to_owned()
        });
        self.reopen(out);
    }

    /// Gives its connection up and opens another.
    fn reopen(&mut self, out: &mut Outside) {
        self.connected = false;
        self.connect(out);
    }

    /// Opens a connection, for as long as it takes.
    fn connect(&mut self, out: &mut Outside) {
        if !self.alive || self.connected {
            return;
        }
        self.session += 1;
        let tag = self.next_tag();
        let command = Command::LeaseWorker(LeaseWorker {
            process: self.process,
            name: format!("client {}", self.number),
            worker: self.lease.as_ref().map(|lease| lease.worker),
        });
        self.calls
            .retain(|_, call| !matches!(call, Call::Open { .. }));
        self.calls.insert(tag, Call::Open { sent: out.now });
        out.ask(self.me(), tag, Ask::Open(command));
        let ms = out.random.between(300, 1_200);
        out.client_later(ms, self.me(), ClientEvent::Connect);
    }

    /// Renews the lease in time.
    fn renew(&mut self, out: &mut Outside) {
        out.client_later(5_000, self.me(), ClientEvent::Renew);
        let Some(worker) = self.lease.as_ref().map(|lease| lease.worker) else {
            return;
        };
        if self.connected {
            let tag = self.next_tag();
            self.calls
                .retain(|_, call| !matches!(call, Call::Renew { .. }));
            self.calls.insert(tag, Call::Renew { sent: out.now });
            let (process, name) = (self.process, String::new());
            let command = LeaseWorker {
                process,
                name,
                worker: Some(worker),
            };
            out.ask(self.me(), tag, Ask::Command(Command::LeaseWorker(command)));
        }
    }

    /// A message has arrived.
    pub(crate) fn receive(&mut self, out: &mut Outside, life: Option<u32>, message: Message) {
        if !self.alive || life.is_some_and(|life| life != self.life) {
            return;
        }
        match message {
            Message::Answer { tag, answer } => self.answered(out, tag, answer),
            Message::Worked { tag, result } => self.worked(out, tag, result),
            Message::Ask { .. } | Message::Order(_) | Message::Work { .. } => {}
        }
    }

    fn answered(&mut self, out: &mut Outside, tag: u64, answer: Answer) {
        let Some(call) = self.calls.remove(&tag) else {
            return self.decision_answered(out, tag, answer);
        };
        match (call, answer) {
            (Call::Open { sent } | Call::Renew { sent }, Answer::Reply(Reply::Leased(lease))) => {
                self.granted(out, &lease, sent);
                if matches!(call, Call::Open { .. }) {
                    self.opened(out);
                }
            }
            (Call::Open { .. } | Call::Renew { .. }, Answer::Reply(Reply::Refused(_))) => {
                self.lease_over(out);
                self.reopen(out);
            }
            (Call::Begin(xid), Answer::Reply(Reply::Ok)) => {
                while self.begins.front().is_some_and(|begin| begin.xid <= xid) {
                    self.begins.pop_front();
                }
            }
            (Call::Begin(xid), Answer::Reply(_) | Answer::Overloaded) => {
                self.begin_refused(out, xid);
            }
            (Call::Outcome(xid), Answer::Outcome(Outcome::Decided(decision))) => {
                self.told(out, xid, decision);
            }
            // It is announced again over the next connection.
            (Call::Begin(_), _) => self.reopen(out),
            _ => {}
        }
    }

    fn opened(&mut self, out: &mut Outside) {
        self.connected = true;
        out.note(self.me().address, None, || "is connected".to_owned());
        for begin in self.begins.clone() {
            self.announce(out, begin);
        }
    }

    /// Sends a begin; nobody waits for its answer.
    fn announce(&mut self, out: &mut Outside, begin: Begin) {
        let tag = self.next_tag();
        self.calls.insert(tag, Call::Begin(begin.xid));
        out.ask(self.me(), tag, Ask::Command(Command::Begin(begin)));
        out.tell(&News::Memory {
            what: "begins of a client",
            count: self.begins.len(),
            limit: MOST_BEGINS,
        });
    }
}

/// Begins that may be unlogged at once in these small worlds.
const MOST_BEGINS: usize = 1_000;
