//! Row locks: holders, queues, refusals.

use super::*;

#[test]
fn waiters_are_served_in_order() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let second = w.queue(t2, "a", &["1"]);
    let third = w.queue(t3, "a", &["1"]);
    assert_eq!(
        w.apply(Command::RegisterBranch(third.clone())),
        Reply::Waiting(waiter(&third))
    );
    w.commit(t1);
    let served: Vec<_> = w.answers().into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(served, [waiter(&second)], "one row, one holder");
    w.done(t2, BranchId(1));
    w.commit(t2);
    assert_eq!(w.answers()[0].0, waiter(&third));
}

#[test]
fn a_later_request_does_not_overtake_on_a_shared_row() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.queue(t2, "a", &["1", "2"]);
    // Row 2 is free, but the second transaction came first.
    let third = w.queue(t3, "a", &["2"]);
    assert_eq!(w.state.waiting(t3)[0].blocked_by, [t2]);
    w.commit(t1);
    assert_eq!(w.answers().len(), 1);
    w.done(t2, BranchId(1));
    w.commit(t2);
    assert_eq!(w.answers()[0].0, waiter(&third));
}

#[test]
fn resources_do_not_share_rows() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.branch(t2, "b", &["1"]);
}

#[test]
fn a_holder_asks_again_and_overtakes() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.queue(t2, "a", &["1"]);
    let again = w.register(t1, "a", &["1"]);
    assert_eq!(again, BranchId(2));
}

#[test]
fn each_row_is_listed_once_with_who_waits_for_it() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.branch(t1, "a", &["1"]);
    w.pass(5);
    w.queue(t2, "a", &["1", "2"]);
    w.pass(5);
    w.queue(t3, "a", &["2"]);
    let listed = |w: &World, xid| {
        let rows = w.state.row_locks_of(xid).into_iter();
        let rows = rows.map(|row| {
            let waiting: Vec<Xid> = row.waiting.iter().map(|waiter| waiter.xid).collect();
            (row.key.to_vec(), row.holder, waiting)
        });
        rows.collect::<Vec<_>>()
    };
    assert_eq!(listed(&w, t1), [(b"1".to_vec(), Some(t1), alloc::vec![t2])]);
    // Nobody holds row 2: the second one keeps it free for itself.
    assert_eq!(listed(&w, t2), [(b"2".to_vec(), None, alloc::vec![t2, t3])]);
    assert_eq!(listed(&w, t3), []);
    let waiter = w.state.row_locks_of(t1)[0].waiting[0];
    assert!(waiter.holds_local_locks);
    assert_eq!(waiter.until, waiter.since.plus(1_000));
    w.commit(t1);
    assert_eq!(listed(&w, t1), []);
    assert_eq!(listed(&w, t2).len(), 2);
}

#[test]
fn all_or_none() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["2"]);
    let mut greedy = w.registration(t2, "a", &["1", "2"]);
    greedy.wait_limit_ms = 0;
    let refused = w.apply(Command::RegisterBranch(greedy));
    assert_eq!(
        refused,
        Reply::Refused(Rejection::LockWaitTimedOut { holder: t1 })
    );
    w.branch(t3, "a", &["1"]);
}

/// The first transaction holds row 1, and queues for it behind one that in the end waits for it.
/// As long as it holds row 1 it will overtake that one.
fn a_circle_but_for_one_hold(w: &mut World) -> (RegisterBranch, RegisterBranch, [Xid; 4]) {
    let (t1, t2, t3, t4) = (w.begin(), w.begin(), w.begin(), w.begin());
    let hold = w.registration(t1, "a", &["1"]);
    assert!(registered(&w.apply(Command::RegisterBranch(hold.clone()))));
    w.branch(t1, "a", &["3"]);
    w.branch(t3, "a", &["2"]);
    w.branch(t4, "a", &["4"]);
    w.queue(t2, "a", &["1", "2"]);
    w.queue(t3, "a", &["3"]);
    let again = w.queue(t1, "a", &["1", "4"]);
    (hold, again, [t1, t2, t3, t4])
}

#[test]
fn a_circle_that_a_withdrawal_closes_is_refused() {
    let mut w = World::new();
    let (hold, again, [t1, t2, t3, _]) = a_circle_but_for_one_hold(&mut w);
    w.apply(Command::WithdrawBranch(WithdrawBranch {
        xid: t1,
        request: hold.request,
    }));
    let cycle = alloc::vec![t1, t2, t3];
    let refused = Reply::Refused(Rejection::Deadlock { cycle });
    assert_eq!(w.answers(), [(waiter(&again), refused)]);
}

#[test]
fn a_circle_that_the_end_of_a_wait_closes_is_refused() {
    let mut w = World::new();
    let (t1, t2, t3, t4) = (w.begin(), w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["3"]);
    w.branch(t3, "a", &["2"]);
    w.branch(t4, "a", &["1"]);
    let first = w.queue(t1, "a", &["1"]);
    w.queue(t2, "a", &["1", "2"]);
    w.queue(t3, "a", &["3"]);
    let second = w.queue(t1, "a", &["1"]);
    w.apply(Command::WithdrawBranch(WithdrawBranch {
        xid: t1,
        request: first.request,
    }));
    let cycle = alloc::vec![t1, t2, t3];
    let refused = Reply::Refused(Rejection::Deadlock { cycle });
    assert_eq!(w.answers()[1], (waiter(&second), refused));
}

