//! Local transactions outside of any global one that look at row locks before they commit.

use super::*;

fn look(w: &mut World, check: &CheckLocks) -> Reply {
    w.apply(Command::CheckLocks(check.clone()))
}

fn asker(check: &CheckLocks) -> Waiter {
    Waiter::Request(check.xid, check.request)
}

fn waits(w: &mut World, keys: &[&str]) -> CheckLocks {
    let check = w.check_outside(keys);
    assert_eq!(look(w, &check), Reply::Waiting(asker(&check)));
    check
}

#[test]
fn it_waits_for_the_decision_to_commit_and_takes_nothing() {
    let mut w = World::new();
    let t1 = w.begin();
    let branch = w.branch(t1, "a", &["1"]);
    let check = waits(&mut w, &["1", "2"]);
    assert_eq!(
        look(&mut w, &check),
        Reply::Waiting(asker(&check)),
        "a repeat joins"
    );
    assert_eq!(w.state.counts().waiting, 1);
    w.commit(t1);
    assert_eq!(w.answers(), [(asker(&check), Reply::LocksFree)]);
    assert_eq!(
        look(&mut w, &check),
        Reply::LocksFree,
        "and later looks anew"
    );
    w.finish(t1, branch, Outcome::Finished);
    let counts = w.state.counts();
    assert_eq!((counts.row_locks, counts.waiting), (0, 0));
}

#[test]
fn it_lets_go_as_soon_as_the_holder_rolls_back() {
    let mut w = World::new();
    let t1 = w.begin();
    w.branch(t1, "a", &["1"]);
    let check = waits(&mut w, &["1"]);
    let refused = Reply::Refused(Rejection::HolderRollingBack { holder: t1 });
    w.roll_back(t1);
    assert_eq!(w.answers(), [(asker(&check), refused.clone())]);
    // Until the undo is durable, whoever comes with local locks is sent away at once.
    assert_eq!(look(&mut w, &check), refused);
    let patient = CheckLocks {
        holds_local_locks: false,
        ..w.check_outside(&["1"])
    };
    assert_eq!(look(&mut w, &patient), Reply::Waiting(asker(&patient)));
    w.finish(t1, BranchId(1), Outcome::Finished);
    assert_eq!(w.answers(), [(asker(&patient), Reply::LocksFree)]);
}

#[test]
fn it_lets_go_for_a_holder_that_stands_still_in_the_database() {
    let mut w = World::new();
    let t1 = w.begin();
    w.branch(t1, "a", &["1"]);
    let check = waits(&mut w, &["1"]);
    assert!(w.state.holds_up(t1));
    w.apply(Command::Blocked(Blocked { xid: t1 }));
    let refused = Reply::Refused(Rejection::HolderBlocked { holder: t1 });
    assert_eq!(w.answers(), [(asker(&check), refused)]);
}

#[test]
fn it_waits_no_longer_than_its_limit() {
    let mut w = World::new();
    let t1 = w.begin();
    w.branch(t1, "a", &["1"]);
    let refused = Reply::Refused(Rejection::LockWaitTimedOut { holder: t1 });
    let now = CheckLocks {
        wait_limit_ms: 0,
        ..w.check_outside(&["1"])
    };
    assert_eq!(look(&mut w, &now), refused);
    let check = waits(&mut w, &["1"]);
    w.pass(1_000);
    w.expire_now();
    assert_eq!(w.answers(), [(asker(&check), refused)]);
}

#[test]
fn it_can_be_taken_back() {
    let mut w = World::new();
    let t1 = w.begin();
    w.branch(t1, "a", &["1"]);
    let check = waits(&mut w, &["1"]);
    let withdraw = |w: &mut World, CheckLocks { xid, request, .. }: &CheckLocks| {
        let (xid, request) = (*xid, *request);
        w.apply(Command::WithdrawBranch(WithdrawBranch { xid, request }))
    };
    let unknown = w.check_outside(&[]);
    assert_eq!(
        withdraw(&mut w, &unknown),
        Reply::Ok,
        "there is nothing to bar"
    );
    assert_eq!(withdraw(&mut w, &check), Reply::Ok);
    let withdrawn = Reply::Refused(Rejection::Withdrawn);
    assert_eq!(w.answers(), [(asker(&check), withdrawn)]);
    assert_eq!(w.state.counts().waiting, 0);
}

#[test]
fn refusals() {
    let mut w = World::new();
    let t1 = w.begin();
    w.branch(t1, "a", &["1"]);
    let elsewhere = CheckLocks {
        resource: "nowhere".into(),
        ..w.check_outside(&["1"])
    };
    let reply = look(&mut w, &elsewhere);
    assert_eq!(reply, Reply::Refused(Rejection::ResourceUnknown));
    let check = waits(&mut w, &["1"]);
    let other = CheckLocks {
        locks: alloc::vec![LockKey::from(&b"2"[..])],
        ..check
    };
    let reply = look(&mut w, &other);
    assert_eq!(reply, Reply::Refused(Rejection::DifferentContent));
}

#[test]
fn others_are_served_in_order_and_circles_through_it_are_seen() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let check = waits(&mut w, &["1", "2"]);
    // Nobody holds the second row, but the local transaction looks at it first.
    let behind = w.queue(t2, "a", &["2"]);
    let circle = w.try_register(t1, "a", &["2"]);
    let cycle = alloc::vec![t1, t2, check.xid];
    assert_eq!(circle, Reply::Refused(Rejection::Deadlock { cycle }));
    let bytes = w.state.to_snapshot();
    w.state = State::from_snapshot(&bytes).expect("its own bytes");
    w.commit(t1);
    let served: Vec<_> = w.answers().into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(served, [asker(&check), waiter(&behind)]);
}
