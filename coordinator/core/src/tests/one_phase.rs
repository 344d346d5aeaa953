//! The first branch of XA is kept open: prepared when another joins, else it decides alone.

use std::{vec, vec::Vec};

use super::*;

fn open(w: &mut World, xid: Xid) -> (RegisterBranch, Reply) {
    let mut registration = w.action(xid, Mode::Xa, "a");
    registration.can_keep_open = true;
    let reply = w.apply(Command::RegisterBranch(registration.clone()));
    (registration, reply)
}

fn kept(reply: &Reply) -> bool {
    match reply {
        Reply::Registered { keep_open, .. } => *keep_open,
        other => panic!("expected to be registered, got {other:?}"),
    }
}

/// A transaction whose only branch is kept open.
fn alone() -> (World, Xid, BranchId) {
    let mut w = World::new();
    let xid = w.begin();
    let (_, reply) = open(&mut w, xid);
    assert!(kept(&reply));
    assert_eq!(w.orders(), []);
    (w, xid, BranchId(1))
}

fn delegated() -> (World, Xid, BranchId) {
    let (mut w, xid, branch) = alone();
    assert_eq!(w.commit(xid), Reply::Waiting(Waiter::Commit(xid)));
    assert_eq!(w.orders(), [(xid, 1, Action::CommitOnePhase, 1)]);
    assert_eq!(w.status(xid), Status::Delegated);
    (w, xid, branch)
}

fn status(w: &World, xid: Xid, branch: u32) -> BranchStatus {
    w.branch_of(xid, BranchId(branch)).status()
}

fn failed(branch: u32, why: &str) -> RollBackReason {
    RollBackReason::BranchFailed(BranchId(branch), why.into())
}

