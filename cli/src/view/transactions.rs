//! `accede tx list` and `accede tx show`.

use accede_proto::v1::{
    BranchDetail, ListTransactionsResponse, PhaseTwoProblem, RepairRecord, TransactionDetail,
    TransactionSummary, WaitingRequest,
};
use comfy_table::Cell;
use serde::Serialize;

use super::{
    decision_word, mode_word, reason_word, roll_back_sentence, status_word, verb_word, waiter, xid,
};
use crate::{
    output::{Output, status_cell, trimmed},
    text,
};

/// What `accede tx list --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ListView {
    transactions: Vec<SummaryView>,
    more: bool,
}

#[derive(Debug, Serialize)]
struct SummaryView {
    xid: String,
    name: String,
    status: &'static str,
    decision: Option<&'static str>,
    roll_back_reason: Option<&'static str>,
    roll_back_detail: Option<String>,
    age_ms: u64,
    remaining_ms: u64,
    branch_count: u32,
    unfinished_branches: u32,
    modes: Vec<&'static str>,
    began_wall_ms: u64,
    #[serde(skip)]
    sentence: Option<String>,
}

impl From<TransactionSummary> for SummaryView {
    fn from(summary: TransactionSummary) -> Self {
        let (status, decision) = (summary.status(), summary.decision());
        let reason = summary.reason.as_ref();
        Self {
            xid: xid(summary.xid),
            status: status_word(status),
            decision: decision_word(decision),
            roll_back_reason: reason.map(reason_word),
            roll_back_detail: reason.map(|r| r.detail.clone()).filter(|d| !d.is_empty()),
            sentence: reason.map(roll_back_sentence),
            age_ms: summary.age_ms,
            remaining_ms: summary.remaining_ms,
            branch_count: summary.branches,
            unfinished_branches: summary.unfinished_branches,
            modes: summary.modes().map(mode_word).collect(),
            began_wall_ms: summary.began_wall_ms,
            name: summary.name,
        }
    }
}

impl From<ListTransactionsResponse> for ListView {
    fn from(list: ListTransactionsResponse) -> Self {
        Self {
            transactions: list
                .transactions
                .into_iter()
                .map(SummaryView::from)
                .collect(),
            more: list.more,
        }
    }
}

impl ListView {
    /// The same for people.
    pub(crate) fn to_text(&self, output: Output) -> String {
        if self.transactions.is_empty() {
            return "No transaction matches.".to_owned();
        }
        let mut table = output.table(&[
            "xid",
            "status",
            "age",
            "branches",
            "modes",
            "name",
            "rolled back because",
        ]);
        for summary in &self.transactions {
            table.add_row([
                Cell::new(&summary.xid),
                status_cell(summary.status),
                Cell::new(text::duration(summary.age_ms)),
                Cell::new(branches(summary)),
                Cell::new(summary.modes.join(", ")),
                Cell::new(&summary.name),
                Cell::new(summary.sentence.as_deref().unwrap_or_default()),
            ]);
        }
        let mut text = trimmed(&table);
        if self.more {
            text.push_str("\n\nMore transactions match: raise --limit, or narrow with --status and --older-than.");
        }
        text
    }
}

fn branches(summary: &SummaryView) -> String {
    match summary.unfinished_branches {
        0 => summary.branch_count.to_string(),
        open => format!("{} ({open} unfinished)", summary.branch_count),
    }
}

/// `flight: compensate`; nothing for a branch that is no step of a saga.
fn step(branch: &BranchView) -> String {
    match branch.step.as_str() {
        "" => String::new(),
        step => format!("{step}: {}", branch.direction),
    }
}

/// Nothing where there are none: most modes have none.
fn arguments(bytes: u32) -> String {
    match bytes {
        0 => String::new(),
        bytes => text::bytes(bytes.into()),
    }
}

/// What `accede tx show --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct DetailView {
    #[serde(flatten)]
    summary: SummaryView,
    parent: Option<String>,
    worker: u32,
    commit_waiting: bool,
    branches: Vec<BranchView>,
    waiting: Vec<WaitingView>,
    repairs: Vec<RepairView>,
}

#[derive(Debug, Serialize)]
struct BranchView {
    branch: u32,
    resource: String,
    mode: &'static str,
    status: String,
    row_locks: u32,
    payload_bytes: u32,
    step: String,
    direction: String,
    agent: String,
    attempt: u32,
    failures: u32,
    next_attempt_in_ms: u64,
    waiting_for_agent: bool,
    problem: Option<ProblemView>,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    kind: String,
    reason: String,
    difference: String,
    repair_statement: String,
}

