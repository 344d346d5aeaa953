use accede_proto::v1::{
    BranchDetail, Decision, PhaseTwoProblem, RepairRecord, RepairVerb, RollBackReason, Status,
    TransactionDetail, TransactionSummary, WaitingRequest, roll_back_reason::Code,
};

use accede_proto::v1::Mode;

use super::{Why, why};

fn transaction(status: Status, branches: Vec<BranchDetail>) -> TransactionDetail {
    let decision = match status {
        Status::PreCommitted | Status::Committing | Status::Committed => Decision::Commit,
        Status::RollingBack | Status::RolledBack | Status::Stuck => Decision::RollBack,
        _ => Decision::Unspecified,
    };
    TransactionDetail {
        summary: Some(TransactionSummary {
            xid: 0x000c_1f40_a2e0_0001,
            name: "place-order".to_owned(),
            status: status.into(),
            decision: decision.into(),
            reason: (decision == Decision::RollBack).then(|| RollBackReason {
                code: Code::TimedOut.into(),
                detail: String::new(),
            }),
            age_ms: 4_000,
            remaining_ms: if status == Status::Active { 26_000 } else { 0 },
            branches: u32::try_from(branches.len()).expect("few"),
            ..Default::default()
        }),
        branches,
        ..Default::default()
    }
}

fn branch(branch: u32, resource: &str, status: &str) -> BranchDetail {
    BranchDetail {
        branch,
        resource: resource.to_owned(),
        status: status.to_owned(),
        agent: "stock@host-3".to_owned(),
        ..Default::default()
    }
}

