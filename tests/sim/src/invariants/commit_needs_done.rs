//! A commit is decided only when every branch that counts has committed in its database: it was
//! registered, and neither withdrawn nor is its local commit missing.

use std::collections::BTreeSet;

use accede_core::{BranchId, BranchStatus, Decision, Effect, Mode, Xid, alone::Phase};

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct CommitNeedsDone {
    committed_locally: BTreeSet<(Xid, BranchId)>,
}

impl Invariant for CommitNeedsDone {
    fn name(&self) -> &'static str {
        "commit_needs_done"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::LocalCommit { xid, branch, .. } => {
                self.committed_locally.insert((*xid, *branch));
            }
            News::Promise {
                xid,
                branch,
                to: Phase::Prepared | Phase::Committed,
                ..
            } => {
                self.committed_locally.insert((*xid, *branch));
            }
            News::Applied(step) => {
                for effect in step.effects {
                    if let Effect::Decided {
                        xid,
                        decision: Decision::Commit,
                    } = effect
                    {
                        self.all_done(facts, *xid)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl CommitNeedsDone {
    fn all_done(&self, facts: &Facts, xid: Xid) -> Result<(), String> {
        let transaction = facts.witness.transaction(xid);
        for branch in transaction.into_iter().flat_map(|t| t.branches()) {
            // Steps of sagas have a rule of their own.
            let counts = branch.status() != BranchStatus::Withdrawn && branch.mode() != Mode::Saga;
            if counts && !self.committed_locally.contains(&(xid, branch.id())) {
                return Err(format!(
                    "{xid}: decided to commit, but branch {} on {} has not committed locally",
                    branch.id().0,
                    branch.resource()
                ));
            }
        }
        Ok(())
    }
}
