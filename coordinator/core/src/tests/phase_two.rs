//! Finishing branches: retries, outages, late messages, new leaders.

use super::*;

fn committing(w: &mut World) -> (Xid, BranchId) {
    let xid = w.begin();
    let branch = w.branch(xid, "a", &["1"]);
    w.commit(xid);
    (xid, branch)
}

#[test]
fn failures_are_retried_with_growing_pauses_until_the_budget_is_spent() {
    let mut w = World::new();
    let (xid, branch) = committing(&mut w);
    for attempt in 1..limits::RETRY_BUDGET {
        w.finish(xid, branch, Outcome::Failed(problem("lock not available")));
        assert_eq!(w.status(xid), Status::Committing);
        let at = w
            .branch_of(xid, branch)
            .next_attempt_at()
            .expect("a next attempt");
        assert!(at > w.state.now());
        while w.orders().is_empty() {
            w.renew();
            w.expire();
        }
        assert_eq!(w.orders(), [(xid, branch.0, Action::Commit, attempt + 1)]);
    }
    w.finish(xid, branch, Outcome::Failed(problem("lock not available")));
    assert_eq!(w.status(xid), Status::Stuck(Decision::Commit));
    assert!(w.effects.contains(&Effect::Stuck { xid, branch }));
    let kept = w.branch_of(xid, branch).problem().expect("why");
    assert_eq!(kept.reason, "lock not available");
}

#[test]
fn an_outage_spends_nothing() {
    let mut w = World::new();
    let (xid, branch) = committing(&mut w);
    for _ in 0..3 * limits::RETRY_BUDGET {
        w.finish(
            xid,
            branch,
            Outcome::Unavailable(problem("connection refused")),
        );
        while w.orders().is_empty() {
            w.renew();
            w.expire();
        }
    }
    assert_eq!(w.status(xid), Status::Committing);
    assert_eq!(w.branch_of(xid, branch).failures(), 0);
    w.finish(xid, branch, Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committed);
}

#[test]
fn failures_of_older_attempts_and_epochs_are_ignored_and_success_is_final() {
    let mut w = World::new();
    let (xid, branch) = committing(&mut w);
    let report = |w: &mut World, attempt, epoch, outcome| {
        let finish = FinishBranch {
            xid,
            branch,
            attempt: Attempt(attempt),
            epoch,
            outcome,
        };
        w.apply(Command::FinishBranch(finish))
    };
    let old = w.state.epoch();
    w.apply(Command::TakeOffice(TakeOffice::default()));
    let new = w.state.epoch();
    assert!(new > old);
    assert_eq!(
        report(&mut w, 1, old, Outcome::Stuck(problem("old leader"))),
        Reply::Ok
    );
    assert_eq!(
        report(&mut w, 7, new, Outcome::Stuck(problem("no such attempt"))),
        Reply::Ok
    );
    assert_eq!(w.status(xid), Status::Committing);
    assert_eq!(
        report(&mut w, 1, new, Outcome::Failed(problem("now"))),
        Reply::Ok
    );
    assert_eq!(
        report(&mut w, 1, new, Outcome::Failed(problem("again"))),
        Reply::Ok
    );
    assert_eq!(
        w.branch_of(xid, branch).failures(),
        1,
        "a repeat does not count"
    );
    assert_eq!(
        report(&mut w, 1, old, Outcome::Finished),
        Reply::Ok,
        "any attempt, any epoch"
    );
    assert_eq!(w.status(xid), Status::Committed);
    assert_eq!(report(&mut w, 1, old, Outcome::Finished), Reply::Ok);
}

#[test]
fn an_outcome_without_an_order_is_refused() {
    let mut w = World::new();
    let xid = w.begin();
    let branch = w.branch(xid, "a", &["1"]);
    let reply = w.finish(xid, branch, Outcome::Finished);
    assert!(matches!(reply, Reply::Refused(Rejection::BranchState(_))));
    let unknown = FinishBranch {
        xid,
        branch: BranchId(7),
        attempt: Attempt(1),
        epoch: w.state.epoch(),
        outcome: Outcome::Finished,
    };
    let reply = w.apply(Command::FinishBranch(unknown));
    assert_eq!(reply, Reply::Refused(Rejection::BranchUnknown));
}

#[test]
fn a_failing_branch_holds_back_only_its_own_resource() {
    let mut w = World::new();
    let xid = w.begin();
    w.branch(xid, "a", &["1"]);
    let a2 = w.branch(xid, "a", &["2"]);
    let b3 = w.branch(xid, "b", &["1"]);
    w.roll_back(xid);
    w.finish(xid, a2, Outcome::Stuck(problem("changed behind our back")));
    assert_eq!(w.status(xid), Status::Stuck(Decision::RollBack));
    w.finish(xid, b3, Outcome::Finished);
    assert!(
        w.orders().is_empty(),
        "the first branch of a waits for the second"
    );
    assert_eq!(
        w.state.counts().row_locks,
        2,
        "a keeps its locks, b does not"
    );
    assert_eq!(w.state.counts().stuck, 1);
}

#[test]
fn a_new_leader_repeats_what_is_owed() {
    let mut w = World::new();
    let (ordered, _) = committing(&mut w);
    let (waits, branch) = {
        let xid = w.begin();
        let branch = w.branch(xid, "a", &["2"]);
        w.commit(xid);
        (xid, branch)
    };
    w.finish(waits, branch, Outcome::Failed(problem("later")));
    let ended = w.begin();
    w.commit(ended);
    let open = w.begin();
    w.branch(open, "a", &["3"]);
    w.apply(Command::TakeOffice(TakeOffice::default()));
    let owed = w.state.resume();
    assert_eq!(
        orders(&owed),
        [(ordered, 1, Action::Commit, 1)],
        "the other waits for its time"
    );
    let Effect::Order(order) = &owed[0] else {
        panic!("an order")
    };
    assert_eq!(order.epoch, w.state.epoch());
}
