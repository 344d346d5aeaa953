//! Which agents are attached, and the orders that are out or wait for one.

use std::collections::BTreeMap;

use accede_core::{Attempt, BranchId, Epoch, Order, ProcessId, Resource, Xid};

use crate::message::{Address, Peer};

type Key = (Xid, BranchId);

/// Milliseconds after which an order is repeated about which its agent is silent.
const SILENCE_MS: u64 = 8_000;

struct Agent {
    peer: Peer,
    resources: Vec<Resource>,
}

struct Open {
    order: Order,
    sent: Option<(ProcessId, u64)>,
}

/// The attached agents and the open orders; rebuilt from the state after a crash.
#[derive(Default)]
pub(super) struct Orders {
    agents: BTreeMap<ProcessId, Agent>,
    open: BTreeMap<Key, Open>,
    turn: usize,
}

impl Orders {
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// False if an even newer connection of the agent is attached.
    pub(super) fn attach(&mut self, peer: Peer, resources: Vec<Resource>) -> bool {
        let newest = self
            .agents
            .get(&peer.process)
            .map(|agent| agent.peer.session);
        if newest.is_some_and(|session| session > peer.session) {
            return false;
        }
        self.take_back(peer.process);
        self.agents.insert(peer.process, Agent { peer, resources });
        true
    }

    pub(super) fn detach(&mut self, peer: Peer) {
        let attached = self.agents.get(&peer.process);
        if attached.is_some_and(|agent| agent.peer.session <= peer.session) {
            self.agents.remove(&peer.process);
            self.take_back(peer.process);
        }
    }

    /// Nobody is at the other end of this life's connection.
    pub(super) fn detach_life(&mut self, address: Address, life: u32) {
        let is_it = |agent: &&Agent| (agent.peer.address, agent.peer.life) == (address, life);
        if let Some(peer) = self.agents.values().find(is_it).map(|agent| agent.peer) {
            self.detach(peer);
        }
    }

    fn take_back(&mut self, process: ProcessId) {
        for open in self.open.values_mut() {
            open.sent = open.sent.filter(|(to, _)| *to != process);
        }
    }

    /// Takes the place of an earlier order for the same branch.
    pub(super) fn put(&mut self, order: Order) {
        self.open
            .insert((order.xid, order.branch), Open { order, sent: None });
    }

    pub(super) fn drop_order(&mut self, xid: Xid, branch: BranchId) {
        self.open.remove(&(xid, branch));
    }

    /// The state machine has taken note of an outcome.
    pub(super) fn answered(&mut self, key: Key, attempt: Attempt, epoch: Epoch, finished: bool) {
        let current = self.open.get(&key).is_some_and(|open| {
            finished || (open.order.attempt == attempt && open.order.epoch == epoch)
        });
        if current {
            self.open.remove(&key);
        }
    }

    pub(super) fn in_progress(&mut self, agent: ProcessId, key: Key, now: u64) {
        if let Some(Open {
            sent: Some((to, at)),
            ..
        }) = self.open.get_mut(&key)
            && *to == agent
        {
            *at = now;
        }
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    pub(super) fn repeat_silent(&mut self, now: u64) {
        for open in self.open.values_mut() {
            open.sent = open.sent.filter(|(_, at)| now - at < SILENCE_MS);
        }
    }

    /// Sends what is not sent: to the agent that registered the branch, else to any of the
    /// resource.
    pub(super) fn send(&mut self, now: u64) -> Vec<(Peer, Order)> {
        let mut sent = Vec::new();
        for open in self.open.values_mut().filter(|open| open.sent.is_none()) {
            let serves = |agent: &&Agent| agent.resources.contains(&open.order.resource);
            let own = self.agents.get(&open.order.agent).filter(serves);
            let any = || {
                let able: Vec<&Agent> = self.agents.values().filter(serves).collect();
                let chosen = able.get(self.turn % able.len().max(1)).copied();
                self.turn = self.turn.wrapping_add(1);
                chosen
            };
            if let Some(agent) = own.or_else(any) {
                open.sent = Some((agent.peer.process, now));
                sent.push((agent.peer, open.order.clone()));
            }
        }
        sent
    }
}
