//! Repeated and late messages have no effect: a repeat of a command that was taken leaves its
//! transaction as it is, and what an old attempt or a former leader's order came to counts for
//! nothing unless it is a success.

use std::collections::BTreeMap;

use accede_core::{Command, Mode, Outcome, Reply, Xid, codec};

use super::Invariant;
use crate::oracle::{Facts, News, Step};

#[derive(Default)]
pub(super) struct LateMessages {
    /// Commands that were taken, as bytes, by transaction.
    taken: BTreeMap<Xid, Vec<Vec<u8>>>,
}

impl LateMessages {
    fn is_repeat(&mut self, facts: &Facts, xid: Xid, step: &Step<'_>) -> bool {
        let command = std::slice::from_ref(step.command);
        let bytes = codec::encode_batch(Default::default(), Default::default(), command);
        let taken = self.taken.entry(xid).or_default();
        if taken.contains(&bytes) {
            return true;
        }
        // Before its transaction is known a command may be parked and dropped again.
        let known = facts.witness.transaction(xid).is_some() && step.before.is_some();
        let accepted = !matches!(step.reply, Reply::Refused(_));
        // An operator may ask for the same again, and means it; a transaction that still stands
        // still stands in the way of whoever has begun to wait since.
        let repeatable = !matches!(step.command, Command::Repair(_) | Command::Blocked(_));
        if known && accepted && repeatable {
            taken.push(bytes);
        }
        false
    }
}

/// The outcome of another attempt than the newest, or of a former leader's order.
fn is_stale(facts: &Facts, step: &Step<'_>) -> bool {
    let (Command::FinishBranch(finish), Some(before)) = (step.command, step.before) else {
        return false;
    };
    let branch = before.branches().get(finish.branch.0 as usize - 1);
    let newest = branch.map(|b| b.attempt());
    // What was kept open and is rolled back stays so.
    let no = matches!(finish.outcome, Outcome::Refused(_))
        && branch.is_some_and(|b| b.mode() == Mode::Xa);
    // What is durable at a participant is so whoever asked.
    !no && !matches!(
        finish.outcome,
        Outcome::Finished | Outcome::PreCommitted | Outcome::Prepared | Outcome::Ran(_)
    ) && (newest != Some(finish.attempt) || finish.epoch != facts.witness.epoch())
}

impl Invariant for LateMessages {
    fn name(&self) -> &'static str {
        "late_messages"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::Applied(step) = news else {
            return Ok(());
        };
        let Some(xid) = step.command.xid() else {
            return Ok(());
        };
        let repeat = self.is_repeat(facts, xid, step);
        let stale = is_stale(facts, step);
        let unchanged = facts.witness.transaction(xid) == step.before && step.effects.is_empty();
        if (repeat || stale) && !unchanged {
            let which = if stale { "late" } else { "repeated" };
            return Err(format!(
                "{xid}: a {which} message had an effect: {:?}",
                step.command
            ));
        }
        Ok(())
    }
}
