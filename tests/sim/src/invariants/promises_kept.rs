//! What was promised, by 3PC, the try of TCC or a transaction that is prepared for XA, is kept or taken
//! back once, and only as the log has decided. Branches of 3PC: none is told of a commit before the
//! log says so; all are told before the first is ordered to commit, unless one had its time; and no
//! transaction waits for one that is away.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{
    Action, BranchId, BranchStatus, Command, Decision, Effect, Mode, Outcome, Reply, Status,
    Timestamp, Transaction, Xid,
    alone::Phase,
    limits::{GRACE_MS, PRE_COMMIT_WAIT_MS},
};

use super::Invariant;
use crate::oracle::{Facts, News, Step};

#[derive(Default)]
pub(super) struct PromisesKept {
    /// Transactions in which branches are hearing of the commit, since when.
    hearing: BTreeMap<Xid, Timestamp>,
    heard: BTreeSet<(Xid, BranchId)>,
    /// Their orders to commit went out before.
    ordered: BTreeSet<Xid>,
    /// How branches ended in their databases.
    ended: BTreeMap<(Xid, BranchId), Decision>,
}

impl Invariant for PromisesKept {
    fn name(&self) -> &'static str {
        "promises_kept"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Promise {
                xid,
                branch,
                from,
                to,
            } => {
                self.ends_one_way(*xid, *branch, *to)?;
                went_on(facts, *xid, *branch, (*from, *to))
            }
            News::CannotBe {
                xid,
                branch,
                phase,
                knows,
            } => Err(format!(
                "{xid}: branch {} is {phase:?} and hears {knows:?}",
                branch.0
            )),
            News::Ordered(order) if order.action == Action::PreCommit => {
                must_be_decided(facts, order.xid, order.branch, Decision::Commit)
            }
            News::Applied(step) => self.applied(facts, step),
            _ => Ok(()),
        }
    }
}

/// A branch of XA that was kept open ends before anybody has decided: alone, by its own decision;
/// or barred, when it shall prepare and is gone. One that was withdrawn meanwhile is barred whatever
/// is decided about the others.
fn decides_itself(facts: &Facts, xid: Xid, branch: BranchId, to: Phase) -> bool {
    let Some(transaction) = facts.witness.transaction(xid) else {
        return false;
    };
    let of_branch = transaction.branches().iter().find(|b| b.id() == branch);
    let barred = of_branch.is_some_and(|b| {
        let kept_or_withdrawn = [BranchStatus::KeptOpen, BranchStatus::Withdrawn];
        b.mode() == Mode::Xa && kept_or_withdrawn.contains(&b.status())
    });
    transaction.status() == Status::Delegated || (barred && to == Phase::Aborted)
}

fn went_on(
    facts: &Facts,
    xid: Xid,
    branch: BranchId,
    (from, to): (Phase, Phase),
) -> Result<(), String> {
    match to {
        Phase::Working | Phase::Prepared => return Ok(()),
        Phase::Committed | Phase::Aborted if decides_itself(facts, xid, branch, to) => {}
        Phase::PreCommitted => must_be_decided(facts, xid, branch, Decision::Commit)?,
        Phase::Committed => {
            must_be_decided(facts, xid, branch, Decision::Commit)?;
            let hears = |t: &&Transaction| {
                let of_branch = t.branches().iter().find(|b| b.id() == branch);
                t.status() == Status::PreCommitted
                    && of_branch.is_some_and(|b| b.mode() == Mode::ThreePhase)
            };
            let transaction = facts.witness.transaction(xid);
            if from == Phase::Prepared && transaction.filter(hears).is_some() {
                let branch = branch.0;
                return Err(format!(
                    "{xid}: branch {branch} commits before all have heard of it"
                ));
            }
        }
        Phase::Aborted => must_be_decided(facts, xid, branch, Decision::RollBack)?,
    }
    match from {
        Phase::Committed | Phase::Aborted => Err(format!(
            "{xid}: branch {} goes from {from:?} to {to:?}",
            branch.0
        )),
        Phase::Working | Phase::Prepared | Phase::PreCommitted => Ok(()),
    }
}

fn must_be_decided(
    facts: &Facts,
    xid: Xid,
    branch: BranchId,
    decision: Decision,
) -> Result<(), String> {
    match facts.decisions.get(&xid) {
        Some(decided) if *decided == decision => Ok(()),
        decided => Err(format!(
            "{xid}: branch {} goes by {decision:?}, decided is {decided:?}",
            branch.0
        )),
    }
}

