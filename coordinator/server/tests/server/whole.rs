//! Whole transactions over sessions.

use accede_proto::v1::{self, Action, Decision, Status, branch_event, roll_back_reason::Code};

use crate::support::{Daemon, Rm, Tm};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_branches_commit() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut stock = Rm::connect(&daemon, &["stock"]).await;
    let mut account = Rm::connect(&daemon, &["account"]).await;
    let xid = tm.begin(60_000).await;
    let first = stock.register(xid, "stock", &["a", "b"]).await;
    let second = account.register(xid, "account", &["a"]).await;
    assert_eq!((first, second), (1, 2));
    stock.done(xid, first).await;
    account.done(xid, second).await;
    let outcome = tm.commit(xid).await;
    assert_eq!(outcome.decision(), Decision::Commit);
    assert_eq!(outcome.xid, xid);
    for rm in [&mut stock, &mut account] {
        let order = rm.order().await;
        assert_eq!(order.action(), Action::Commit);
        assert_eq!((order.xid, order.attempt), (xid, 1));
        assert!(order.was_done && order.epoch == rm.attached.epoch);
        rm.finished(&order).await;
    }
    let ended = tm.reaches(xid, Status::Committed).await;
    assert_eq!(ended.decision(), Decision::Commit);
    // A repeat is told what was decided.
    assert_eq!(tm.commit(xid).await.decision(), Decision::Commit);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_rolls_back() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begin(50).await;
    let branch = rm.register(xid, "stock", &["a"]).await;
    let order = rm.order().await;
    assert_eq!(order.action(), Action::RollBack);
    assert_eq!(order.branch, branch);
    assert!(!order.was_done);
    rm.finished(&order).await;
    let ended = tm.reaches(xid, Status::RolledBack).await;
    assert_eq!(ended.reason.expect("why").code(), Code::TimedOut);
    let text = daemon.page("/metrics").await;
    assert!(
        text.contains("accede_rolled_back_total{reason=\"timed_out\"} 1"),
        "{text}"
    );
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_lock_is_handed_over() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut first = Rm::connect(&daemon, &["stock"]).await;
    let mut second = Rm::connect(&daemon, &["stock"]).await;
    let (holder, waiter) = (tm.begin(60_000).await, tm.begin(60_000).await);
    let branch = first.register(holder, "stock", &["a"]).await;
    let request = second.registration(waiter, "stock", &["a"]);
    let body = v1::branch_request::Body::Register(request);
    let tag = second.ask(body.clone()).await;
    // A repeat joins the wait, and both are answered.
    let repeat = second.ask(body).await;
    first.done(holder, branch).await;
    assert_eq!(tm.commit(holder).await.decision(), Decision::Commit);
    let mut answered = Vec::new();
    for _ in 0..2 {
        let event = second.next().await;
        assert!(
            matches!(event.body, Some(branch_event::Body::Registered(_))),
            "{event:?}"
        );
        answered.push(event.tag);
    }
    answered.sort_unstable();
    assert_eq!(answered, [tag, repeat]);
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_a_late_done() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begin(60_000).await;
    let branch = rm.register(xid, "stock", &["a"]).await;
    let commit = v1::transaction_request::Body::Commit(v1::CommitRequest { xid });
    tm.send(77, commit).await;
    // The commit is in the log before "done" is sent.
    assert_eq!(tm.outcome(xid).await.status(), Status::Active);
    rm.done(xid, branch).await;
    let event = tm.next().await;
    assert_eq!(event.tag, 77);
    daemon.server.shutdown().await.expect("it ends");
}
