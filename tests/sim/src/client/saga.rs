//! A saga that the coordinator does for a transaction.

use accede_core::{Command, Decision, OnTrouble, Payload, RequestId, StartSaga, StepPlan, Xid};

use super::{Client, ClientEvent, script::Ending};
use crate::{database::action_of, outside::Outside};

/// The input of a step that its participant will never do.
pub(crate) const CANNOT: &[u8] = b"cannot";

/// What a saga will be, drawn with its transaction.
#[derive(Clone, Debug)]
pub(super) struct SagaScript {
    steps: Vec<StepPlan>,
    commit_when_done: bool,
    /// Rolls back although the saga goes on.
    pub(super) thinks_better_after: Option<u64>,
}

impl SagaScript {
    pub(super) fn draw(out: &mut Outside) -> Self {
        let databases = out.plan.databases as u64;
        let random = &mut out.random;
        let count = random.between(1, 5) as u16;
        let steps = (0..count).map(|at| {
            let after = (0..at).filter(|_| random.chance(500)).collect();
            let input = if random.chance(60) { CANNOT } else { b"go" };
            let on_trouble = if random.chance(300) {
                OnTrouble::Forward
            } else {
                let attempts = random.between(1, 4) as u32;
                OnTrouble::Backward { attempts }
            };
            StepPlan {
                name: format!("step {at}").into(),
                resource: action_of(random.below(databases) as usize),
                callback: false,
                input: Payload::from(input),
                after,
                attempt_timeout_ms: random.between(20, 4_000) as u32,
                on_trouble,
            }
        });
        let steps = steps.collect();
        let commit_when_done = random.chance(600);
        let thinks_better = random.chance(150).then(|| random.between(5, 800));
        Self {
            steps,
            commit_when_done,
            thinks_better_after: thinks_better,
        }
    }
}

impl Client {
    /// The request for the saga of a transaction; the same each time it is sent.
    pub(super) fn start_saga(&self, xid: Xid, tag: u64) -> Option<Command> {
        let saga = self.transactions.get(&xid)?.script.saga.as_ref()?;
        Some(Command::StartSaga(StartSaga {
            xid,
            request: RequestId {
                process: self.process,
                sequence: tag,
            },
            steps: saga.steps.clone(),
            commit_when_done: saga.commit_when_done,
        }))
    }

    /// Every step is done: the transaction has committed by itself, or is to be.
    pub(super) fn saga_done(&mut self, out: &mut Outside, xid: Xid) {
        let saga = self.transactions.get(&xid);
        let saga = saga.and_then(|t| t.script.saga.as_ref());
        if saga.is_some_and(|saga| saga.commit_when_done) {
            return self.told(out, xid, Decision::Commit);
        }
        self.ask_instead(out, xid, Ending::Commit);
    }

    /// Rolls back what its saga may still be doing.
    pub(super) fn think_better(&mut self, out: &mut Outside, xid: Xid, tag: u64) {
        let asked = self.transactions.get(&xid).and_then(|t| t.asked);
        if asked == Some((Ending::Saga, tag)) {
            self.ask_instead(out, xid, Ending::RollBack);
        }
    }

    fn ask_instead(&mut self, out: &mut Outside, xid: Xid, ending: Ending) {
        let tag = self.next_tag();
        if let Some(transaction) = self.transactions.get_mut(&xid) {
            transaction.asked = Some((ending, tag));
        }
        let patience = ClientEvent::Patience(xid, tag);
        out.client_later(super::transaction::PATIENCE_MS, self.me(), patience);
        self.ask_decision(out, xid, tag);
    }
}
