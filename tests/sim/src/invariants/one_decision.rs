//! A transaction is decided once, and everybody is told the same: the state machine's effects, the
//! answers to those who ask, and what clients hear.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{Decision, Effect, Reply, Waiter, Xid};

use super::Invariant;
use crate::{
    message::{Answer, Outcome},
    oracle::{Facts, News},
};

#[derive(Default)]
pub(super) struct OneDecision {
    /// What was said first, by whomever.
    said: BTreeMap<Xid, Decision>,
    decided: BTreeSet<Xid>,
}

impl OneDecision {
    fn is(&mut self, xid: Xid, decision: Decision, who: &str) -> Result<(), String> {
        let first = *self.said.entry(xid).or_insert(decision);
        if first == decision {
            return Ok(());
        }
        Err(format!(
            "{xid}: decided {first:?}, now {who} says {decision:?}"
        ))
    }
}

impl Invariant for OneDecision {
    fn name(&self) -> &'static str {
        "one_decision"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Applied(step) => {
                for effect in step.effects {
                    match effect {
                        Effect::Decided { xid, decision } => {
                            if !self.decided.insert(*xid) {
                                return Err(format!("{xid}: decided a second time, {decision:?}"));
                            }
                            self.is(*xid, *decision, "the state machine")?;
                        }
                        Effect::Ended { xid, decision } => {
                            self.is(*xid, *decision, "the end of it")?;
                        }
                        Effect::Answer {
                            waiter: Waiter::Commit(xid),
                            reply: Reply::Decided(decision, _),
                        } => self.is(*xid, *decision, "an answer that was waited for")?,
                        _ => {}
                    }
                }
                match (step.command.xid(), step.reply) {
                    (Some(xid), Reply::Decided(decision, _)) => self.is(xid, *decision, "a reply"),
                    _ => Ok(()),
                }
            }
            News::Answered {
                xid: Some(xid),
                answer:
                    Answer::Reply(Reply::Decided(decision, _))
                    | Answer::Outcome(Outcome::Decided(decision)),
                ..
            } => self.is(*xid, *decision, "an answer"),
            News::Told(xid, decision) => self.is(*xid, *decision, "what a client heard"),
            _ => Ok(()),
        }
    }
}
