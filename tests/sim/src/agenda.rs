//! What will happen, in order of simulated time.

use std::collections::BTreeMap;

use crate::{
    agent::AgentEvent,
    client::ClientEvent,
    coordinator::CoordinatorEvent,
    faults::Fault,
    message::{Address, Message},
};

/// One thing that will happen. What is for an earlier life of a process is void.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        to: Address,
        life: Option<u32>,
        message: Message,
    },
    Coordinator(u32, CoordinatorEvent),
    Agent(usize, u32, AgentEvent),
    Client(usize, u32, ClientEvent),
    Operator,
    Fault(Fault),
}

/// The queue of events. Events of the same millisecond happen in the order they were planned in.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
}

impl Agenda {
    pub(crate) fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }

    /// The next event and its time.
    pub(crate) fn next(&mut self) -> Option<(u64, Event)> {
        let ((at, _), event) = self.events.pop_first()?;
        Some((at, event))
    }
}
