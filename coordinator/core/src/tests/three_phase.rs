//! 3PC: everybody hears of the commit, then everybody is ordered to commit.

use std::vec;

use super::*;

fn promise(w: &mut World, xid: Xid) -> BranchId {
    let registration = w.action(xid, Mode::ThreePhase, "freeze");
    let Reply::Registered { branch, .. } = w.apply(Command::RegisterBranch(registration)) else {
        panic!("it is registered");
    };
    assert_eq!(w.done(xid, branch), Reply::Ok);
    branch
}

fn statuses(w: &World, xid: Xid) -> Vec<BranchStatus> {
    let branches = w.state.transaction(xid).expect("it is known").branches();
    branches.iter().map(Branch::status).collect()
}

/// Two promises, decided to commit; neither has heard of it yet.
fn decided() -> (World, Xid) {
    let mut w = World::new();
    let xid = w.begin();
    promise(&mut w, xid);
    promise(&mut w, xid);
    assert_eq!(w.commit(xid), Reply::Decided(Decision::Commit, None));
    assert_eq!(w.status(xid), Status::PreCommitted);
    (w, xid)
}

#[test]
fn all_hear_of_the_commit_before_the_first_commits() {
    let (mut w, xid) = decided();
    let early = [
        (xid, 1, Action::PreCommit, 1),
        (xid, 2, Action::PreCommit, 1),
    ];
    assert_eq!(w.orders(), early);
    assert_eq!(w.state.counts().pre_committed, 1);
    assert_eq!(
        w.state.transaction(xid).and_then(Transaction::decision),
        Some(Decision::Commit)
    );
    w.finish(xid, BranchId(2), Outcome::PreCommitted);
    assert_eq!(w.orders(), []);
    assert_eq!(
        statuses(&w, xid),
        [BranchStatus::Finishing, BranchStatus::PreCommitted]
    );
    w.finish(xid, BranchId(1), Outcome::PreCommitted);
    assert_eq!(w.status(xid), Status::Committing);
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::Commit, 2), (xid, 2, Action::Commit, 2)]
    );
    for branch in [1, 2] {
        w.finish(xid, BranchId(branch), Outcome::Finished);
    }
    assert_eq!(w.status(xid), Status::Committed);
    let nothing_is_due = w.state.deadlines.next().is_none_or(|at| at > w.state.now());
    assert!(nothing_is_due);
}

#[test]
fn one_that_is_away_holds_up_the_others_for_a_while_only() {
    let (mut w, xid) = decided();
    w.finish(xid, BranchId(1), Outcome::PreCommitted);
    w.pass(limits::PRE_COMMIT_WAIT_MS - 1);
    assert_eq!(orders(&w.expire_now()), []);
    w.pass(1);
    let owed = orders(&w.expire_now());
    assert_eq!(
        owed,
        [(xid, 1, Action::Commit, 2), (xid, 2, Action::Commit, 2)]
    );
    // It says so late: that changes nothing, and is no commit.
    let finish = FinishBranch {
        xid,
        branch: BranchId(2),
        attempt: Attempt(1),
        epoch: w.state.epoch(),
        outcome: Outcome::PreCommitted,
    };
    assert_eq!(w.apply(Command::FinishBranch(finish)), Reply::Ok);
    assert_eq!(w.orders(), []);
    assert_eq!(statuses(&w, xid), [BranchStatus::Finishing; 2]);
}

#[test]
fn whoever_has_committed_alone_need_not_hear_of_it() {
    let (mut w, xid) = decided();
    w.finish(xid, BranchId(1), Outcome::Finished);
    w.finish(xid, BranchId(2), Outcome::PreCommitted);
    assert_eq!(w.orders(), [(xid, 2, Action::Commit, 2)]);
    w.finish(xid, BranchId(2), Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn other_modes_commit_at_once_and_rows_are_free() {
    let mut w = World::new();
    let xid = w.begin();
    let at = w.branch(xid, "a", &["1"]);
    w.done(xid, at);
    promise(&mut w, xid);
    w.commit(xid);
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::Commit, 1), (xid, 2, Action::PreCommit, 1)]
    );
    assert_eq!(w.state.counts().row_locks, 0);
    w.finish(xid, at, Outcome::Finished);
    assert_eq!(w.status(xid), Status::PreCommitted);
    assert_eq!(
        w.roll_back(xid),
        Reply::Decided(Decision::Commit, None),
        "it is irrevocable"
    );
}