#[derive(Debug, Serialize)]
struct WaitingView {
    resource: String,
    row_locks: u32,
    blocked_by: Vec<String>,
    waiting_for_ms: u64,
    gives_up_in_ms: u64,
}

#[derive(Debug, Serialize)]
struct RepairView {
    branch: u32,
    verb: &'static str,
    by: String,
    reason: String,
    wall_ms: u64,
}

impl From<BranchDetail> for BranchView {
    fn from(branch: BranchDetail) -> Self {
        Self {
            mode: mode_word(branch.mode()),
            branch: branch.branch,
            resource: branch.resource,
            status: branch.status,
            row_locks: branch.row_locks,
            payload_bytes: branch.payload_bytes,
            step: branch.step,
            direction: branch.direction,
            agent: branch.agent,
            attempt: branch.attempt,
            failures: branch.failures,
            next_attempt_in_ms: branch.next_attempt_in_ms,
            waiting_for_agent: branch.waiting_for_agent,
            problem: branch.problem.map(ProblemView::from),
        }
    }
}

impl From<PhaseTwoProblem> for ProblemView {
    fn from(problem: PhaseTwoProblem) -> Self {
        Self {
            kind: problem.kind,
            reason: problem.reason,
            difference: problem.difference,
            repair_statement: problem.repair_statement,
        }
    }
}

impl From<WaitingRequest> for WaitingView {
    fn from(waiting: WaitingRequest) -> Self {
        Self {
            resource: waiting.resource,
            row_locks: waiting.row_locks,
            blocked_by: waiting.blocked_by.into_iter().map(waiter).collect(),
            waiting_for_ms: waiting.waiting_for_ms,
            gives_up_in_ms: waiting.gives_up_in_ms,
        }
    }
}

impl From<RepairRecord> for RepairView {
    fn from(record: RepairRecord) -> Self {
        Self {
            verb: verb_word(record.verb()),
            branch: record.branch,
            by: record.by,
            reason: record.reason,
            wall_ms: record.wall_ms,
        }
    }
}

impl From<TransactionDetail> for DetailView {
    fn from(detail: TransactionDetail) -> Self {
        Self {
            summary: detail.summary.unwrap_or_default().into(),
            parent: Some(detail.parent).filter(|p| *p != 0).map(xid),
            worker: detail.worker,
            commit_waiting: detail.commit_waiting,
            branches: detail.branches.into_iter().map(BranchView::from).collect(),
            waiting: detail.waiting.into_iter().map(WaitingView::from).collect(),
            repairs: detail.repairs.into_iter().map(RepairView::from).collect(),
        }
    }
}

impl DetailView {
    /// The same for people.
    pub(crate) fn to_text(&self, output: Output) -> String {
        let mut parts = vec![self.facts(output)];
        if !self.branches.is_empty() {
            parts.push(self.branches_table(output));
        }
        if !self.waiting.is_empty() {
            parts.push(self.waiting_table(output));
        }
        if !self.repairs.is_empty() {
            parts.push(self.repairs_table(output));
        }
        parts.join("\n\n")
    }

    fn facts(&self, output: Output) -> String {
        let summary = &self.summary;
        let mut table = output.table(&[]);
        let mut fact = |name: &str, value: Cell| {
            table.add_row([Cell::new(name), value]);
        };
        fact("transaction", Cell::new(&summary.xid));
        fact("name", Cell::new(&summary.name));
        fact("status", status_cell(summary.status));
        if let Some(sentence) = &summary.sentence {
            fact("rolled back because", Cell::new(sentence));
        }
        let began = text::wall_time(summary.began_wall_ms);
        let age = text::duration(summary.age_ms);
        fact("began", Cell::new(format!("{began}, {age} ago")));
        if summary.remaining_ms > 0 {
            fact(
                "times out in",
                Cell::new(text::duration(summary.remaining_ms)),
            );
        }
        if let Some(parent) = &self.parent {
            fact("inside", Cell::new(parent));
        }
        fact("worker", Cell::new(self.worker));
        trimmed(&table)
    }

    fn branches_table(&self, output: Output) -> String {
        let mut table = output.table(&[
            "branch",
            "resource",
            "mode",
            "step",
            "status",
            "row locks",
            "arguments",
            "agent",
            "attempt",
            "problem",
        ]);
        for branch in &self.branches {
            let problem = branch.problem.as_ref().map_or("", |p| p.reason.as_str());
            table.add_row([
                Cell::new(branch.branch),
                Cell::new(&branch.resource),
                Cell::new(branch.mode),
                Cell::new(step(branch)),
                status_cell(&branch.status),
                Cell::new(branch.row_locks),
                Cell::new(arguments(branch.payload_bytes)),
                Cell::new(&branch.agent),
                Cell::new(branch.attempt),
                Cell::new(problem),
            ]);
        }
        trimmed(&table)
    }

