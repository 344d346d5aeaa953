//! A model operator: looks for stuck transactions and has them tried again.

use accede_core::{Command, ProcessId, Repair, RepairVerb};

use crate::{
    agenda::Event,
    message::{Address, Answer, Ask, Message, Peer},
    outside::Outside,
};

/// Milliseconds between two looks.
const LOOK_MS: u64 = 3_000;

/// The operator. Never dies.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    last_tag: u64,
}

impl Operator {
    fn ask(&mut self, out: &mut Outside, ask: Ask) {
        self.last_tag += 1;
        let me = Peer {
            address: Address::Operator,
            life: 0,
            process: ProcessId(1),
            session: 0,
        };
        out.ask(me, self.last_tag, ask);
    }

    pub(crate) fn look(&mut self, out: &mut Outside) {
        out.later(LOOK_MS, Event::Operator);
        self.ask(out, Ask::Stuck);
    }

    pub(crate) fn receive(&mut self, out: &mut Outside, message: Message) {
        let Message::Answer {
            answer: Answer::Stuck(stuck),
            ..
        } = message
        else {
            return;
        };
        for xid in stuck {
            let verb = if out.random.chance(800) {
                RepairVerb::Retry
            } else {
                RepairVerb::Apply
            };
            out.note(Address::Operator, Some(xid), || {
                format!("repairs with {verb:?}")
            });
            let repair = Repair {
                xid,
                branch: None,
                verb,
                by: "ada".to_owned(),
                reason: "looked at it".to_owned(),
            };
            self.ask(out, Ask::Command(Command::Repair(repair)));
        }
    }
}