#[test]
fn a_commit_without_promises_has_two_phases() {
    let mut w = World::new();
    let xid = w.begin();
    promise(&mut w, xid);
    let withdrawn = w.action(xid, Mode::ThreePhase, "ship");
    let request = withdrawn.request;
    w.apply(Command::RegisterBranch(withdrawn));
    w.apply(Command::WithdrawBranch(WithdrawBranch { xid, request }));
    w.commit(xid);
    assert_eq!(w.orders(), [(xid, 1, Action::PreCommit, 1)]);
    let other = w.begin();
    let at = w.branch(other, "a", &["1"]);
    w.done(other, at);
    w.commit(other);
    assert_eq!(w.status(other), Status::Committing);
}

#[test]
fn a_new_leader_tells_those_who_have_not_said_that_they_heard() {
    let (mut w, xid) = decided();
    w.finish(xid, BranchId(1), Outcome::PreCommitted);
    w.apply(Command::TakeOffice(TakeOffice::default()));
    assert_eq!(orders(&w.state.resume()), [(xid, 2, Action::PreCommit, 1)]);
    // The wait goes on where it was.
    let state = State::from_snapshot(&w.state.to_snapshot()).expect("its own bytes");
    assert_eq!(state.next_deadline(), w.state.next_deadline());
}

#[test]
fn a_failed_attempt_is_made_again_and_counts_for_nothing_later() {
    let (mut w, xid) = decided();
    w.finish(xid, BranchId(1), Outcome::Failed(problem("busy")));
    let branch = w.branch_of(xid, BranchId(1));
    assert_eq!(
        (branch.failures(), branch.next_attempt_at().is_some()),
        (1, true)
    );
    assert_eq!(orders(&w.expire()), [(xid, 1, Action::PreCommit, 2)]);
    w.finish(xid, BranchId(1), Outcome::Failed(problem("busy")));
    w.pass(limits::PRE_COMMIT_WAIT_MS);
    let mut owed = orders(&w.expire_now());
    owed.retain(|(_, _, action, _)| *action == Action::Commit);
    assert_eq!(owed.len(), 2);
    assert_eq!(w.branch_of(xid, BranchId(1)).failures(), 0);
}

#[test]
fn an_operator_brings_an_attempt_forward() {
    let (mut w, xid) = decided();
    w.finish(xid, BranchId(1), Outcome::Failed(problem("busy")));
    let (by, reason) = ("ada".into(), "it is idle".into());
    let verb = RepairVerb::Retry;
    let repair = Repair {
        xid,
        branch: None,
        verb,
        by,
        reason,
    };
    assert_eq!(
        w.apply(Command::Repair(repair)),
        Reply::Repaired(vec![BranchId(1)])
    );
    assert_eq!(w.orders(), [(xid, 1, Action::PreCommit, 2)]);
}

#[test]
fn what_can_never_pre_commit_is_ordered_to_commit_and_stuck_by_that() {
    let (mut w, xid) = decided();
    w.finish(xid, BranchId(1), Outcome::Stuck(problem("gone")));
    assert_eq!(w.status(xid), Status::Committing);
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::Commit, 2), (xid, 2, Action::Commit, 2)]
    );
    w.finish(xid, BranchId(1), Outcome::Stuck(problem("gone")));
    assert_eq!(w.status(xid), Status::Stuck(Decision::Commit));
}

#[test]
fn a_stuck_branch_of_another_mode_lets_the_promises_commit() {
    let mut w = World::new();
    let xid = w.begin();
    let at = w.branch(xid, "a", &["1"]);
    w.done(xid, at);
    let promised = promise(&mut w, xid);
    w.commit(xid);
    w.finish(xid, at, Outcome::Stuck(problem("no record")));
    assert_eq!(w.status(xid), Status::Stuck(Decision::Commit));
    assert_eq!(w.orders(), [(xid, promised.0, Action::Commit, 2)]);
    let (by, reason) = ("ada".into(), "it is gone".into());
    let verb = RepairVerb::Skip;
    w.apply(Command::Repair(Repair {
        xid,
        branch: None,
        verb,
        by,
        reason,
    }));
    assert_eq!(w.status(xid), Status::Committing);
    w.finish(xid, promised, Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn a_rollback_has_no_phase_between() {
    let mut w = World::new();
    let xid = w.begin();
    promise(&mut w, xid);
    w.roll_back(xid);
    assert_eq!(w.orders(), [(xid, 1, Action::RollBack, 1)]);
    // What was never ordered does not come true.
    w.finish(xid, BranchId(1), Outcome::PreCommitted);
    assert_eq!(statuses(&w, xid), [BranchStatus::Finishing]);
}
