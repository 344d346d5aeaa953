//! A transaction as its client runs it.

use std::collections::BTreeSet;

use accede_core::{Begin, Command, Commit, Decision, Rejection, Reply, RollBack, Xid};

use super::{
    Call, Client, ClientEvent,
    script::{Ending, Script, Step},
};
use crate::{
    message::{Answer, Ask, Message},
    oracle::News,
    outside::Outside,
    work::WorkError,
};

/// Milliseconds that a part may take.
const WORK_TIMEOUT_MS: u64 = 9_000;
/// Milliseconds after which an unanswered question is asked again.
const ASK_AGAIN_MS: u64 = 1_000;
/// Milliseconds of patience for a decision.
pub(super) const PATIENCE_MS: u64 = 30_000;

/// An open transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) script: Script,
    /// The next step.
    at: usize,
    parent: Option<Xid>,
    /// Parts that are being done.
    parts: BTreeSet<u64>,
    /// The nested transaction that runs.
    nested: Option<Xid>,
    /// What is asked of the coordinator, and under which tag.
    pub(super) asked: Option<(Ending, u64)>,
    failed: bool,
}

impl Client {
    /// Begins the next transaction.
    pub(super) fn next(&mut self, out: &mut Outside) {
        if self.left == 0 {
            return;
        }
        let ms = out
            .random
            .between(1, 2 * out.plan.calm_at / out.plan.transactions_per_client);
        out.client_later(ms, self.me(), ClientEvent::Next);
        let script = Script::draw(out, 0);
        if self.begin(out, script, None).is_some() {
            self.left -= 1;
        }
    }

    fn begin(&mut self, out: &mut Outside, script: Script, parent: Option<Xid>) -> Option<Xid> {
        let xid = self.make_xid(out)?;
        let name = if parent.is_some() { "nested" } else { "order" }.into();
        let timeout_ms = script.timeout_ms;
        let begin = Begin {
            process: self.process,
            xid,
            name,
            timeout_ms,
            parent,
        };
        out.note(self.me().address, Some(xid), || {
            let inside = parent.map_or_else(String::new, |parent| format!(" inside {parent}"));
            format!(
                "begins{inside}; time-out {timeout_ms} ms, then {:?}",
                script.ending
            )
        });
        self.begins.push_back(begin.clone());
        if self.connected {
            self.announce(out, begin);
        }
        let transaction = Transaction {
            script,
            at: 0,
            parent,
            parts: BTreeSet::new(),
            nested: None,
            asked: None,
            failed: false,
        };
        self.transactions.insert(xid, transaction);
        out.client_later(0, self.me(), ClientEvent::Go(xid));
        Some(xid)
    }

    /// Takes the next step.
    pub(super) fn go_on(&mut self, out: &mut Outside, xid: Xid) {
        let me = self.me();
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        if transaction.asked.is_some()
            || transaction.nested.is_some()
            || !transaction.parts.is_empty()
        {
            return;
        }
        let over = transaction.failed && !transaction.script.ignores_failures;
        let step = transaction
            .script
            .steps
            .get(transaction.at)
            .filter(|_| !over)
            .cloned();
        transaction.at += 1;
        match step {
            None => self.end(out, xid),
            Some(Step::Pause(ms)) => out.client_later(ms, me, ClientEvent::Go(xid)),
            Some(Step::Nested(script)) => {
                let nested = self.begin(out, *script, Some(xid));
                match self.transactions.get_mut(&xid) {
                    Some(transaction) if nested.is_some() => transaction.nested = nested,
                    // Without a lease there is none.
                    _ => out.client_later(50, me, ClientEvent::Go(xid)),
                }
            }
            Some(Step::Work(works)) => {
                for work in works {
                    let tag = self.next_tag();
                    if let Some(transaction) = self.transactions.get_mut(&xid) {
                        transaction.parts.insert(tag);
                    }
                    let agent = out.agent_of(work.database);
                    let message = Message::Work {
                        from: me,
                        tag,
                        xid,
                        work,
                    };
                    out.send(me.address, agent, None, message);
                    out.client_later(WORK_TIMEOUT_MS, me, ClientEvent::WorkTimeout(xid, tag));
                }
            }
        }
    }

    /// An agent has done its part, or not.
    pub(super) fn worked(&mut self, out: &mut Outside, tag: u64, result: Result<(), WorkError>) {
        let mut open = self.transactions.iter_mut();
        let Some((xid, transaction)) = open.find(|(_, t)| t.parts.contains(&tag)) else {
            return;
        };
        let xid = *xid;
        transaction.parts.remove(&tag);
        transaction.failed |= result.is_err();
        self.go_on(out, xid);
    }

    pub(super) fn work_timeout(&mut self, out: &mut Outside, xid: Xid, tag: u64) {
        let waits = self
            .transactions
            .get(&xid)
            .is_some_and(|t| t.parts.contains(&tag));
        if waits {
            self.worked(out, tag, Err(WorkError::NoAnswer));
        }
    }

