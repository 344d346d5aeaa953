//! A saga is done in its order and undone in the reverse: a step is done after all that it waits
//! for, and once; a compensation follows those of all steps that were started later, and there is
//! none without a rollback; no saga commits with a step undone, and none has rolled back before
//! every step that was started is compensated.

use std::collections::BTreeSet;

use accede_core::{BranchId, Decision, Effect, Mode, Saga, Transaction, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct SagaOrder {
    done: BTreeSet<(Xid, BranchId)>,
    compensated: BTreeSet<(Xid, BranchId)>,
}

fn steps(transaction: &Transaction) -> impl Iterator<Item = BranchId> {
    let branches = transaction.branches().iter();
    branches
        .filter(|branch| branch.mode() == Mode::Saga)
        .map(accede_core::Branch::id)
}

impl Invariant for SagaOrder {
    fn name(&self) -> &'static str {
        "saga_order"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::StepDone { xid, branch } => self.step_done(facts, *xid, *branch),
            News::Compensated { xid, branch } => self.compensate(facts, *xid, *branch),
            News::Applied(step) => step.effects.iter().try_for_each(|effect| match effect {
                Effect::Decided {
                    xid,
                    decision: Decision::Commit,
                } => self.all_done(facts, *xid),
                Effect::Ended {
                    xid,
                    decision: Decision::RollBack,
                } => self.all_compensated(facts, *xid),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }
    }
}

impl SagaOrder {
    fn step_done(&mut self, facts: &Facts, xid: Xid, branch: BranchId) -> Result<(), String> {
        let number = branch.0;
        if !self.done.insert((xid, branch)) {
            return Err(format!("{xid}: step {number} was done twice"));
        }
        if facts.ended.contains(&xid) {
            return Err(format!("{xid}: step {number} was done after the end"));
        }
        let saga = facts.witness.transaction(xid).and_then(Transaction::saga);
        let Some((saga, step)) = saga.and_then(|saga| Some((saga, saga.step_of(branch)?))) else {
            return Err(format!(
                "{xid}: step {number} was done before it was logged"
            ));
        };
        for before in step.after() {
            let before = saga.steps()[usize::from(*before)].branch();
            if before.is_none_or(|before| !self.done.contains(&(xid, before))) {
                return Err(format!(
                    "{xid}: step {number} was done before {before:?}, which it waits for"
                ));
            }
        }
        Ok(())
    }

    fn compensate(&mut self, facts: &Facts, xid: Xid, branch: BranchId) -> Result<(), String> {
        let number = branch.0;
        if facts.decisions.get(&xid) != Some(&Decision::RollBack) {
            return Err(format!(
                "{xid}: step {number} is compensated without a rollback"
            ));
        }
        self.compensated.insert((xid, branch));
        let transaction = facts.witness.transaction(xid);
        let later = transaction.into_iter().flat_map(steps);
        for later in later.filter(|later| *later > branch) {
            if !self.compensated.contains(&(xid, later)) {
                return Err(format!(
                    "{xid}: step {number} is compensated before step {}, which was started later",
                    later.0
                ));
            }
        }
        Ok(())
    }

    fn all_done(&self, facts: &Facts, xid: Xid) -> Result<(), String> {
        let transaction = facts.witness.transaction(xid);
        if !transaction
            .and_then(Transaction::saga)
            .is_none_or(Saga::is_done)
        {
            return Err(format!("{xid}: decided to commit before its saga is done"));
        }
        let mut steps = transaction.into_iter().flat_map(steps);
        match steps.find(|step| !self.done.contains(&(xid, *step))) {
            None => Ok(()),
            Some(step) => Err(format!(
                "{xid}: decided to commit, but nobody has done step {}",
                step.0
            )),
        }
    }

    fn all_compensated(&self, facts: &Facts, xid: Xid) -> Result<(), String> {
        let transaction = facts.witness.transaction(xid);
        let mut steps = transaction.into_iter().flat_map(steps);
        match steps.find(|step| !self.compensated.contains(&(xid, *step))) {
            None => Ok(()),
            Some(step) => Err(format!(
                "{xid}: has rolled back, but step {} is not compensated",
                step.0
            )),
        }
    }
}