impl PromisesKept {
    fn ends_one_way(&mut self, xid: Xid, branch: BranchId, to: Phase) -> Result<(), String> {
        let end = match to {
            Phase::Committed => Decision::Commit,
            Phase::Aborted => Decision::RollBack,
            Phase::Working | Phase::Prepared | Phase::PreCommitted => return Ok(()),
        };
        match *self.ended.entry((xid, branch)).or_insert(end) {
            first if first == end => Ok(()),
            first => Err(format!(
                "{xid}: branch {} ended with {first:?}, and now with {end:?}",
                branch.0
            )),
        }
    }

    /// Whoever ended before the decision made it, or was the cause of it.
    fn as_it_ended(&self, facts: &Facts, xid: Xid, decision: Decision) -> Result<(), String> {
        let transaction = facts.witness.transaction(xid);
        let branches = transaction.into_iter().flat_map(|t| t.branches());
        for branch in branches.filter(|b| b.status() != BranchStatus::Withdrawn) {
            if let Some(end) = self
                .ended
                .get(&(xid, branch.id()))
                .filter(|e| **e != decision)
            {
                return Err(format!(
                    "{xid}: decided is {decision:?}, but branch {} has ended with {end:?}",
                    branch.id().0
                ));
            }
        }
        Ok(())
    }

    fn applied(&mut self, facts: &Facts, step: &Step<'_>) -> Result<(), String> {
        let state = &facts.witness;
        if let Command::FinishBranch(finish) = step.command
            && matches!(finish.outcome, Outcome::PreCommitted | Outcome::Finished)
        {
            self.heard.insert((finish.xid, finish.branch));
        }
        for effect in step.effects {
            if let Effect::Decided { xid, decision } = effect {
                self.as_it_ended(facts, *xid, *decision)?;
            }
            match effect {
                Effect::Decided {
                    xid,
                    decision: Decision::Commit,
                } => {
                    let of_promises = state.transaction(*xid).is_some_and(|t| {
                        let mut branches = t.branches().iter();
                        branches.any(|b| {
                            b.mode() == Mode::ThreePhase && b.status() != BranchStatus::Withdrawn
                        })
                    });
                    if of_promises {
                        self.hearing.insert(*xid, state.now());
                    }
                }
                Effect::Order(order)
                    if order.mode == Mode::ThreePhase && order.action == Action::Commit =>
                {
                    self.may_be_ordered(facts, step, order.xid)?;
                }
                _ => {}
            }
        }
        let gone = |xid: &Xid| {
            let status = state.transaction(*xid).map(|t| t.status());
            status != Some(Status::PreCommitted)
        };
        let hearing = self.hearing.keys().copied();
        self.ordered.extend(hearing.filter(gone));
        self.nobody_waits_for_ever(facts, step)
    }

    /// Every other one has heard of the commit, or had its time, or can never.
    fn may_be_ordered(&self, facts: &Facts, step: &Step<'_>, xid: Xid) -> Result<(), String> {
        let known = self.hearing.get(&xid);
        let Some(since) = known.filter(|_| !self.ordered.contains(&xid)) else {
            return Ok(());
        };
        let stuck = |c: &Command| match c {
            Command::FinishBranch(c) => {
                c.xid == xid && !matches!(c.outcome, Outcome::PreCommitted | Outcome::Finished)
            }
            Command::Repair(c) => c.xid == xid,
            _ => false,
        };
        let had_time = facts.witness.now().since(*since) >= PRE_COMMIT_WAIT_MS;
        let transaction = facts.witness.transaction(xid);
        let mut branches = transaction.into_iter().flat_map(|t| t.branches());
        let deaf = branches.find(|b| {
            b.mode() == Mode::ThreePhase
                && b.status() != BranchStatus::Withdrawn
                && !self.heard.contains(&(xid, b.id()))
        });
        match deaf {
            Some(branch) if !had_time && !stuck(step.command) => Err(format!(
                "{xid}: orders to commit go out, but branch {} has not heard of the commit",
                branch.id().0
            )),
            _ => Ok(()),
        }
    }

    fn nobody_waits_for_ever(&self, facts: &Facts, step: &Step<'_>) -> Result<(), String> {
        let expired = *step.command == Command::Expire && *step.reply == Reply::Ok;
        if !expired {
            return Ok(());
        }
        let state = &facts.witness;
        for (xid, since) in &self.hearing {
            let waits = state.transaction(*xid).map(|t| t.status()) == Some(Status::PreCommitted);
            // The grace of the newest leader is not over for longer than this.
            if waits && state.now().since(*since) > PRE_COMMIT_WAIT_MS + GRACE_MS {
                return Err(format!(
                    "{xid}: still waits for one that has not heard of the commit"
                ));
            }
        }
        Ok(())
    }
}
