//! Row locks: holders, queues, refusals.

use super::*;
use LockMode::{Exclusive, Shared};

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
            (
                row.key.to_vec(),
                row.holders.first().map(|h| h.xid),
                waiting,
            )
        });
        rows.collect::<Vec<_>>()
    };
    assert_eq!(listed(&w, t1), [(b"1".to_vec(), Some(t1), alloc::vec![t2])]);
    // Nobody holds row 2: the second one keeps it free for itself.
    assert_eq!(listed(&w, t2), [(b"2".to_vec(), None, alloc::vec![t2, t3])]);
    assert_eq!(listed(&w, t3), []);
    let waiter = w.state.row_locks_of(t1)[0].waiting[0].clone();
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
fn a_cycle_through_one_who_queues_before_a_holder_is_seen() {
    let mut w = World::new();
    let (t1, t2, t3, t4) = (w.begin(), w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.branch(t2, "a", &["2"]);
    w.branch(t3, "a", &["3"]);
    w.queue(t4, "a", &["1", "2"]);
    // Holds row 1 and so waits for row 3 only, although it stands behind the fourth.
    w.queue(t1, "a", &["1", "3"]);
    let cycle = alloc::vec![t2, t4];
    assert_eq!(
        w.try_register(t2, "a", &["1"]),
        Reply::Refused(Rejection::Deadlock { cycle })
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
        shared: false,
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

fn take(w: &mut World, xid: Xid, key: &str, mode: &LockMode) {
    let registration = w.in_mode(xid, key, mode);
    let reply = w.apply(Command::RegisterBranch(registration));
    assert!(registered(&reply), "{reply:?}");
}

fn wait(w: &mut World, xid: Xid, key: &str, mode: &LockMode) -> Waiter {
    let registration = w.in_mode(xid, key, mode);
    let waits = waiter(&registration);
    let reply = w.apply(Command::RegisterBranch(registration));
    assert_eq!(reply, Reply::Waiting(waits));
    waits
}

/// Commits a transaction of one branch; returns who was granted something thereby.
fn end(w: &mut World, xid: Xid) -> Vec<Waiter> {
    w.done(xid, BranchId(1));
    w.commit(xid);
    let granted = w.answers().into_iter();
    let granted = granted.filter(|(_, reply)| registered(reply));
    granted.map(|(waiter, _)| waiter).collect()
}

#[test]
fn each_mode_beside_each_other() {
    let escrow = escrow(1, 5);
    for (held, wanted, together) in [
        (&Exclusive, &Exclusive, false),
        (&Exclusive, &Shared, false),
        (&Exclusive, &escrow, false),
        (&Shared, &Exclusive, false),
        (&Shared, &Shared, true),
        (&Shared, &escrow, false),
        (&escrow, &Exclusive, false),
        (&escrow, &Shared, false),
        (&escrow, &escrow, true),
    ] {
        let mut w = World::new();
        let (t1, t2) = (w.begin(), w.begin());
        take(&mut w, t1, "1", held);
        take(&mut w, t1, "2", wanted);
        if together {
            take(&mut w, t2, "1", wanted);
            assert_eq!(w.state.counts().row_locks, 2, "rows, not holders");
        } else {
            let waits = wait(&mut w, t2, "1", wanted);
            w.done(t1, BranchId(2));
            assert_eq!(end(&mut w, t1), [waits]);
        }
    }
}

#[test]
fn shared_requests_pass_each_other_but_nobody_else() {
    let mut w = World::new();
    let [t1, t2, t3, t4] = [w.begin(), w.begin(), w.begin(), w.begin()];
    take(&mut w, t1, "1", &Shared);
    let writer = wait(&mut w, t2, "1", &Exclusive);
    let readers = [
        wait(&mut w, t3, "1", &Shared),
        wait(&mut w, t4, "1", &Shared),
    ];
    assert_eq!(
        end(&mut w, t1),
        [writer],
        "readers do not starve the writer"
    );
    assert_eq!(end(&mut w, t2), readers, "all at once");
}

#[test]
fn a_reader_that_writes_waits_for_the_other_readers_only() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    take(&mut w, t1, "1", &Shared);
    take(&mut w, t2, "1", &Shared);
    wait(&mut w, t3, "1", &Exclusive);
    let more = wait(&mut w, t1, "1", &Exclusive);
    assert_eq!(end(&mut w, t2), [more], "it overtakes the third");
    w.done(t1, BranchId(2));
    assert_eq!(end(&mut w, t1).len(), 1);
}

#[test]
fn two_readers_that_want_to_write_are_a_deadlock() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    take(&mut w, t1, "1", &Shared);
    take(&mut w, t2, "1", &Shared);
    wait(&mut w, t1, "1", &Exclusive);
    let cycle = alloc::vec![t2, t1];
    let second = w.in_mode(t2, "1", &Exclusive);
    let reply = w.apply(Command::RegisterBranch(second));
    assert_eq!(reply, Reply::Refused(Rejection::Deadlock { cycle }));
}

#[test]
fn escrow_waits_for_those_whose_rollback_would_break_a_bound() {
    let mut w = World::new();
    let [t1, t2, t3, t4] = [w.begin(), w.begin(), w.begin(), w.begin()];
    take(&mut w, t1, "1", &escrow(5, 5));
    // Five are there, but they may be taken back.
    let taker = wait(&mut w, t2, "1", &escrow(-1, 4));
    let behind = wait(&mut w, t3, "1", &escrow(1, 5));
    let other_row = w.in_mode(t4, "2", &escrow(1, 5));
    assert!(registered(&w.apply(Command::RegisterBranch(other_row))));
    assert_eq!(w.state.waiting(t2)[0].blocked_by, [t1]);
    assert_eq!(end(&mut w, t1), [taker, behind], "in order");
}

#[test]
fn a_rolled_back_escrow_holds_its_row_until_it_is_undone() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    take(&mut w, t1, "1", &escrow(5, 5));
    w.done(t1, BranchId(1));
    w.roll_back(t1);
    // Compatible: it will be gone from the row before it could disturb the undo.
    take(&mut w, t2, "1", &escrow(1, 6));
    let third = w.begin();
    let mut request = w.in_mode(third, "1", &Exclusive);
    let refused = Reply::Refused(Rejection::HolderRollingBack { holder: t1 });
    assert_eq!(w.apply(Command::RegisterBranch(request.clone())), refused);
    request = w.in_mode(third, "1", &Exclusive);
    request.holds_local_locks = false;
    let waits = waiter(&request);
    assert_eq!(
        w.apply(Command::RegisterBranch(request)),
        Reply::Waiting(waits)
    );
    w.finish(t1, BranchId(1), Outcome::Finished);
    assert_eq!(end(&mut w, t2), [waits]);
}