#[test]
fn the_only_branch_decides_and_whoever_asked_hears_it() {
    let (mut w, xid, branch) = delegated();
    assert_eq!(w.state.counts().delegated, 1);
    assert_eq!(w.commit(xid), Reply::Waiting(Waiter::Commit(xid)));
    assert_eq!(w.orders(), []);
    w.finish(xid, branch, Outcome::Finished);
    let reply = Reply::Decided(Decision::Commit, None);
    assert_eq!(w.answers(), [(Waiter::Commit(xid), reply.clone())]);
    assert_eq!(w.status(xid), Status::Committed);
    assert!(w.branch_of(xid, branch).was_done());
    assert_eq!(w.commit(xid), reply);
    // Late news changes nothing.
    assert_eq!(
        w.finish(xid, branch, Outcome::Refused(problem("late"))),
        Reply::Ok
    );
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn a_branch_that_cannot_commit_decides_too() {
    let (mut w, xid, branch) = delegated();
    w.finish(xid, branch, Outcome::Refused(problem("a check failed")));
    let reply = Reply::Decided(Decision::RollBack, Some(failed(1, "a check failed")));
    assert_eq!(w.answers(), [(Waiter::Commit(xid), reply)]);
    assert_eq!(w.orders(), []);
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn nothing_else_decides_what_is_delegated() {
    let (mut w, xid, branch) = delegated();
    w.pass(3_600_000);
    w.expire_now();
    assert_eq!(w.status(xid), Status::Delegated);
    assert_eq!(w.roll_back(xid), Reply::Waiting(Waiter::Commit(xid)));
    let doom = DoomBranch {
        xid,
        branch,
        detail: "its session broke".into(),
    };
    assert_eq!(w.apply(Command::DoomBranch(doom)), Reply::Ok);
    assert_eq!(w.done(xid, branch), Reply::Ok);
    for verb in [RepairVerb::Skip, RepairVerb::Accept, RepairVerb::Apply] {
        let (by, reason) = ("ada".into(), "why".into());
        let repair = Repair {
            xid,
            branch: None,
            verb,
            by,
            reason,
        };
        let refused = w.apply(Command::Repair(repair));
        assert_eq!(refused, Reply::Refused(Rejection::NotStuck), "{verb:?}");
    }
    let (_, late) = open(&mut w, xid);
    assert_eq!(late, Reply::Refused(Rejection::CommitAsked));
    assert_eq!(w.status(xid), Status::Delegated);
    w.finish(xid, branch, Outcome::Finished);
    // Who wanted it rolled back hears as well.
    assert_eq!(w.answers().len(), 1);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn failures_are_tried_again_for_ever_and_never_stuck() {
    let (mut w, xid, branch) = delegated();
    for attempt in 1..40 {
        let outcome = match attempt % 3 {
            0 => Outcome::Failed(problem("locked")),
            1 => Outcome::Stuck(problem("odd")),
            _ => Outcome::Unavailable(problem("down")),
        };
        w.finish(xid, branch, outcome);
        assert!(w.branch_of(xid, branch).problem().is_some());
        w.expire();
        while w.orders().is_empty() {
            // It was the lease that ended.
            w.expire();
        }
        let again = (xid, 1, Action::CommitOnePhase, attempt + 1);
        assert_eq!(w.orders(), [again]);
    }
    assert_eq!(w.status(xid), Status::Delegated);
    w.finish(xid, branch, Outcome::Failed(problem("locked")));
    let repair = Repair {
        xid,
        branch: None,
        verb: RepairVerb::Retry,
        by: "ada".into(),
        reason: "it is free".into(),
    };
    assert_eq!(
        w.apply(Command::Repair(repair)),
        Reply::Repaired(vec![branch])
    );
    assert_eq!(w.orders(), [(xid, 1, Action::CommitOnePhase, 41)]);
    w.finish(xid, branch, Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn a_new_leader_orders_again_and_any_attempt_counts() {
    let (mut w, xid, branch) = delegated();
    let bytes = w.state.to_snapshot();
    w.state = State::from_snapshot(&bytes).expect("its own bytes");
    w.apply(Command::TakeOffice(TakeOffice::default()));
    let owed: Vec<_> = orders(&w.state.resume());
    assert_eq!(owed, [(xid, 1, Action::CommitOnePhase, 1)]);
    let old = FinishBranch {
        xid,
        branch,
        attempt: Attempt(1),
        epoch: Epoch(0),
        outcome: Outcome::Finished,
    };
    w.apply(Command::FinishBranch(old));
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn a_withdrawn_request_is_a_no() {
    let mut w = World::new();
    let xid = w.begin();
    let (registration, _) = open(&mut w, xid);
    w.commit(xid);
    let request = registration.request;
    let withdraw = WithdrawBranch { xid, request };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn withdrawn_before_the_commit_it_no_longer_counts() {
    let mut w = World::new();
    let xid = w.begin();
    let (registration, _) = open(&mut w, xid);
    let request = registration.request;
    let withdraw = WithdrawBranch { xid, request };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    // The next one may be kept open.
    let (_, reply) = open(&mut w, xid);
    assert!(kept(&reply));
    w.commit(xid);
    assert_eq!(w.orders(), [(xid, 2, Action::CommitOnePhase, 1)]);
}

#[test]
fn another_branch_makes_it_prepare_and_its_vote_is_awaited() {
    let (mut w, xid, branch) = alone();
    let (_, reply) = open(&mut w, xid);
    assert!(!kept(&reply), "only the first is kept open");
    assert_eq!(w.orders(), [(xid, 1, Action::Prepare, 1)]);
    assert_eq!(w.done(xid, BranchId(2)), Reply::Ok);
    assert_eq!(w.commit(xid), Reply::Waiting(Waiter::Commit(xid)));
    // Longer than for a "done" that is under way.
    w.pass(limits::DONE_WAIT_MS * 2);
    w.expire_now();
    assert_eq!(w.status(xid), Status::Active);
    w.finish(xid, branch, Outcome::Prepared);
    let reply = Reply::Decided(Decision::Commit, None);
    assert_eq!(w.answers(), [(Waiter::Commit(xid), reply)]);
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::Commit, 2), (xid, 2, Action::Commit, 1)]
    );
    for branch in [1, 2] {
        w.finish(xid, BranchId(branch), Outcome::Finished);
    }
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn any_other_branch_makes_it_prepare() {
    for mode in [Mode::At, Mode::Tcc, Mode::Saga, Mode::ThreePhase] {
        let (mut w, xid, _) = alone();
        let place = if mode == Mode::At { "a" } else { "freeze" };
        let mut registration = w.action(xid, mode, place);
        if mode == Mode::At {
            registration.payload = Payload::default();
        }
        assert!(registered(&w.apply(Command::RegisterBranch(registration))));
        assert_eq!(w.orders(), [(xid, 1, Action::Prepare, 1)], "{mode:?}");
    }
    let (mut w, xid, _) = alone();
    let plan = w.plan(xid, vec![super::saga::step("a", &[])], false);
    w.apply(Command::StartSaga(plan));
    assert!(w.orders().contains(&(xid, 1, Action::Prepare, 1)));
    // With a plan there is another branch already.
    let xid = w.begin();
    let plan = w.plan(xid, vec![super::saga::step("a", &[])], false);
    w.apply(Command::StartSaga(plan));
    let (_, reply) = open(&mut w, xid);
    assert!(!kept(&reply));
}

#[test]
fn a_no_rolls_the_others_back_and_the_deadline_ends_a_wait() {
    let (mut w, xid, branch) = alone();
    open(&mut w, xid);
    w.done(xid, BranchId(2));
    w.commit(xid);
    w.finish(xid, branch, Outcome::Refused(problem("gone")));
    let reply = Reply::Decided(Decision::RollBack, Some(failed(1, "gone")));
    assert_eq!(w.answers(), [(Waiter::Commit(xid), reply)]);
    assert_eq!(w.orders(), [(xid, 2, Action::RollBack, 1)]);
    assert_eq!(status(&w, xid, 1), BranchStatus::Withdrawn);

    let mut w = World::new();
    let xid = w.next_xid();
    w.begin_reply(xid, 5_000, None);
    open(&mut w, xid);
    open(&mut w, xid);
    w.done(xid, BranchId(2));
    w.commit(xid);
    w.pass(5_000);
    let effects = w.expire_now();
    let reason = w.state.transaction(xid).expect("known").reason().cloned();
    assert_eq!(reason, Some(RollBackReason::TimedOut));
    let undo = [(xid, 2, Action::RollBack, 1), (xid, 1, Action::RollBack, 2)];
    assert_eq!(orders(&effects), undo);
    // The vote comes late: the rollback knows.
    w.finish(xid, BranchId(1), Outcome::Prepared);
    assert!(w.branch_of(xid, BranchId(1)).was_done());
    assert_eq!(status(&w, xid, 1), BranchStatus::Finishing);
}

#[test]
fn a_vote_that_fails_is_asked_for_again() {
    let (mut w, xid, branch) = alone();
    open(&mut w, xid);
    w.finish(xid, branch, Outcome::Failed(problem("busy")));
    w.expire();
    assert_eq!(w.orders(), [(xid, 1, Action::Prepare, 2)]);
    w.finish(xid, branch, Outcome::Unavailable(problem("down")));
    w.expire();
    assert_eq!(w.orders(), [(xid, 1, Action::Prepare, 3)]);
    // What can never be prepared is rolled back, which shows whether that works.
    w.finish(xid, branch, Outcome::Stuck(problem("odd")));
    assert_eq!(w.status(xid), Status::RollingBack);
    assert!(w.orders().contains(&(xid, 1, Action::RollBack, 4)));
}

#[test]
fn a_rollback_reaches_what_is_kept_open_or_preparing() {
    let (mut w, xid, branch) = alone();
    w.roll_back(xid);
    assert_eq!(w.orders(), [(xid, 1, Action::RollBack, 1)]);
    w.finish(xid, branch, Outcome::Finished);
    assert_eq!(w.status(xid), Status::RolledBack);

    let (mut w, xid, _) = alone();
    open(&mut w, xid);
    w.finish(xid, BranchId(1), Outcome::Failed(problem("busy")));
    w.roll_back(xid);
    let undo = [(xid, 2, Action::RollBack, 1), (xid, 1, Action::RollBack, 2)];
    assert_eq!(w.orders(), undo);
}

#[test]
fn one_that_prepared_by_itself_is_done() {
    let (mut w, xid, branch) = alone();
    assert_eq!(w.done(xid, branch), Reply::Ok);
    assert_eq!(w.commit(xid), Reply::Decided(Decision::Commit, None));
    assert_eq!(w.orders(), [(xid, 1, Action::Commit, 1)]);

    let (mut w, xid, branch) = alone();
    let detail = "it could not be prepared".into();
    let doom = DoomBranch {
        xid,
        branch,
        detail,
    };
    w.apply(Command::DoomBranch(doom));
    let reason = w.state.transaction(xid).expect("known").reason().cloned();
    assert_eq!(reason, Some(failed(1, "it could not be prepared")));
    assert_eq!(w.orders(), [(xid, 1, Action::RollBack, 1)]);
}

#[test]
fn a_repeated_request_gets_the_same_answer() {
    let (mut w, xid, _) = alone();
    let xid_two = w.begin();
    let (registration, first) = open(&mut w, xid_two);
    open(&mut w, xid_two);
    let again = w.apply(Command::RegisterBranch(registration.clone()));
    assert_eq!(again, first);
    assert_eq!(w.orders(), []);
    let other = RegisterBranch {
        can_keep_open: false,
        ..registration
    };
    let refused = w.apply(Command::RegisterBranch(other));
    assert_eq!(refused, Reply::Refused(Rejection::DifferentContent));
    let mut wrong = w.registration(xid, "a", &["1"]);
    wrong.can_keep_open = true;
    let malformed = Rejection::Malformed("only branches of XA are kept open");
    assert_eq!(
        w.apply(Command::RegisterBranch(wrong)),
        Reply::Refused(malformed)
    );
}

#[test]
fn row_locks_stay_until_the_end() {
    let mut w = World::new();
    let xid = w.begin();
    let mut registration = w.registration(xid, "a", &["1"]);
    registration.mode = Mode::Xa;
    registration.can_keep_open = true;
    assert!(kept(&w.apply(Command::RegisterBranch(registration))));
    w.commit(xid);
    let other = w.begin();
    let waits = w.queue(other, "a", &["1"]);
    w.finish(xid, BranchId(1), Outcome::Finished);
    assert!(w.answers().iter().any(|(to, _)| *to == waiter(&waits)));
}

#[test]
fn a_lease_that_ends_decides_nothing_that_is_delegated() {
    let (mut w, xid, branch) = delegated();
    let worker = w.lease.worker;
    let process = CLIENT;
    assert_eq!(
        w.apply(Command::EndLease(EndLease { process, worker })),
        Reply::Ok
    );
    w.expire_now();
    assert_eq!(w.status(xid), Status::Delegated);
    w.finish(xid, branch, Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn what_was_not_ordered_cannot_be_answered() {
    let (mut w, xid, branch) = alone();
    for outcome in [
        Outcome::Prepared,
        Outcome::Finished,
        Outcome::Refused(problem("no")),
    ] {
        let refused = w.finish(xid, branch, outcome);
        assert!(matches!(refused, Reply::Refused(Rejection::BranchState(_))));
    }
    let (mut w, xid, branch) = delegated();
    assert!(matches!(
        w.finish(xid, branch, Outcome::PreCommitted),
        Reply::Refused(Rejection::BranchState(_))
    ));
    assert_eq!(w.finish(xid, branch, Outcome::Prepared), Reply::Ok);
    assert_eq!(w.status(xid), Status::Delegated);
}
