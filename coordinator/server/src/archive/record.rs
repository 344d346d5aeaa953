//! One ended transaction as one line of JSON.

use accede_core::{
    Branch, BranchStatus, Decision, Problem, RepairVerb, RollBackReason, Timestamp, Transaction,
};
use serde::{Deserialize, Serialize};

use crate::{convert, limits::ARCHIVE_LINE_BYTES};

#[derive(Serialize)]
struct Record<'a> {
    xid: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// committed or rolled_back
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    began_wall_ms: u64,
    ended_wall_ms: u64,
    /// In the log's own time: grows along the archive.
    ended_at: u64,
    branches: Vec<BranchRecord<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repairs: Vec<RepairRecord<'a>>,
    /// Problems and repairs were left out: the line would be too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shortened: bool,
}

#[derive(Serialize)]
struct Reason {
    code: &'static str,
    detail: String,
}

#[derive(Serialize)]
struct BranchRecord<'a> {
    branch: u32,
    resource: &'a str,
    mode: &'static str,
    status: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemRecord<'a>>,
}

#[derive(Serialize)]
struct ProblemRecord<'a> {
    reason: &'a str,
    difference: &'a str,
    repair_statement: &'a str,
}

#[derive(Serialize)]
struct RepairRecord<'a> {
    branch: u32,
    verb: &'static str,
    by: &'a str,
    reason: &'a str,
    wall_ms: u64,
}

/// What is read back of a line.
#[derive(Deserialize)]
struct Last {
    ended_at: u64,
}

/// The line of an ended transaction, with its end.
pub(super) fn line(transaction: &Transaction) -> Vec<u8> {
    let mut line = json(&record(transaction, false));
    if line.len() > ARCHIVE_LINE_BYTES {
        line = json(&record(transaction, true));
    }
    line.push(b'\n');
    line
}

/// When the transaction of a line ended; `None` if it is no such line.
pub(super) fn ended_at(line: &[u8]) -> Option<Timestamp> {
    let last: Last = serde_json::from_slice(line).ok()?;
    Some(Timestamp(last.ended_at))
}

fn json(record: &Record<'_>) -> Vec<u8> {
    serde_json::to_vec(record).expect("texts and numbers can always be written as JSON")
}

fn record(transaction: &Transaction, shortened: bool) -> Record<'_> {
    let began = transaction.began_at();
    let ended = transaction.ended_at().unwrap_or(began);
    let began_wall_ms = transaction.began_wall().0;
    Record {
        xid: transaction.xid().to_string(),
        name: transaction.name(),
        parent: transaction.parent().map(|parent| parent.to_string()),
        outcome: match transaction.decision() {
            Some(Decision::Commit) => "committed",
            Some(Decision::RollBack) | None => "rolled_back",
        },
        reason: transaction.reason().map(reason),
        began_wall_ms,
        ended_wall_ms: began_wall_ms + ended.since(began),
        ended_at: ended.0,
        branches: transaction
            .branches()
            .iter()
            .map(|branch| branch_record(branch, shortened))
            .collect(),
        repairs: match shortened {
            true => Vec::new(),
            false => transaction.repairs().iter().map(repair).collect(),
        },
        shortened,
    }
}

fn reason(reason: &RollBackReason) -> Reason {
    let code = match reason {
        RollBackReason::Requested(_) => "requested",
        RollBackReason::TimedOut => "timed_out",
        RollBackReason::BranchUnfinished(_) => "branch_unfinished",
        RollBackReason::LeaseEnded => "lease_ended",
        RollBackReason::LocalCommitUnknown(..) => "local_commit_unknown",
        RollBackReason::StepFailed(..) => "step_failed",
        RollBackReason::BranchFailed(..) => "branch_failed",
    };
    Reason {
        code,
        detail: convert::reason(reason).detail,
    }
}

fn branch_record(branch: &Branch, shortened: bool) -> BranchRecord<'_> {
    BranchRecord {
        branch: branch.id().0,
        resource: branch.resource(),
        mode: branch.mode().as_str(),
        status: status(branch.status()),
        attempts: branch.attempt().0,
        problem: branch.problem().filter(|_| !shortened).map(problem),
    }
}

fn problem(problem: &Problem) -> ProblemRecord<'_> {
    ProblemRecord {
        reason: &problem.reason,
        difference: &problem.difference,
        repair_statement: &problem.repair_statement,
    }
}

fn status(status: BranchStatus) -> &'static str {
    match status {
        BranchStatus::Registered => "registered",
        BranchStatus::Done => "done",
        BranchStatus::Withdrawn => "withdrawn",
        BranchStatus::Finishing => "finishing",
        BranchStatus::Finished => "finished",
        BranchStatus::Stuck => "stuck",
        BranchStatus::Accepted => "accepted",
        BranchStatus::Skipped => "skipped",
        BranchStatus::PreCommitted => "pre-committed",
        BranchStatus::KeptOpen => "kept open",
    }
}

fn repair(repair: &accede_core::RepairRecord) -> RepairRecord<'_> {
    RepairRecord {
        branch: repair.branch.0,
        verb: match repair.verb {
            RepairVerb::Retry => "retry",
            RepairVerb::Apply => "apply",
            RepairVerb::Accept => "accept",
            RepairVerb::Skip => "skip",
        },
        by: &repair.by,
        reason: &repair.reason,
        wall_ms: repair.wall.0,
    }
}