#[test]
fn readers_do_not_hold_up_their_own_rollback() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    take(&mut w, t1, "1", &Shared);
    w.done(t1, BranchId(1));
    w.roll_back(t1);
    let writer = wait(&mut w, t2, "1", &Exclusive);
    w.finish(t1, BranchId(1), Outcome::Finished);
    assert_eq!(w.answers()[0].0, writer);
}

#[test]
fn a_check_that_only_reads_passes_readers() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    take(&mut w, t1, "1", &Shared);
    take(&mut w, t2, "2", &escrow(1, 5));
    for (key, shared, free) in [("1", true, true), ("1", false, false), ("2", true, false)] {
        let check = CheckLocks {
            xid: t3,
            request: w.request(),
            resource: "a".into(),
            locks: alloc::vec![LockKey::from(key.as_bytes())],
            shared,
            wait_limit_ms: 0,
            holds_local_locks: true,
        };
        let reply = w.apply(Command::CheckLocks(check));
        assert_eq!(reply == Reply::LocksFree, free, "{key} {shared}: {reply:?}");
    }
}

#[test]
fn an_escrow_without_sense_is_refused() {
    let mut w = World::new();
    let xid = w.begin();
    let column = |name: &str, delta, value| ColumnDelta {
        column: name.into(),
        delta,
        value,
        lower: 0,
        upper: 10,
    };
    let sides = "a column in escrow must be within its bounds before and after its change";
    for (deltas, why) in [
        (alloc::vec![], "an escrow must name a column"),
        (
            alloc::vec![column("b", 1, 5), column("a", 1, 5)],
            "columns of an escrow must be sorted, none twice",
        ),
        (alloc::vec![column("a", 1, 11)], sides),
        (alloc::vec![column("a", 3, 2)], sides),
        (alloc::vec![column("a", i64::MIN, 5)], sides),
    ] {
        let request = w.in_mode(xid, "1", &LockMode::Escrow(Arc::new(deltas)));
        let reply = w.apply(Command::RegisterBranch(request));
        assert_eq!(reply, Reply::Refused(Rejection::Malformed(why)));
    }
    let many = (0..17).map(|i| column(&alloc::format!("c{i:02}"), 1, 5));
    let request = w.in_mode(xid, "1", &LockMode::Escrow(Arc::new(many.collect())));
    let reply = w.apply(Command::RegisterBranch(request));
    assert_eq!(
        reply,
        Reply::Refused(Rejection::TooLarge {
            what: "an escrow",
            found: 17,
            limit: 16
        })
    );
}

