//! The network: loses, delays, repeats and reorders messages, and is cut.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    agenda::{Agenda, Event},
    faults::Rates,
    message::{Address, Ask, Message, Peer},
    random::Random,
};

/// What may happen to messages. The begins of one connection stay in order, as on a stream: when
/// one is lost, the rest of the connection is lost with it.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Who is cut off from the coordinator.
    pub(crate) cut: BTreeSet<Address>,
    /// The connections in which a begin was lost.
    broken: BTreeMap<Address, u64>,
    /// When the last begin of a process arrives.
    begins_until: BTreeMap<Address, u64>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    /// Late by seconds.
    Slow,
    Repeated,
    Lost,
}

impl Network {
    /// Sends a message on its way.
    pub(crate) fn send(
        &mut self,
        (agenda, random, rates): (&mut Agenda, &mut Random, &Rates),
        now: u64,
        (from, to, life): (Address, Address, Option<u32>),
        message: Message,
    ) -> Fate {
        let apart = |a: Address, b: Address| b == Address::Coordinator && self.cut.contains(&a);
        let cut = apart(from, to) || apart(to, from);
        if let Some(session) = begin_session(&message) {
            if cut || random.chance(rates.drop / 4) {
                self.broken.insert(from, session);
            }
            if self.broken.get(&from) == Some(&session) {
                return Fate::Lost;
            }
            let floor = self.begins_until.get(&from).copied().unwrap_or(0);
            let at = floor.max(now + random.between(1, 4));
            self.begins_until.insert(from, at);
            agenda.plan(at, Event::Deliver { to, life, message });
            return Fate::Sent;
        }
        if cut || random.chance(rates.drop) {
            return Fate::Lost;
        }
        let mut fate = Fate::Sent;
        // Nobody repeats the calls between client and agent.
        let through_coordinator = to == Address::Coordinator || from == Address::Coordinator;
        if through_coordinator && random.chance(rates.repeat) {
            fate = Fate::Repeated;
            let at = now + random.between(1, 6_000);
            agenda.plan(
                at,
                Event::Deliver {
                    to,
                    life,
                    message: message.clone(),
                },
            );
        }
        let mut at = now + random.between(1, 4);
        if random.chance(rates.slow) {
            fate = Fate::Slow;
            at += random.between(20, 4_000);
        }
        agenda.plan(at, Event::Deliver { to, life, message });
        fate
    }
}

fn begin_session(message: &Message) -> Option<u64> {
    match message {
        Message::Ask {
            from: Peer { session, .. },
            ask: Ask::Command(_),
            ..
        } if message.is_begin() => Some(*session),
        _ => None,
    }
}
