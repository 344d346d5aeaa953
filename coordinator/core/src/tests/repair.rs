//! What operators can do with stuck branches.

use super::*;

fn stuck(w: &mut World, decision: Decision) -> (Xid, BranchId) {
    let xid = w.begin();
    let branch = w.branch(xid, "a", &["1"]);
    match decision {
        Decision::Commit => w.commit(xid),
        Decision::RollBack => w.roll_back(xid),
    };
    w.finish(
        xid,
        branch,
        Outcome::Stuck(problem("changed behind our back")),
    );
    assert_eq!(w.status(xid), Status::Stuck(decision));
    (xid, branch)
}

fn repair(w: &mut World, xid: Xid, branch: Option<BranchId>, verb: RepairVerb) -> Reply {
    w.apply(Command::Repair(Repair {
        xid,
        branch,
        verb,
        by: "ada".into(),
        reason: "checked by hand".into(),
    }))
}

#[test]
fn each_verb_goes_its_way() {
    for (verb, action, end) in [
        (RepairVerb::Retry, Action::RollBack, BranchStatus::Finished),
        (
            RepairVerb::Apply,
            Action::RollBackForced,
            BranchStatus::Finished,
        ),
        (RepairVerb::Accept, Action::Accept, BranchStatus::Accepted),
    ] {
        let mut w = World::new();
        let (xid, branch) = stuck(&mut w, Decision::RollBack);
        assert_eq!(
            repair(&mut w, xid, None, verb),
            Reply::Repaired(alloc::vec![branch])
        );
        assert_eq!(w.orders(), [(xid, branch.0, action, 2)]);
        assert_eq!(w.status(xid), Status::RollingBack);
        w.finish(xid, branch, Outcome::Finished);
        assert_eq!(w.branch_of(xid, branch).status(), end);
        assert_eq!(w.status(xid), Status::RolledBack);
        let records = w.state.transaction(xid).expect("known").repairs();
        assert_eq!(
            (records.len(), records[0].verb, records[0].by.as_str()),
            (1, verb, "ada")
        );
        assert_eq!(w.state.counts().row_locks, 0);
    }
}

#[test]
fn skip_finishes_without_the_branch() {
    let mut w = World::new();
    let (xid, branch) = stuck(&mut w, Decision::Commit);
    repair(&mut w, xid, Some(branch), RepairVerb::Skip);
    assert_eq!(w.branch_of(xid, branch).status(), BranchStatus::Skipped);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn the_earlier_branches_of_a_resource_go_on_after_a_skip() {
    let mut w = World::new();
    let xid = w.begin();
    let first = w.branch(xid, "a", &["1"]);
    let second = w.branch(xid, "a", &["2"]);
    w.roll_back(xid);
    w.finish(xid, second, Outcome::Stuck(problem("no")));
    repair(&mut w, xid, None, RepairVerb::Skip);
    assert_eq!(w.orders(), [(xid, first.0, Action::RollBack, 1)]);
}

#[test]
fn a_repair_that_gets_stuck_again_is_stuck_again() {
    let mut w = World::new();
    let (xid, branch) = stuck(&mut w, Decision::RollBack);
    repair(&mut w, xid, None, RepairVerb::Accept);
    w.finish(xid, branch, Outcome::Stuck(problem("still no")));
    assert_eq!(w.status(xid), Status::Stuck(Decision::RollBack));
    repair(&mut w, xid, None, RepairVerb::Retry);
    assert_eq!(
        w.orders(),
        [(xid, branch.0, Action::RollBack, 3)],
        "not accept any more"
    );
}

#[test]
fn a_late_success_resolves_a_stuck_branch() {
    let mut w = World::new();
    let (xid, branch) = stuck(&mut w, Decision::RollBack);
    w.finish(xid, branch, Outcome::Finished);
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn retry_brings_a_waiting_attempt_forward() {
    let mut w = World::new();
    let xid = w.begin();
    let branch = w.branch(xid, "a", &["1"]);
    w.commit(xid);
    w.finish(xid, branch, Outcome::Failed(problem("busy")));
    repair(&mut w, xid, None, RepairVerb::Retry);
    assert_eq!(w.orders(), [(xid, branch.0, Action::Commit, 2)]);
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut w = World::new();
    let (xid, branch) = stuck(&mut w, Decision::Commit);
    let apply = repair(&mut w, xid, None, RepairVerb::Apply);
    assert!(matches!(apply, Reply::Refused(Rejection::BranchState(_))));
    let accept = repair(&mut w, xid, None, RepairVerb::Accept);
    assert!(matches!(accept, Reply::Refused(Rejection::BranchState(_))));
    let unknown = repair(&mut w, xid, Some(BranchId(9)), RepairVerb::Retry);
    assert_eq!(unknown, Reply::Refused(Rejection::BranchUnknown));
    repair(&mut w, xid, Some(branch), RepairVerb::Skip);
    let again = repair(&mut w, xid, Some(branch), RepairVerb::Skip);
    assert_eq!(again, Reply::Refused(Rejection::NotStuck));
    let nobody = Repair {
        xid,
        branch: None,
        verb: RepairVerb::Retry,
        by: " ".into(),
        reason: "x".into(),
    };
    let nobody = w.apply(Command::Repair(nobody));
    assert!(matches!(nobody, Reply::Refused(Rejection::Malformed(_))));
}