#[test]
fn who_came_in_beside_a_waiting_reader_may_close_a_cycle() {
    let mut w = World::new();
    let [t1, t2, t3, t4] = [w.begin(), w.begin(), w.begin(), w.begin()];
    take(&mut w, t1, "1", &Shared);
    take(&mut w, t2, "1", &Shared);
    take(&mut w, t1, "2", &Exclusive);
    // The first will write once the second is gone.
    let third = w.queue(t3, "a", &["1"]);
    let reader = wait(&mut w, t4, "1", &Shared);
    let writer = wait(&mut w, t1, "1", &Exclusive);
    wait(&mut w, t4, "2", &Exclusive);
    w.apply(Command::WithdrawBranch(WithdrawBranch {
        xid: t3,
        request: third.request,
    }));
    let answers = w.answers();
    assert_eq!(answers[1].0, reader);
    assert!(registered(&answers[1].1));
    let cycle = alloc::vec![t1, t4];
    assert_eq!(
        answers[2],
        (writer, Reply::Refused(Rejection::Deadlock { cycle }))
    );
}

#[test]
fn who_holds_more_than_before_may_close_a_cycle() {
    let mut w = World::new();
    let [t1, t2, t3] = [w.begin(), w.begin(), w.begin()];
    take(&mut w, t1, "1", &Shared);
    take(&mut w, t2, "2", &Exclusive);
    take(&mut w, t3, "3", &Exclusive);
    // Would share row 1 with the first, and waits for the third only.
    let mut both = w.registration(t2, "a", &["1", "3"]);
    both.locks[0].mode = Shared;
    let waits = waiter(&both);
    w.apply(Command::RegisterBranch(both));
    assert_eq!(w.state.waiting(t2)[0].blocked_by, [t3]);
    wait(&mut w, t1, "2", &Exclusive);
    take(&mut w, t1, "1", &Exclusive);
    let cycle = alloc::vec![t2, t1];
    let refused = Reply::Refused(Rejection::Deadlock { cycle });
    assert_eq!(w.answers(), [(waits, refused)]);
}

/// The first transaction holds row 3, the second nothing; rows 1 and 2 are others'.
fn one_that_holds(w: &mut World) -> (Xid, Xid) {
    let [t1, t2, t3, t4] = [w.begin(), w.begin(), w.begin(), w.begin()];
    take(w, t3, "1", &Exclusive);
    take(w, t4, "2", &Exclusive);
    take(w, t1, "3", &Exclusive);
    (t1, t2)
}

/// The same, and the first queues to read row 1 together with row 2.
fn a_reader_that_waits(w: &mut World) -> (Xid, Xid) {
    let (t1, t2) = one_that_holds(w);
    let mut both = w.registration(t1, "a", &["1", "2"]);
    both.locks[0].mode = Shared;
    w.apply(Command::RegisterBranch(both));
    (t1, t2)
}

#[test]
fn a_reader_that_will_write_waits_for_those_who_may_read_before_it() {
    let mut w = World::new();
    let (t1, t2) = a_reader_that_waits(&mut w);
    wait(&mut w, t2, "1", &Shared);
    wait(&mut w, t1, "1", &Exclusive);
    let cycle = alloc::vec![t2, t1];
    assert_eq!(
        w.try_register(t2, "a", &["3"]),
        Reply::Refused(Rejection::Deadlock { cycle })
    );
}

#[test]
fn a_reader_that_will_write_waits_for_those_who_read_with_it() {
    let mut w = World::new();
    let (t1, t2) = one_that_holds(&mut w);
    wait(&mut w, t2, "1", &Shared);
    wait(&mut w, t1, "1", &Shared);
    wait(&mut w, t1, "1", &Exclusive);
    let cycle = alloc::vec![t2, t1];
    assert_eq!(
        w.try_register(t2, "a", &["3"]),
        Reply::Refused(Rejection::Deadlock { cycle })
    );
}

#[test]
fn who_may_read_first_since_a_writer_left_may_close_a_cycle() {
    let mut w = World::new();
    let (t1, t2) = a_reader_that_waits(&mut w);
    let t5 = w.begin();
    let between = w.queue(t5, "a", &["1"]);
    wait(&mut w, t2, "1", &Shared);
    let writer = wait(&mut w, t1, "1", &Exclusive);
    // Behind the fifth, it comes after the first in any case.
    wait(&mut w, t2, "3", &Exclusive);
    w.apply(Command::WithdrawBranch(WithdrawBranch {
        xid: t5,
        request: between.request,
    }));
    let cycle = alloc::vec![t1, t2];
    let refused = Reply::Refused(Rejection::Deadlock { cycle });
    assert_eq!(w.answers()[1..], [(writer, refused)]);
}
