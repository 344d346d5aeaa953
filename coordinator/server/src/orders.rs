//! Which agents are attached, and the orders that are out or wait for one.
//!
//! An order goes to the agent that registered the branch, else to any agent of the resource,
//! else it waits where operators see it. It stays here until the state machine has taken note of
//! its outcome; a lost agent's orders go to others, or to itself when it comes back.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use accede_core::{Action, Attempt, BranchId, Epoch, Order, ProcessId, Resource, Xid};
use accede_proto::v1::{BranchEvent, branch_event};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use crate::{
    clock, convert,
    limits::{ORDER_SILENCE, OWN_AGENT_WAIT},
    sessions::BranchSession,
};

type Key = (Xid, BranchId);

/// The attached agents and the open orders. Nothing here is lost by a crash: it is rebuilt from
/// the state.
pub(crate) struct Orders {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    agents: HashMap<ProcessId, Agent>,
    by_resource: HashMap<Resource, Vec<ProcessId>>,
    open: HashMap<Key, Open>,
    /// Those of `open` that are not sent, by resource.
    unsent: HashMap<Resource, BTreeSet<Key>>,
    /// Shares the orders of lost agents out among the others.
    turn: usize,
}

struct Agent {
    session: Arc<BranchSession>,
    name: String,
    resources: Vec<Resource>,
    since: Instant,
    open: u32,
    /// What it last saw, by its resources.
    promises: HashMap<Resource, Promises>,
}

/// Promises of 3PC without news for longer than their time-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promises {
    pub(crate) waiting: u64,
    pub(crate) oldest_ms: u64,
    pub(crate) impossible: u64,
}

impl Promises {
    /// Agents of one resource look at the same.
    fn seen_by_both(self, other: Self) -> Self {
        Self {
            waiting: self.waiting.max(other.waiting),
            oldest_ms: self.oldest_ms.max(other.oldest_ms),
            impossible: self.impossible.max(other.impossible),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            oldest_ms: self.oldest_ms.max(other.oldest_ms),
            impossible: self.impossible + other.impossible,
        }
    }
}

struct Open {
    order: Order,
    sent: Option<Sent>,
    /// Since when it is open, or its agent away.
    since: Instant,
}

/// What came of an attempt to send an order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Sent,
    /// For the one agent that it should go to.
    Waits,
    /// No agent has room.
    NoRoom,
}

#[derive(Clone, Copy)]
struct Sent {
    to: ProcessId,
    at: Instant,
}

/// An attached agent, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentStatus {
    pub(crate) name: String,
    pub(crate) agent: ProcessId,
    pub(crate) resources: Vec<Resource>,
    pub(crate) attached_for: Duration,
    pub(crate) open_orders: u32,
}

/// Where an order is, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// Sent to the agent of this name.
    Sent(String),
    /// No agent of the resource is attached, or none has room.
    Waits,
    /// None is open.
    None,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrderCounts {
    pub(crate) agents: usize,
    pub(crate) open: usize,
    pub(crate) unattached: usize,
    pub(crate) promises: Promises,
}

