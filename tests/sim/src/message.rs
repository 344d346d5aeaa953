//! Who talks to whom, and what they say. The commands and replies are the real ones.

use std::fmt;

use accede_core::{
    Command, DatabaseId, Decision, Order, ProcessId, Reply, Resource, Xid, alone::Standing,
};

use crate::work::{Work, WorkError};

/// A place where processes live, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Coordinator,
    Client(usize),
    Agent(usize),
    Operator,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Coordinator => "coordinator".to_owned(),
            Self::Client(number) => format!("client {number}"),
            Self::Agent(number) => format!("agent {number}"),
            Self::Operator => "operator".to_owned(),
        };
        f.pad(&text)
    }
}

/// One life of a process. What is sent to an earlier life does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    pub(crate) life: u32,
    /// The random number by which the coordinator knows this life.
    pub(crate) process: ProcessId,
    /// Counts its connections to the coordinator.
    pub(crate) session: u64,
}

/// A resource that an agent shows: a database, or an action.
pub(crate) type Shown = (Resource, Option<DatabaseId>);

/// What is asked of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To be logged.
    Command(Command),
    /// The first frame of a client's connection: asks for a lease.
    Open(Command),
    /// The first frame of an agent's connection.
    Attach(Vec<Shown>),
    /// An order is being worked on.
    InProgress(Xid, accede_core::BranchId),
    /// Which of these have ended.
    Ended(Vec<Xid>),
    /// How these stand, for participants of 3PC.
    Standing(Vec<Xid>),
    /// How this was decided.
    Outcome(Xid),
    /// Which transactions are stuck.
    Stuck,
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reply(Reply),
    Attached,
    /// Too much to do; nothing was logged.
    Overloaded,
    /// Nobody here can say what became of it: ask again.
    Unknown,
    Ended(Vec<Xid>),
    Standing(Vec<Standing>),
    Outcome(Outcome),
    Stuck(Vec<Xid>),
}

/// How a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Active,
    Decided(Decision),
    NotBegun,
    Forgotten,
}

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Ask {
        from: Peer,
        tag: u64,
        ask: Ask,
    },
    Answer {
        tag: u64,
        answer: Answer,
    },
    Order(Order),
    /// A client has an agent do its part of a transaction.
    Work {
        from: Peer,
        tag: u64,
        xid: Xid,
        work: Work,
    },
    Worked {
        tag: u64,
        result: Result<(), WorkError>,
    },
}

impl Message {
    /// Begins are sent over one connection, in order.
    pub(crate) fn is_begin(&self) -> bool {
        matches!(
            self,
            Self::Ask {
                ask: Ask::Command(Command::Begin(_)),
                ..
            }
        )
    }
}
