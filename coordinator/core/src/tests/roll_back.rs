//! Rolling back: asked for, by time, by doubt.

use super::*;

#[test]
fn undoes_each_resource_backwards_and_resources_in_parallel() {
    let mut w = World::new();
    let xid = w.begin();
    let a1 = w.branch(xid, "a", &["1"]);
    let a2 = w.branch(xid, "a", &["1", "2"]);
    let b3 = w.branch(xid, "b", &["1"]);
    let reason = RollBackReason::Requested("sold out".into());
    assert_eq!(
        w.roll_back(xid),
        Reply::Decided(Decision::RollBack, Some(reason.clone()))
    );
    assert_eq!(
        w.orders(),
        [
            (xid, b3.0, Action::RollBack, 1),
            (xid, a2.0, Action::RollBack, 1)
        ]
    );
    assert_eq!(
        w.state.counts().row_locks,
        3,
        "locks stay until the undo is durable"
    );
    w.finish(xid, a2, Outcome::Finished);
    assert_eq!(w.orders(), [(xid, a1.0, Action::RollBack, 1)]);
    assert_eq!(
        w.state.counts().row_locks,
        2,
        "row 1 of a is still held by the first branch"
    );
    w.finish(xid, a1, Outcome::Finished);
    assert_eq!(w.state.counts().row_locks, 1);
    w.finish(xid, b3, Outcome::Finished);
    assert_eq!(w.status(xid), Status::RolledBack);
    assert_eq!(
        w.commit(xid),
        Reply::Decided(Decision::RollBack, Some(reason))
    );
}

#[test]
fn branches_that_are_not_done_are_undone_too() {
    let mut w = World::new();
    let xid = w.begin();
    let branch = w.register(xid, "a", &["1"]);
    w.roll_back(xid);
    let Effect::Order(order) = w.effects.last().expect("an order") else {
        panic!("an order")
    };
    assert!(!order.was_done, "its undo record may be missing");
    assert_eq!(
        w.done(xid, branch),
        Reply::Ok,
        "a message that the rollback overtook"
    );
    assert!(w.branch_of(xid, branch).was_done());
    w.finish(xid, branch, Outcome::Finished);
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn a_withdrawal_that_the_rollback_overtook_ends_the_branch() {
    let mut w = World::new();
    let xid = w.begin();
    let registration = w.registration(xid, "a", &["1"]);
    w.apply(Command::RegisterBranch(registration.clone()));
    w.roll_back(xid);
    let withdraw = WithdrawBranch {
        xid,
        request: registration.request,
    };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    assert!(w.effects.contains(&Effect::DropOrder {
        xid,
        branch: BranchId(1)
    }));
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn a_branch_that_is_done_cannot_be_withdrawn() {
    let mut w = World::new();
    let xid = w.begin();
    let registration = w.registration(xid, "a", &["1"]);
    w.apply(Command::RegisterBranch(registration.clone()));
    w.done(xid, BranchId(1));
    let withdraw = WithdrawBranch {
        xid,
        request: registration.request,
    };
    let reply = w.apply(Command::WithdrawBranch(withdraw));
    assert!(matches!(reply, Reply::Refused(Rejection::BranchState(_))));
}

#[test]
fn the_deadline_rolls_back() {
    let mut w = World::new();
    let xid = w.next_xid();
    w.begin_reply(xid, 500, None);
    w.branch(xid, "a", &["1"]);
    w.pass(499);
    assert!(w.expire_now().is_empty(), "not yet");
    w.pass(1);
    w.expire_now();
    assert_eq!(
        w.state.transaction(xid).and_then(Transaction::reason),
        Some(&RollBackReason::TimedOut)
    );
    assert_eq!(w.orders(), [(xid, 1, Action::RollBack, 1)]);
}

#[test]
fn nothing_expires_in_a_new_leaders_grace() {
    let mut w = World::new();
    let xid = w.next_xid();
    w.begin_reply(xid, 500, None);
    assert!(matches!(
        w.apply(Command::TakeOffice(TakeOffice::default())),
        Reply::InOffice(_)
    ));
    w.pass(600);
    assert!(w.expire_now().is_empty());
    assert_eq!(w.status(xid), Status::Active);
    w.pass(limits::GRACE_MS);
    w.expire_now();
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn doubt_about_a_local_commit_dooms_the_transaction() {
    let mut w = World::new();
    let xid = w.begin();
    let branch = w.register(xid, "a", &["1"]);
    let doom = Command::DoomBranch(DoomBranch {
        xid,
        branch,
        detail: "connection lost".into(),
    });
    assert_eq!(w.apply(doom.clone()), Reply::Ok);
    assert_eq!(w.orders(), [(xid, 1, Action::RollBack, 1)]);
    assert_eq!(w.apply(doom), Reply::Ok, "a repeat is fine");
    let reason = RollBackReason::LocalCommitUnknown(branch, "connection lost".into());
    assert_eq!(
        w.commit(xid),
        Reply::Decided(Decision::RollBack, Some(reason))
    );
    let unknown = DoomBranch {
        xid,
        branch: BranchId(9),
        detail: String::new(),
    };
    assert_eq!(
        w.apply(Command::DoomBranch(unknown)),
        Reply::Refused(Rejection::BranchUnknown)
    );
}

#[test]
fn waiting_requests_of_a_rolled_back_transaction_are_refused() {
    let mut w = World::new();
    let holder = w.begin();
    w.branch(holder, "a", &["1"]);
    let xid = w.begin();
    let waiting = w.queue(xid, "a", &["1"]);
    w.roll_back(xid);
    let refused = Reply::Refused(Rejection::AlreadyDecided(Decision::RollBack));
    assert_eq!(w.answers(), [(waiter(&waiting), refused)]);
    assert_eq!(w.status(xid), Status::RolledBack);
}
