//! What left the coordinator as an answer survives every crash: entries whose answers were sent
//! are found again, decisions, branches, begins and leases among them. What got no answer may be
//! lost.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{BranchId, Decision, Rejection, Reply, State, Whereabouts, Xid};

use super::Invariant;
use crate::{
    message::{Answer, Outcome},
    oracle::{Facts, News},
};

#[derive(Default)]
pub(super) struct DecisionsSurvive {
    /// The last entry of which anything was answered.
    promised_through: u64,
    decisions: BTreeMap<Xid, Decision>,
    branches: BTreeSet<(Xid, BranchId)>,
}

impl Invariant for DecisionsSurvive {
    fn name(&self) -> &'static str {
        "decisions_survive"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Answered { index, xid, answer } => {
                self.promised_through = self.promised_through.max(*index);
                xid.map_or(Ok(()), |xid| self.promised(facts, xid, answer))
            }
            News::Recovered { state, last_index } => self.recovered(facts, state, *last_index),
            _ => Ok(()),
        }
    }
}

impl DecisionsSurvive {
    fn promised(&mut self, facts: &Facts, xid: Xid, answer: &Answer) -> Result<(), String> {
        match answer {
            Answer::Reply(Reply::Decided(decision, _))
            | Answer::Outcome(Outcome::Decided(decision)) => {
                self.decisions.insert(xid, *decision);
            }
            Answer::Reply(Reply::Registered { branch, .. }) => {
                self.branches.insert((xid, *branch));
            }
            // Negative answers are exact.
            Answer::Reply(Reply::Refused(Rejection::NotBegun))
            | Answer::Outcome(Outcome::NotBegun)
                if self.decisions.contains_key(&xid) =>
            {
                return Err(format!(
                    "{xid}: was decided, and is now said not to have begun"
                ));
            }
            Answer::Reply(Reply::Refused(Rejection::Forgotten))
            | Answer::Outcome(Outcome::Forgotten)
                if facts.witness.transaction(xid).is_some() && !facts.ended.contains(&xid) =>
            {
                return Err(format!("{xid}: is said to be forgotten before it ended"));
            }
            _ => {}
        }
        Ok(())
    }

    fn recovered(&self, facts: &Facts, state: &State, last_index: u64) -> Result<(), String> {
        if last_index < self.promised_through {
            return Err(format!(
                "entry {} was answered, but the log ends with entry {last_index} after the crash",
                self.promised_through
            ));
        }
        for (xid, decision) in &self.decisions {
            let found = state.transaction(*xid).map(|t| t.decision());
            let forgotten = state.whereabouts(*xid) == Whereabouts::Forgotten;
            match found {
                Some(found) if found == Some(*decision) => {}
                None if forgotten && facts.ended.contains(xid) => {}
                found => {
                    return Err(format!(
                        "{xid}: {decision:?} was answered, after the crash it is {found:?}"
                    ));
                }
            }
        }
        for (xid, branch) in &self.branches {
            let lost = state
                .transaction(*xid)
                .map_or(!facts.ended.contains(xid), |t| {
                    t.branches().len() < branch.0 as usize
                });
            if lost {
                return Err(format!(
                    "{xid}: branch {} was answered and is lost",
                    branch.0
                ));
            }
        }
        Ok(())
    }
}
