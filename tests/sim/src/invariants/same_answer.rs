//! The same request id gets the same answer, to the last bit, for as long as its transaction is open, and no two
//! requests get the same branch.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{BranchId, Command, Rejection, Reply, RequestId, Xid};

use super::Invariant;
use crate::oracle::{Facts, News, request_answers};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Registered(BranchId, u32),
    LocksFree,
    Refused(Rejection),
}

#[derive(Default)]
pub(super) struct SameAnswer {
    told: BTreeMap<(Xid, RequestId), Told>,
    branches: BTreeMap<(Xid, BranchId), RequestId>,
    /// Taken back by their agents: from some moment on that is the answer.
    withdrawn: BTreeSet<(Xid, RequestId)>,
}

fn told(reply: &Reply) -> Option<Told> {
    match reply {
        Reply::Registered {
            branch, give_up_ms, ..
        } => Some(Told::Registered(*branch, *give_up_ms)),
        Reply::LocksFree => Some(Told::LocksFree),
        // These say that nothing was decided about the request.
        Reply::Refused(
            Rejection::NotBegun
            | Rejection::Forgotten
            | Rejection::AlreadyDecided(_)
            | Rejection::TooManyWaiting { .. }
            | Rejection::TooManyBranches { .. },
        ) => None,
        Reply::Refused(rejection) => Some(Told::Refused(rejection.clone())),
        _ => None,
    }
}

impl Invariant for SameAnswer {
    fn name(&self) -> &'static str {
        "same_answer"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::Applied(step) = news else {
            return Ok(());
        };
        if let Command::WithdrawBranch(withdraw) = step.command {
            self.withdrawn.insert((withdraw.xid, withdraw.request));
        }
        for (xid, request, reply) in request_answers(step) {
            let Some(now) = told(reply) else {
                continue;
            };
            if let Told::Registered(branch, _) = now {
                let owner = *self.branches.entry((xid, branch)).or_insert(request);
                if owner != request {
                    return Err(format!(
                        "{xid}: branch {} was given to {owner:?} and to {request:?}",
                        branch.0
                    ));
                }
            }
            let before = self
                .told
                .entry((xid, request))
                .or_insert_with(|| now.clone());
            if *before != now && !self.withdrawn.contains(&(xid, request)) {
                return Err(format!(
                    "{xid}: {request:?} was answered {before:?}, its repeat {now:?}"
                ));
            }
        }
        Ok(())
    }
}
