//! A transaction whose only branch, of XA, was kept open: that branch decides.

use accede_proto::v1::{
    self, Action, Decision, Mode, PhaseTwoFailure, Status, branch_event,
    branch_finished::Result as End, branch_request::Body as RmBody, roll_back_reason::Code,
    transaction_request::Body as TmBody,
};

use crate::support::{Daemon, Rm, Tm, process};

async fn open(rm: &mut Rm, xid: u64) -> v1::Registered {
    let registration = v1::RegisterBranch {
        mode: Mode::Xa.into(),
        can_keep_open: true,
        ..rm.registration(xid, "stock", &[])
    };
    match rm.call(RmBody::Register(registration)).await {
        branch_event::Body::Registered(registered) => registered,
        other => panic!("not registered: {other:?}"),
    }
}

async fn status(daemon: &Daemon, xid: u64) -> Status {
    let mut operator = daemon.operator().await;
    let request = v1::GetTransactionRequest { xid };
    let detail = operator.get_transaction(request).await.expect("known");
    detail.into_inner().summary.expect("always there").status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_branch_decides_and_the_client_hears_it() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begun(60_000).await;
    assert!(open(&mut rm, xid).await.keep_open);
    let answers = async {
        let order = rm.order().await;
        assert_eq!(
            (order.action(), order.mode()),
            (Action::CommitOnePhase, Mode::Xa)
        );
        assert_eq!(status(&daemon, xid).await, Status::Delegated);
        let page = daemon.page("/metrics").await;
        assert!(page.contains("status=\"delegated\"} 1"), "{page}");
        rm.finished(&order).await;
    };
    let (outcome, ()) = tokio::join!(tm.commit(xid), answers);
    assert_eq!(outcome.decision(), Decision::Commit);
    tm.reaches(xid, Status::Committed).await;

    // One that cannot; a rollback that is asked for meanwhile hears the same.
    let xid = tm.begun(60_000).await;
    open(&mut rm, xid).await;
    tm.send(77, TmBody::Commit(v1::CommitRequest { xid })).await;
    let order = rm.order().await;
    let reason = "never mind".into();
    let roll_back = TmBody::RollBack(v1::RollBackRequest { xid, reason });
    tm.send(78, roll_back).await;
    let no = PhaseTwoFailure {
        reason: "a check failed".into(),
        ..Default::default()
    };
    rm.finish(&order, End::Refused(no)).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = tm.next().await;
        if let Some(v1::transaction_event::Body::Outcome(outcome)) = event.body {
            assert_eq!(outcome.decision(), Decision::RollBack);
            let why = outcome.reason.expect("a reason");
            assert_eq!(why.code(), Code::BranchFailed);
            assert_eq!(why.detail, "branch 1: a check failed");
            heard.push(event.tag);
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, [77, 78]);
    tm.reaches(xid, Status::RolledBack).await;
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_branch_has_it_prepared_and_the_commit_waits_for_the_vote() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begun(60_000).await;
    assert!(open(&mut rm, xid).await.keep_open);
    assert!(!open(&mut rm, xid).await.keep_open);
    rm.done(xid, 2).await;
    let order = rm.order().await;
    assert_eq!((order.branch, order.action()), (1, Action::Prepare));
    tm.send(77, TmBody::Commit(v1::CommitRequest { xid })).await;
    rm.finish(&order, End::Prepared(v1::Empty {})).await;
    while tm.next().await.tag != 77 {}
    for _ in 0..2 {
        let order = rm.order().await;
        assert_eq!(order.action(), Action::Commit);
        rm.finished(&order).await;
    }
    tm.reaches(xid, Status::Committed).await;
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_the_order_waits_a_little_for_the_agent_that_keeps_it_open() {
    let daemon = Daemon::start().await;
    let me = process();
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect_as(&daemon, me, &["stock"]).await;
    let (client, worker) = (tm.process, tm.lease.worker);
    let first = tm.begun(60_000).await;
    let second = tm.begun(60_000).await;
    for xid in [first, second] {
        open(&mut rm, xid).await;
        tm.send(77, TmBody::Commit(v1::CommitRequest { xid })).await;
        assert_eq!(rm.order().await.xid, xid);
    }
    let daemon = daemon.restart().await;
    let mut other = Rm::connect(&daemon, &["stock"]).await;
    let mut rm = Rm::connect_as(&daemon, me, &["stock"]).await;
    let mut orders = [rm.order().await, rm.order().await];
    orders.sort_by_key(|order| order.xid);
    assert_eq!(orders[0].action(), Action::CommitOnePhase);
    rm.finished(&orders[0]).await;
    let mut tm = Tm::connect_as(&daemon, client, Some(worker)).await;
    tm.reaches(first, Status::Committed).await;
    // It does not come back: then it is for any other.
    drop(rm);
    let order = other.order().await;
    assert_eq!(
        (order.xid, order.action()),
        (second, Action::CommitOnePhase)
    );
    let gone = PhaseTwoFailure::default();
    other.finish(&order, End::Refused(gone)).await;
    tm.reaches(second, Status::RolledBack).await;
    daemon.server.shutdown().await.expect("it ends");
}