#[test]
fn waiting_ends_at_its_limit() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let waiting = w.queue(t2, "a", &["1", "2"]);
    let behind = w.queue(t3, "a", &["2"]);
    w.pass(999);
    assert!(w.expire_now().is_empty());
    w.pass(1);
    w.expire_now();
    let refused = Reply::Refused(Rejection::LockWaitTimedOut { holder: t1 });
    let answers: BTreeMap<_, _> = w.answers().into_iter().collect();
    assert_eq!(answers[&waiter(&waiting)], refused);
    assert!(
        registered(&answers[&waiter(&behind)]),
        "row 2 was free: only the queue was in its way"
    );
    assert_eq!(
        w.apply(Command::RegisterBranch(waiting)),
        refused,
        "a repeat hears the same"
    );
}

#[test]
fn a_withdrawn_request_leaves_the_queue() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let gone = w.queue(t2, "a", &["1"]);
    let next = w.queue(t3, "a", &["1"]);
    let withdraw = WithdrawBranch {
        xid: t2,
        request: gone.request,
    };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    assert_eq!(
        w.answers(),
        [(waiter(&gone), Reply::Refused(Rejection::Withdrawn))]
    );
    w.commit(t1);
    assert_eq!(w.answers()[0].0, waiter(&next));
}

#[test]
fn a_withdrawal_that_overtakes_its_request_kills_it() {
    let mut w = World::new();
    let xid = w.begin();
    let registration = w.registration(xid, "a", &["1"]);
    let withdraw = WithdrawBranch {
        xid,
        request: registration.request,
    };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    let late = w.apply(Command::RegisterBranch(registration));
    assert_eq!(late, Reply::Refused(Rejection::Withdrawn));
    assert_eq!(w.commit(xid), Reply::Decided(Decision::Commit, None));
}

#[test]
fn whoever_holds_local_locks_makes_way_for_a_rollback() {
    let mut w = World::new();
    let (t1, t2, t3, t4) = (w.begin(), w.begin(), w.begin(), w.begin());
    let branch = w.branch(t1, "a", &["1"]);
    let with_locks = w.queue(t2, "a", &["1"]);
    let mut without = w.registration(t3, "a", &["1"]);
    without.holds_local_locks = false;
    w.apply(Command::RegisterBranch(without.clone()));
    w.roll_back(t1);
    let refused = Reply::Refused(Rejection::HolderRollingBack { holder: t1 });
    assert_eq!(w.answers(), [(waiter(&with_locks), refused.clone())]);
    assert_eq!(w.try_register(t4, "a", &["1"]), refused, "new requests too");
    w.finish(t1, branch, Outcome::Finished);
    assert_eq!(
        w.answers()[0].0,
        waiter(&without),
        "the undo is durable: the row is free"
    );
}

#[test]
fn the_request_that_closes_a_cycle_is_refused() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    for (xid, key) in [(t1, "1"), (t2, "2"), (t3, "3")] {
        w.branch(xid, "a", &[key]);
    }
    w.queue(t1, "a", &["2"]);
    w.queue(t2, "a", &["3"]);
    let cycle = alloc::vec![t3, t1, t2];
    assert_eq!(
        w.try_register(t3, "a", &["1"]),
        Reply::Refused(Rejection::Deadlock { cycle })
    );
    w.roll_back(t3);
    assert_eq!(w.status(t2), Status::Active);
}

#[test]
fn a_cycle_through_a_queue_is_seen() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.branch(t3, "a", &["3"]);
    // The second holds nothing, but stands before the third in the queue of row 2.
    w.queue(t2, "a", &["1", "2"]);
    w.queue(t3, "a", &["2"]);
    let reply = w.try_register(t1, "a", &["3"]);
    assert!(
        matches!(reply, Reply::Refused(Rejection::Deadlock { .. })),
        "{reply:?}"
    );
}

#[test]
fn a_nested_transaction_that_waits_for_its_parent_is_a_cycle() {
    let mut w = World::new();
    let parent = w.begin();
    w.branch(parent, "a", &["1"]);
    let nested = w.next_xid();
    w.begin_reply(nested, 60_000, Some(parent));
    let cycle = alloc::vec![nested, parent];
    assert_eq!(
        w.try_register(nested, "a", &["1"]),
        Reply::Refused(Rejection::Deadlock { cycle })
    );
}

#[test]
fn a_check_waits_without_taking() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let check = CheckLocks {
        xid: t2,
        request: w.request(),
        resource: "a".into(),
        locks: alloc::vec![LockKey::from(&b"1"[..])],
        wait_limit_ms: 1_000,
        holds_local_locks: true,
    };
    let waiting = Waiter::Request(t2, check.request);
    assert_eq!(
        w.apply(Command::CheckLocks(check.clone())),
        Reply::Waiting(waiting)
    );
    let behind = w.queue(t3, "a", &["1"]);
    w.commit(t1);
    let answers = w.answers();
    assert_eq!(answers[0], (waiting, Reply::LocksFree));
    assert_eq!(answers[1].0, waiter(&behind), "a check takes nothing");
    assert_eq!(
        w.apply(Command::CheckLocks(check)),
        Reply::LocksFree,
        "a repeat hears the same"
    );
}

#[test]
fn a_request_of_the_holder_behind_a_stranger_is_served_when_it_holds() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    let t3 = w.begin();
    w.branch(t1, "a", &["1"]);
    let first = w.queue(t2, "a", &["1"]);
    let stranger = w.queue(t3, "a", &["1"]);
    let again = w.queue(t2, "a", &["1"]);
    w.commit(t1);
    let served: Vec<_> = w.answers().into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(served, [waiter(&first), waiter(&again)]);
    assert_eq!(w.state.waiting(t3).len(), 1);
    let _ = stranger;
}