/// The text has these parts in this order.
fn assert_parts(why: &Why, parts: &[&str]) {
    let text = why.to_text();
    let mut rest = text.as_str();
    for part in parts {
        let Some(at) = rest.find(part) else {
            panic!("{part:?} is missing or out of order in:\n{text}");
        };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn an_active_one_waits_for_its_application() {
    let why = why(&transaction(Status::Active, Vec::new()));
    assert_parts(
        &why,
        &[
            "Transaction 000c1f40a2e00001 (place-order) is active, not decided.",
            "It began 4 s ago; unless it is decided before, it is rolled back in 26 s.",
            "it is for the application",
        ],
    );
    assert_eq!(why.actions, []);
}

#[test]
fn an_active_one_names_open_branches_and_its_parent() {
    let mut detail = transaction(
        Status::Active,
        vec![
            branch(1, "stock-db", "registered"),
            branch(2, "order-db", "done"),
        ],
    );
    detail.parent = 0x2a;
    assert_parts(
        &why(&detail),
        &[
            "inside transaction 000000000000002a",
            "Branch 1 on stock-db has registered and not yet reported",
        ],
    );
    detail.summary.as_mut().expect("set").remaining_ms = 0;
    detail.branches[1].status = "registered".to_owned();
    assert_parts(
        &why(&detail),
        &[
            "its time-out has passed",
            "Branch 1 on stock-db and branch 2 on order-db have registered",
        ],
    );
}

#[test]
fn a_pre_committed_one_says_who_has_heard() {
    let mut away = branch(2, "parcel.send", "finishing");
    away.mode = Mode::ThreePhase.into();
    away.waiting_for_agent = true;
    let mut heard = branch(1, "account.pay", "pre-committed");
    heard.mode = Mode::ThreePhase.into();
    assert_parts(
        &why(&transaction(Status::PreCommitted, vec![heard, away])),
        &[
            "is pre-committed: its branches of 3PC are hearing that the commit is decided",
            "Branch 1 (3PC) on account.pay has heard that the commit is decided",
            "Branch 2 (3PC) on parcel.send waits for an agent",
        ],
    );
}

#[test]
fn a_delegated_one_says_who_decides() {
    let mut decides = branch(1, "stock-db", "finishing");
    decides.mode = Mode::Xa.into();
    decides.attempt = 3;
    decides.next_attempt_in_ms = 4_000;
    let mut detail = transaction(Status::Delegated, vec![decides]);
    detail.commit_waiting = true;
    let why = why(&detail);
    assert_parts(
        &why,
        &[
            "is delegated: its commit was asked for, and its only branch",
            "Branch 1 (XA) on stock-db is tried again in",
            "retry --by",
        ],
    );
}

#[test]
fn a_vote_that_is_waited_for_is_named() {
    let mut votes = branch(1, "stock-db", "kept open");
    votes.mode = Mode::Xa.into();
    votes.attempt = 1;
    let mut detail = transaction(Status::Active, vec![votes, branch(2, "order-db", "done")]);
    detail.commit_waiting = true;
    assert_parts(
        &why(&detail),
        &[
            "waits for the database to prepare branch 1 (XA) on stock-db",
            "It waits for branch 1 (XA) on stock-db to report",
        ],
    );
}

#[test]
fn a_wait_names_who_is_ahead() {
    let mut detail = transaction(Status::Active, Vec::new());
    detail.waiting = vec![WaitingRequest {
        resource: "stock-db".to_owned(),
        row_locks: 2,
        blocked_by: vec![0x2a, 0x2b],
        waiting_for_ms: 1_200,
        gives_up_in_ms: 8_300,
    }];
    let answer = why(&detail);
    assert_parts(
        &answer,
        &[
            "on stock-db has waited 1.2 s for 2 row locks",
            "transactions 000000000000002a and 000000000000002b are ahead",
            "if it still waits in 8.3 s",
            "What you can do:",
            "accede tx why 000000000000002a",
            "accede tx why 000000000000002b",
        ],
    );
    assert!(!answer.to_text().contains("for the application"));
    // Of a local transaction nothing can be asked.
    detail.waiting[0].blocked_by.push(0);
    assert!(
        why(&detail)
            .to_text()
            .contains("transactions 000000000000002a and")
    );
    detail.waiting[0].blocked_by = vec![0];
    assert_parts(
        &why(&detail),
        &["a local transaction outside of any global one is ahead"],
    );
    assert!(!why(&detail).to_text().contains("accede tx why"));
    detail.waiting[0].blocked_by = vec![0x2a];
    assert_parts(&why(&detail), &["transaction 000000000000002a is ahead"]);
    detail.waiting[0].blocked_by.clear();
    assert_parts(&why(&detail), &["no transaction is ahead of it any more"]);
}

#[test]
fn a_commit_waits_for_done() {
    let mut detail = transaction(
        Status::Active,
        vec![
            branch(1, "stock-db", "registered"),
            branch(2, "order-db", "done"),
        ],
    );
    detail.commit_waiting = true;
    assert_parts(
        &why(&detail),
        &["Commit was asked for. It waits for branch 1 on stock-db to report"],
    );
    detail.branches[0].status = "done".to_owned();
    assert_parts(&why(&detail), &["It waits for the last answers"]);
}

#[test]
fn a_decided_one_waits_for_an_agent() {
    let mut open = branch(1, "stock-db", "finishing");
    open.waiting_for_agent = true;
    let detail = transaction(
        Status::Committing,
        vec![open, branch(2, "order-db", "finished")],
    );
    assert_parts(
        &why(&detail),
        &[
            "is committing. It is decided: commit. It began 4 s ago; 1 branch of 2 not finished.",
            "Branch 1 on stock-db waits for an agent: no process that serves stock-db is attached",
            "accede status",
            "Start a service that serves stock-db",
        ],
    );
}

#[test]
fn a_decided_one_is_tried_again() {
    let mut waits = branch(1, "stock-db", "finishing");
    waits.failures = 3;
    waits.next_attempt_in_ms = 2_500;
    waits.problem = Some(PhaseTwoProblem {
        kind: "unavailable".to_owned(),
        reason: "the database refuses connections".to_owned(),
        ..Default::default()
    });
    let mut out = branch(2, "order-db", "finishing");
    out.attempt = 1;
    out.failures = 1;
    let mut nameless = out.clone();
    nameless.agent.clear();
    let mut queued = branch(3, "order-db", "done");
    queued.attempt = 0;
    let answer = why(&transaction(
        Status::RollingBack,
        vec![waits, out, nameless, queued],
    ));
    assert_parts(
        &answer,
        &[
            "is rolling back. It is decided: roll back, because its time-out passed",
            "Branch 1 on stock-db is tried again in 2.5 s, after 3 failed attempts.",
            "The last failure: the database refuses connections.",
            "Branch 2 on order-db is being finished: attempt 1 is with stock@host-3, after 1 failed",
            "attempt 1 is with an agent",
            "Branch 3 on order-db waits for its turn.",
        ],
    );
    assert_eq!(answer.actions, []);
}

#[test]
fn a_stuck_one_says_why_and_what_helps() {
    let mut stuck = branch(1, "stock-db", "stuck");
    stuck.failures = 1;
    stuck.problem = Some(PhaseTwoProblem {
        kind: "dirty".to_owned(),
        reason: "a row was changed behind the transaction's back.".to_owned(),
        difference: "stock(product=7)\n  count: 5 → 4".to_owned(),
        repair_statement: "UPDATE stock SET count = 6 WHERE product = 7".to_owned(),
    });
    let mut detail = transaction(
        Status::Stuck,
        vec![stuck, branch(2, "order-db", "finished")],
    );
    let repair = "accede tx repair 000c1f40a2e00001 --branch 1";
    let command = |verb: &str| format!("{repair} {verb} --by \"$USER\" --reason \"…\"");
    assert_parts(
        &why(&detail),
        &[
            "is stuck: it needs a person. It is decided: roll back",
            "Branch 1 on stock-db is stuck, after 1 failed attempt.",
            "behind the transaction's back.\n",
            "    stock(product=7)\n      count: 5 → 4",
            "    UPDATE stock SET count = 6 WHERE product = 7",
            &command("retry"),
            &command("apply"),
            "later changes of them are lost",
            &command("accept"),
            &command("skip"),
        ],
    );
    // There is nothing to undo in a commit.
    detail.summary.as_mut().expect("set").decision = Decision::Commit.into();
    let verbs: Vec<bool> = ["retry", "apply", "accept", "skip"]
        .map(|verb| why(&detail).to_text().contains(&command(verb)))
        .into();
    assert_eq!(verbs, [true, false, false, true]);
}

#[test]
fn an_ended_one_waits_for_nothing() {
    assert_parts(
        &why(&transaction(Status::Committed, Vec::new())),
        &["has committed. It has ended and waits for nothing."],
    );
    let mut detail = transaction(
        Status::RolledBack,
        vec![
            branch(1, "stock-db", "accepted"),
            branch(2, "order-db", "skipped"),
            branch(3, "order-db", "withdrawn"),
        ],
    );
    detail.repairs = vec![RepairRecord {
        branch: 1,
        verb: RepairVerb::Accept.into(),
        by: "ann".to_owned(),
        reason: "the customer was called".to_owned(),
        wall_ms: 1_795_228_853_000,
    }];
    let answer = why(&detail);
    assert_parts(
        &answer,
        &[
            "has rolled back, because its time-out passed before a decision.",
            "An operator accepted branch 1 on stock-db",
            "An operator skipped branch 2 on order-db",
            "2026-11-21 02:40:53 UTC: ann ran `accept` on branch 1: the customer was called",
        ],
    );
    assert_eq!(answer.actions, []);
}

#[test]
fn what_is_not_known_is_said() {
    assert_parts(
        &why(&TransactionDetail::default()),
        &["Transaction 0000000000000000 has a status that this version"],
    );
    let mut detail = transaction(Status::RollingBack, vec![]);
    detail.summary.as_mut().expect("set").reason = None;
    assert_parts(&why(&detail), &["It is decided: roll back. It began"]);
    detail.summary.as_mut().expect("set").decision = 0;
    assert_parts(&why(&detail), &["Its decision is not known."]);
}

#[test]
fn the_answer_is_plain_json() {
    let json =
        serde_json::to_value(why(&transaction(Status::Active, Vec::new()))).expect("plain data");
    assert_eq!(json["xid"], "000c1f40a2e00001");
    assert_eq!(json["status"], "active");
    assert_eq!(json["actions"], serde_json::json!([]));
    assert_eq!(json["sentences"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_stuck_confirm_names_its_mode_and_has_no_rows_to_undo() {
    let confirm = BranchDetail {
        mode: Mode::Tcc.into(),
        payload_bytes: 27,
        step: String::new(),
        direction: String::new(),
        attempt: 1,
        ..branch(1, "account.freeze", "stuck")
    };
    let mut detail = transaction(Status::Stuck, vec![confirm]);
    let why_rolled_back = why(&detail).to_text();
    assert!(why_rolled_back.contains("the agent no longer undoes the branch"));
    assert!(!why_rolled_back.contains(" apply "), "{why_rolled_back}");
    if let Some(summary) = &mut detail.summary {
        summary.decision = Decision::Commit.into();
    }
    assert_parts(
        &why(&detail),
        &[
            "Branch 1 (TCC, 27 B of arguments) on account.freeze is stuck",
            "retry",
            "skip",
            "its agent is not asked any more",
        ],
    );
}