    fn waiting_table(&self, output: Output) -> String {
        let mut table = output.table(&["waits on", "row locks", "since", "gives up in", "behind"]);
        table.add_rows(self.waiting.iter().map(|waiting| {
            [
                waiting.resource.clone(),
                waiting.row_locks.to_string(),
                text::duration(waiting.waiting_for_ms),
                text::duration(waiting.gives_up_in_ms),
                waiting.blocked_by.join(", "),
            ]
        }));
        trimmed(&table)
    }

    fn repairs_table(&self, output: Output) -> String {
        let mut table = output.table(&["repaired", "branch", "verb", "by", "reason"]);
        table.add_rows(self.repairs.iter().map(|record| {
            [
                text::wall_time(record.wall_ms),
                record.branch.to_string(),
                record.verb.to_owned(),
                record.by.clone(),
                record.reason.clone(),
            ]
        }));
        trimmed(&table)
    }
}

#[cfg(test)]
mod tests {
    use accede_proto::v1::{Decision, Mode, RepairVerb, RollBackReason, Status, roll_back_reason};

    use super::*;

    const PLAIN: Output = Output {
        json: false,
        colour: false,
    };

    fn detail() -> TransactionDetail {
        TransactionDetail {
            summary: Some(TransactionSummary {
                xid: 0x1f,
                name: "place-order".to_owned(),
                status: Status::Stuck.into(),
                decision: Decision::RollBack.into(),
                reason: Some(RollBackReason {
                    code: roll_back_reason::Code::TimedOut.into(),
                    detail: String::new(),
                }),
                age_ms: 61_000,
                branches: 2,
                unfinished_branches: 1,
                began_wall_ms: 1_795_228_853_000,
                remaining_ms: 0,
                modes: vec![Mode::At.into(), Mode::Tcc.into()],
            }),
            branches: vec![BranchDetail {
                payload_bytes: 17,
                step: "flight".to_owned(),
                direction: "compensate".to_owned(),
                branch: 1,
                resource: "stock-db".to_owned(),
                mode: Mode::At.into(),
                status: "stuck".to_owned(),
                row_locks: 3,
                attempt: 4,
                problem: Some(PhaseTwoProblem {
                    reason: "a row was changed".to_owned(),
                    ..Default::default()
                }),
                agent: "stock@host-3".to_owned(),
                ..Default::default()
            }],
            waiting: vec![WaitingRequest {
                resource: "order-db".to_owned(),
                row_locks: 1,
                blocked_by: vec![0x2a],
                waiting_for_ms: 1_000,
                gives_up_in_ms: 9_000,
            }],
            repairs: vec![RepairRecord {
                branch: 1,
                verb: RepairVerb::Retry.into(),
                by: "ann".to_owned(),
                reason: "disk replaced".to_owned(),
                wall_ms: 1_795_228_853_000,
            }],
            parent: 0x10,
            commit_waiting: false,
            worker: 12,
        }
    }

    #[test]
    fn a_transaction_is_shown_whole() {
        let view = DetailView::from(detail());
        let text = view.to_text(PLAIN);
        for part in [
            "000000000000001f",
            "stuck",
            "its time-out passed",
            "1 min 1 s ago",
            "stock@host-3",
            "a row was changed",
            "000000000000002a",
            "ann",
            "disk replaced",
            "0000000000000010",
            "17 B",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = serde_json::to_value(&view).expect("plain data");
        assert_eq!(json["xid"], "000000000000001f");
        assert_eq!(json["roll_back_reason"], "timed-out");
        assert_eq!(json["branches"][0]["mode"], "AT");
        assert_eq!(json["branches"][0]["payload_bytes"], 17);
        assert_eq!(json["modes"][1], "TCC");
        assert_eq!(json["repairs"][0]["verb"], "retry");
        assert_eq!(json["waiting"][0]["blocked_by"][0], "000000000000002a");
    }

    #[test]
    fn a_list_says_when_there_is_more() {
        let empty = ListView::from(ListTransactionsResponse::default());
        assert_eq!(empty.to_text(PLAIN), "No transaction matches.");
        let list = ListView::from(ListTransactionsResponse {
            transactions: vec![detail().summary.expect("set above")],
            more: true,
        });
        let text = list.to_text(PLAIN);
        assert!(
            text.contains("2 (1 unfinished)")
                && text.contains("AT, TCC")
                && text.contains("raise --limit"),
            "{text}"
        );
    }
}
