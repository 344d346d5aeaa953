//! All branches of a transaction end the same way, and as it was decided.

use accede_core::{BranchId, Decision, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct SameEnding;

fn ended(facts: &Facts, (xid, branch): (Xid, BranchId), how: Decision) -> Result<(), String> {
    let decided = facts.decisions.get(&xid);
    if decided == Some(&how) {
        return Ok(());
    }
    Err(format!(
        "{xid}: branch {} was finished with {how:?}, decided is {decided:?}",
        branch.0
    ))
}

impl Invariant for SameEnding {
    fn name(&self) -> &'static str {
        "same_ending"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Undone { xid, branch, .. } => ended(facts, (*xid, *branch), Decision::RollBack),
            News::Kept { xid, branch } => ended(facts, (*xid, *branch), Decision::Commit),
            News::LocalCommit { xid, branch, .. } if facts.ended.contains(xid) => Err(format!(
                "{xid}: branch {} commits locally after the transaction has ended",
                branch.0
            )),
            _ => Ok(()),
        }
    }
}