    /// The steps are done: asks for the decision.
    fn end(&mut self, out: &mut Outside, xid: Xid) {
        let tag = self.next_tag();
        let Some(transaction) = self.transactions.get_mut(&xid) else {
            return;
        };
        let failed = transaction.failed && !transaction.script.ignores_failures;
        let ending = if failed {
            Ending::RollBack
        } else {
            transaction.script.ending
        };
        if ending == Ending::Silence {
            self.finish(out, xid);
            return self.ask_outcome(out, xid);
        }
        let saga = transaction.script.saga.as_ref();
        let saga = saga.filter(|_| ending == Ending::Commit);
        let ending = saga.map_or(ending, |_| Ending::Saga);
        let thinks_better = saga.and_then(|saga| saga.thinks_better_after);
        transaction.asked = Some((ending, tag));
        if let Some(ms) = thinks_better {
            out.client_later(ms, self.me(), ClientEvent::ThinkBetter(xid, tag));
        }
        out.client_later(PATIENCE_MS, self.me(), ClientEvent::Patience(xid, tag));
        self.ask_decision(out, xid, tag);
    }

    pub(super) fn ask_decision(&mut self, out: &mut Outside, xid: Xid, tag: u64) {
        let me = self.me();
        let asked = self
            .transactions
            .get(&xid)
            .and_then(|transaction| transaction.asked);
        let Some((ending, _)) = asked.filter(|(_, asked)| *asked == tag) else {
            return;
        };
        if self.connected {
            let command = match ending {
                Ending::Saga => match self.start_saga(xid, tag) {
                    Some(command) => command,
                    None => return,
                },
                Ending::Commit => Command::Commit(Commit { xid }),
                Ending::RollBack | Ending::Silence => Command::RollBack(RollBack {
                    xid,
                    detail: "as it was meant".to_owned(),
                }),
            };
            out.note(me.address, Some(xid), || format!("asks for {ending:?}"));
            out.ask(me, tag, Ask::Command(command));
        }
        out.client_later(ASK_AGAIN_MS, me, ClientEvent::AskDecision(xid, tag));
    }

    /// An answer to the question for a decision.
    pub(super) fn decision_answered(&mut self, out: &mut Outside, tag: u64, answer: Answer) {
        let asked = |t: &Transaction| t.asked.is_some_and(|(_, asked)| asked == tag);
        let Some(xid) = self
            .transactions
            .iter()
            .find(|(_, t)| asked(t))
            .map(|(xid, _)| *xid)
        else {
            return;
        };
        match answer {
            Answer::Reply(Reply::Decided(decision, _)) => self.told(out, xid, decision),
            Answer::Reply(Reply::SagaDone(..)) => self.saga_done(out, xid),
            Answer::Reply(Reply::Refused(rejection)) => {
                out.note(self.me().address, Some(xid), || {
                    format!("hears {rejection:?}")
                });
                // A begin that is still to be announced is not known yet.
                let announced = !self.begins.iter().any(|begin| begin.xid == xid);
                if announced || rejection != Rejection::NotBegun {
                    self.finish(out, xid);
                }
            }
            _ => {}
        }
    }

    pub(super) fn told(&mut self, out: &mut Outside, xid: Xid, decision: Decision) {
        out.note(self.me().address, Some(xid), || {
            format!("hears: {decision:?}")
        });
        out.tell(&News::Told(xid, decision));
        self.finish(out, xid);
    }

    /// The outcome stays unknown here.
    pub(super) fn patience_over(&mut self, out: &mut Outside, xid: Xid, tag: u64) {
        let asked = self
            .transactions
            .get(&xid)
            .and_then(|transaction| transaction.asked);
        if asked.is_some_and(|(_, asked)| asked == tag) {
            out.note(self.me().address, Some(xid), || {
                "gives up asking".to_owned()
            });
            self.finish(out, xid);
            self.ask_outcome(out, xid);
        }
    }

    /// Asks how a transaction ended whose end was not heard. Nothing depends on the answer.
    fn ask_outcome(&mut self, out: &mut Outside, xid: Xid) {
        let tag = self.next_tag();
        self.calls.insert(tag, Call::Outcome(xid));
        out.ask(self.me(), tag, Ask::Outcome(xid));
    }

    /// The coordinator will not know this transaction.
    pub(super) fn begin_refused(&mut self, out: &mut Outside, xid: Xid) {
        self.begins.retain(|begin| begin.xid != xid);
        if self.transactions.contains_key(&xid) {
            out.note(self.me().address, Some(xid), || {
                "is told that it did not begin".to_owned()
            });
            self.finish(out, xid);
        }
    }

    /// The client is through with a transaction.
    fn finish(&mut self, out: &mut Outside, xid: Xid) {
        let Some(transaction) = self.transactions.remove(&xid) else {
            return;
        };
        let parent = transaction
            .parent
            .and_then(|parent| self.transactions.get_mut(&parent));
        if let (Some(parent), Some(number)) = (parent, transaction.parent) {
            parent.nested = None;
            out.client_later(0, self.me(), ClientEvent::Go(number));
        }
    }
}
