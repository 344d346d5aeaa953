//! Transactions that stand still in a database: who lets go for them, and who need not.

use super::*;

fn blocked(w: &mut World, xid: Xid) -> Vec<(Waiter, Reply)> {
    let held_up = w.state.holds_up(xid);
    assert_eq!(w.apply(Command::Blocked(Blocked { xid })), Reply::Ok);
    assert!(!w.state.holds_up(xid), "nobody is held up any more");
    let answers = w.answers();
    assert_eq!(held_up, !answers.is_empty(), "the doors can tell before");
    answers
}

fn refused(registration: &RegisterBranch, holder: Xid) -> (Waiter, Reply) {
    let reply = Reply::Refused(Rejection::HolderBlocked { holder });
    (waiter(registration), reply)
}

#[test]
fn whoever_waits_for_it_with_local_locks_is_refused_and_hears_the_same_again() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let waits = w.queue(t2, "a", &["1", "2"]);
    let elsewhere = w.queue(t3, "a", &["2"]);
    let answers = blocked(&mut w, t1);
    assert_eq!(answers[0], refused(&waits, t1));
    // Only the queue was in its way.
    assert_eq!(answers[1].0, waiter(&elsewhere));
    assert!(registered(&answers[1].1));
    assert_eq!(w.apply(Command::RegisterBranch(waits)), answers[0].1);
    assert_eq!(blocked(&mut w, t1), [], "a repeat changes nothing");
}

#[test]
fn a_place_before_others_in_a_queue_is_in_the_way_too() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.queue(t2, "a", &["1"]);
    let behind = w.queue(t3, "a", &["1"]);
    // Another branch of the second transaction stands still; its queued request stays.
    assert_eq!(blocked(&mut w, t2), [refused(&behind, t2)]);
    assert_eq!(w.state.waiting(t2).len(), 1);
}

#[test]
fn a_check_lets_go_like_a_register() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let request = w.request();
    let check = CheckLocks {
        xid: t2,
        request,
        resource: "a".into(),
        locks: alloc::vec![LockKey::from(&b"1"[..])],
        shared: false,
        wait_limit_ms: 1_000,
        holds_local_locks: true,
    };
    w.apply(Command::CheckLocks(check));
    let reply = Reply::Refused(Rejection::HolderBlocked { holder: t1 });
    assert_eq!(blocked(&mut w, t1), [(Waiter::Request(t2, request), reply)]);
}

#[test]
fn who_passes_a_shared_holder_does_not_wait_for_it() {
    let mut w = World::new();
    let (reader, second, writer) = (w.begin(), w.begin(), w.begin());
    let shared = |registration: &mut RegisterBranch| {
        for lock in &mut registration.locks {
            lock.mode = LockMode::Shared;
        }
    };
    for xid in [reader, second] {
        let mut reads = w.registration(xid, "a", &["1"]);
        shared(&mut reads);
        assert!(registered(&w.apply(Command::RegisterBranch(reads))));
    }
    let waits = w.queue(writer, "a", &["1"]);
    assert_eq!(blocked(&mut w, second), [refused(&waits, second)]);
}

#[test]
fn a_request_without_local_locks_is_in_nobodys_way() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let mut waits = w.registration(t2, "a", &["1"]);
    waits.holds_local_locks = false;
    w.apply(Command::RegisterBranch(waits));
    assert_eq!(blocked(&mut w, t1), []);
    assert_eq!(w.state.waiting(t2).len(), 1);
}

#[test]
fn who_waits_for_another_stays() {
    let mut w = World::new();
    let (t1, t2, t3) = (w.begin(), w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    w.branch(t2, "b", &["1"]);
    w.queue(t3, "a", &["1"]);
    assert_eq!(blocked(&mut w, t2), []);
    assert_eq!(blocked(&mut w, t3), [], "not its own request");
    assert_eq!(w.state.waiting(t3).len(), 1);
}

#[test]
fn who_waits_for_the_transaction_around_it_is_refused() {
    let mut w = World::new();
    let (parent, waiting) = (w.begin(), w.begin());
    w.branch(parent, "a", &["1"]);
    let nested = w.next_xid();
    assert_eq!(w.begin_reply(nested, 60_000, Some(parent)), Reply::Ok);
    let waits = w.queue(waiting, "a", &["1"]);
    // The parent's code waits for the nested one, and so do all who wait for the parent.
    assert_eq!(blocked(&mut w, nested), [refused(&waits, parent)]);
}

#[test]
fn the_code_of_a_decided_transaction_waits_for_nobody() {
    let mut w = World::new();
    let (outer, waiting) = (w.begin(), w.begin());
    w.branch(outer, "a", &["1"]);
    let (middle, inner) = (w.next_xid(), w.next_xid());
    assert_eq!(w.begin_reply(middle, 60_000, Some(outer)), Reply::Ok);
    assert_eq!(w.begin_reply(inner, 60_000, Some(middle)), Reply::Ok);
    w.roll_back(middle);
    w.answers();
    w.queue(waiting, "a", &["1"]);
    assert_eq!(blocked(&mut w, inner), []);
}

#[test]
fn who_waits_for_two_of_them_is_refused_though_one_lets_go() {
    let mut w = World::new();
    let (outer, other, waiting) = (w.begin(), w.begin(), w.begin());
    let (middle, inner) = (w.next_xid(), w.next_xid());
    assert_eq!(w.begin_reply(middle, 60_000, Some(outer)), Reply::Ok);
    assert_eq!(w.begin_reply(inner, 60_000, Some(middle)), Reply::Ok);
    w.branch(inner, "a", &["1"]);
    w.branch(other, "a", &["2"]);
    w.branch(outer, "a", &["3"]);
    let first = w.queue(middle, "a", &["1", "2"]);
    // Behind the first on one row, behind the outer transaction on the other.
    let second = w.queue(waiting, "a", &["2", "3"]);
    let answers = blocked(&mut w, inner);
    assert_eq!(answers, [refused(&first, inner), refused(&second, outer)]);
}

#[test]
fn parents_in_a_circle_are_walked_once() {
    let mut w = World::new();
    let (first, second) = (w.next_xid(), w.next_xid());
    assert_eq!(w.begin_reply(first, 60_000, Some(second)), Reply::Ok);
    assert_eq!(w.begin_reply(second, 60_000, Some(first)), Reply::Ok);
    assert_eq!(blocked(&mut w, first), []);
}

#[test]
fn too_late_or_too_early_it_changes_nothing() {
    let mut w = World::new();
    let (t1, t2) = (w.begin(), w.begin());
    w.branch(t1, "a", &["1"]);
    let never = w.next_xid();
    assert_eq!(blocked(&mut w, never), []);
    w.roll_back(t1);
    let mut waits = w.registration(t2, "a", &["1"]);
    waits.holds_local_locks = false;
    w.apply(Command::RegisterBranch(waits));
    assert_eq!(blocked(&mut w, t1), [], "it is decided");
    w.finish(t1, BranchId(1), Outcome::Finished);
    w.done(t2, BranchId(1));
    w.commit(t2);
    w.finish(t2, BranchId(1), Outcome::Finished);
    w.pass(limits::RETENTION_MS);
    w.expire_now();
    assert_eq!(w.state.whereabouts(t1), Whereabouts::Forgotten);
    assert_eq!(blocked(&mut w, t1), []);
}