impl Orders {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
        })
    }

    /// An agent's session is open: it gets what waits for it. A former session of the same
    /// process is ended.
    pub(crate) fn attach(
        &self,
        session: &Arc<BranchSession>,
        name: String,
        resources: &[Resource],
    ) {
        let mut table = self.table.lock();
        let former = table.remove_agent(session.agent);
        for resource in resources {
            let agents = table.by_resource.entry(Arc::clone(resource)).or_default();
            agents.push(session.agent);
        }
        let agent = Agent {
            session: Arc::clone(session),
            name,
            resources: resources.to_vec(),
            since: clock::now(),
            open: 0,
            promises: HashMap::new(),
        };
        table.agents.insert(session.agent, agent);
        if let Some(former) = &former {
            table.take_back(session.agent);
            for resource in &former.resources {
                table.send_unsent(resource);
            }
        }
        for resource in resources {
            table.send_unsent(resource);
        }
        drop(table);
        if let Some(former) = former {
            former.session.output.fail(Status::aborted(
                "the same agent process has opened another session, which takes this one's place",
            ));
        }
    }

    /// An agent's session is over. Its orders go to other agents, or wait.
    pub(crate) fn detach(&self, session: &BranchSession) {
        let mut table = self.table.lock();
        let current = table.agents.get(&session.agent);
        if current.is_none_or(|agent| agent.session.number != session.number) {
            return;
        }
        let Some(agent) = table.remove_agent(session.agent) else {
            return;
        };
        table.take_back(session.agent);
        for resource in &agent.resources {
            table.send_unsent(resource);
        }
    }

    /// An order of the state machine; takes the place of an earlier one for the same branch.
    pub(crate) fn open(&self, order: Order) {
        let mut table = self.table.lock();
        let key = (order.xid, order.branch);
        table.close(key);
        let since = clock::now();
        let sent = None;
        table.open.insert(key, Open { order, sent, since });
        table.send(key);
    }

    /// The state machine no longer wants this order carried out.
    pub(crate) fn drop_order(&self, xid: Xid, branch: BranchId) {
        self.table.lock().close((xid, branch));
    }

    /// The state machine has taken note of an outcome. One of an earlier attempt that was no
    /// success changes nothing.
    pub(crate) fn answered(
        &self,
        xid: Xid,
        branch: BranchId,
        attempt: Attempt,
        epoch: Epoch,
        finished: bool,
    ) {
        let mut table = self.table.lock();
        let Some(open) = table.open.get(&(xid, branch)) else {
            return;
        };
        if finished || (open.order.attempt == attempt && open.order.epoch == epoch) {
            table.close((xid, branch));
        }
    }

    /// The agent still works on it.
    pub(crate) fn in_progress(&self, agent: ProcessId, xid: Xid, branch: BranchId) {
        let mut table = self.table.lock();
        if let Some(sent) = table
            .open
            .get_mut(&(xid, branch))
            .and_then(|open| open.sent.as_mut())
            && sent.to == agent
        {
            sent.at = clock::now();
        }
    }

    /// Tries again what could not be sent.
    pub(crate) fn tick(&self) {
        let mut table = self.table.lock();
        let waiting: Vec<Resource> = table
            .unsent
            .keys()
            .filter(|resource| table.by_resource.contains_key(*resource))
            .cloned()
            .collect();
        for resource in waiting {
            table.send_unsent(&resource);
        }
    }

    /// Repeats the orders about which their agents have been silent for too long.
    pub(crate) fn repeat_silent(&self) {
        let now = clock::now();
        let mut table = self.table.lock();
        let silent: Vec<Key> = table
            .open
            .iter()
            .filter(|(_, open)| {
                open.sent
                    .is_some_and(|sent| now.duration_since(sent.at) >= ORDER_SILENCE)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in silent {
            tracing::debug!(xid = %key.0, branch = key.1.0, "an agent is silent, the order is repeated");
            table.unsend(key);
            table.send(key);
        }
    }

    /// Forgets all orders: the state machine will say anew what is owed.
    pub(crate) fn clear(&self) {
        let mut table = self.table.lock();
        table.open.clear();
        table.unsent.clear();
        for agent in table.agents.values_mut() {
            agent.open = 0;
        }
    }

    pub(crate) fn agents(&self) -> Vec<AgentStatus> {
        let now = clock::now();
        let table = self.table.lock();
        let mut agents: Vec<AgentStatus> = table
            .agents
            .values()
            .map(|agent| AgentStatus {
                name: agent.name.clone(),
                agent: agent.session.agent,
                resources: agent.resources.clone(),
                attached_for: now.duration_since(agent.since),
                open_orders: agent.open,
            })
            .collect();
        drop(table);
        agents.sort_by(|a, b| (&a.name, a.agent).cmp(&(&b.name, b.agent)));
        agents
    }

    /// Attached agents of a resource, and orders that wait for one.
    pub(crate) fn of_resource(&self, resource: &str) -> (usize, usize) {
        let table = self.table.lock();
        (
            table.by_resource.get(resource).map_or(0, Vec::len),
            table.unsent.get(resource).map_or(0, BTreeSet::len),
        )
    }

    pub(crate) fn whereabouts(&self, xid: Xid, branch: BranchId) -> Whereabouts {
        let table = self.table.lock();
        match table.open.get(&(xid, branch)) {
            None => Whereabouts::None,
            Some(Open { sent: None, .. }) => Whereabouts::Waits,
            Some(Open {
                sent: Some(sent), ..
            }) => {
                let agent = table.agents.get(&sent.to);
                Whereabouts::Sent(agent.map_or_else(String::new, |agent| agent.name.clone()))
            }
        }
    }

    pub(crate) fn counts(&self) -> OrderCounts {
        let table = self.table.lock();
        OrderCounts {
            agents: table.agents.len(),
            open: table.open.len(),
            unattached: table.unsent.values().map(BTreeSet::len).sum(),
            promises: table.promises(),
        }
    }

    /// What an agent saw of the promises of one of its resources.
    pub(crate) fn promises_seen(&self, agent: ProcessId, resource: &Resource, seen: Promises) {
        let mut table = self.table.lock();
        if let Some(agent) = table.agents.get_mut(&agent)
            && agent.resources.contains(resource)
        {
            agent.promises.insert(Arc::clone(resource), seen);
        }
    }
}

impl Table {
    fn promises(&self) -> Promises {
        let mut of_resources: HashMap<&Resource, Promises> = HashMap::new();
        for (resource, seen) in self.agents.values().flat_map(|agent| &agent.promises) {
            let of_resource = of_resources.entry(resource).or_default();
            *of_resource = of_resource.seen_by_both(*seen);
        }
        of_resources
            .into_values()
            .fold(Promises::default(), Promises::and)
    }

    fn remove_agent(&mut self, process: ProcessId) -> Option<Agent> {
        let agent = self.agents.remove(&process)?;
        for resource in &agent.resources {
            if let Some(agents) = self.by_resource.get_mut(resource) {
                agents.retain(|other| *other != process);
                if agents.is_empty() {
                    self.by_resource.remove(resource);
                }
            }
        }
        Some(agent)
    }

    /// Counts the orders at a lost session as not sent.
    fn take_back(&mut self, process: ProcessId) {
        let lost: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, open)| open.sent.is_some_and(|sent| sent.to == process))
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            if let Some(open) = self.open.get_mut(&key) {
                open.sent = None;
                open.since = clock::now();
                let unsent = self.unsent.entry(Arc::clone(&open.order.resource));
                unsent.or_default().insert(key);
            }
        }
    }

    fn unsend(&mut self, key: Key) {
        if let Some(open) = self.open.get_mut(&key)
            && let Some(sent) = open.sent.take()
            && let Some(agent) = self.agents.get_mut(&sent.to)
        {
            agent.open = agent.open.saturating_sub(1);
        }
    }

    fn close(&mut self, key: Key) {
        self.unsend(key);
        if let Some(open) = self.open.remove(&key) {
            self.no_longer_unsent(&open.order.resource, key);
        }
    }

    fn no_longer_unsent(&mut self, resource: &Resource, key: Key) {
        // Most orders are never in here.
        if !self.unsent.is_empty()
            && let Some(keys) = self.unsent.get_mut(resource)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.unsent.remove(resource);
            }
        }
    }

    /// Sends what waits for a resource for as long as its agents have room.
    fn send_unsent(&mut self, resource: &Resource) {
        let Some(waiting) = self.unsent.remove(resource) else {
            return;
        };
        let mut left = waiting.into_iter();
        for key in left.by_ref() {
            if self.send(key) == Sending::NoRoom {
                break;
            }
        }
        let left: BTreeSet<Key> = left.collect();
        if !left.is_empty() {
            self.unsent
                .entry(Arc::clone(resource))
                .or_default()
                .extend(left);
        }
    }

    /// Sends an order to the best agent that has room, else it waits.
    fn send(&mut self, key: Key) -> Sending {
        let Some(open) = self.open.get_mut(&key) else {
            return Sending::Sent;
        };
        let order = &open.order;
        // Any other agent can only roll back what its own one keeps open.
        let of_open = matches!(order.action, Action::Prepare | Action::CommitOnePhase);
        let young = clock::now().duration_since(open.since) < OWN_AGENT_WAIT;
        let mut try_agent = |agents: &mut HashMap<ProcessId, Agent>, process: ProcessId| {
            let Some(agent) = agents.get_mut(&process) else {
                return false;
            };
            let event = BranchEvent {
                tag: 0,
                body: Some(branch_event::Body::Order(convert::order(order))),
            };
            let taken = agent.session.output.push_order(event);
            if taken {
                agent.open += 1;
                open.sent = Some(Sent {
                    to: process,
                    at: clock::now(),
                });
            }
            taken
        };
        let serves = |agents: &HashMap<ProcessId, Agent>| {
            let agent = agents.get(&order.agent);
            agent.is_some_and(|agent| agent.resources.contains(&order.resource))
        };
        let own = serves(&self.agents);
        if own && try_agent(&mut self.agents, order.agent) {
            return Sending::Sent;
        }
        if of_open && (own || young) {
            let unsent = self.unsent.entry(Arc::clone(&order.resource));
            unsent.or_default().insert(key);
            return Sending::Waits;
        }
        if let Some(agents) = self.by_resource.get(&order.resource) {
            for offset in 0..agents.len() {
                let process = agents[(self.turn + offset) % agents.len()];
                if try_agent(&mut self.agents, process) {
                    self.turn = self.turn.wrapping_add(1);
                    return Sending::Sent;
                }
            }
        }
        let unsent = self.unsent.entry(Arc::clone(&order.resource));
        unsent.or_default().insert(key);
        Sending::NoRoom
    }
}
