//! Orders follow agents: across reconnects, to others, over a restart.

use accede_proto::v1::{
    self, Action, RepairVerb, Status, branch_event, branch_finished::Result as End,
    branch_request::Body as RmBody,
};

use crate::support::{Daemon, Rm, Tm, process, refusal, soon};

/// A committed transaction with one branch on "stock", registered by `rm`.
async fn committed(tm: &mut Tm, rm: &mut Rm) -> u64 {
    let xid = tm.begin(60_000).await;
    let branch = rm.register(xid, "stock", &[&xid.to_string()]).await;
    rm.done(xid, branch).await;
    tm.commit(xid).await;
    xid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_agents_orders_go_to_another_or_back_to_itself() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let me = process();
    let mut first = Rm::connect_as(&daemon, me, &["stock"]).await;
    let xid = committed(&mut tm, &mut first).await;
    let order = first.order().await;
    drop(first);
    // Nobody is attached: it waits where operators see it.
    let mut operator = daemon.operator().await;
    soon(async {
        loop {
            let status = operator.get_status(v1::GetStatusRequest {}).await;
            let status = status.expect("a status").into_inner();
            if status.resources.len() == 1 && status.resources[0].waiting_orders == 1 {
                assert!(status.agents.is_empty());
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let detail = operator
        .get_transaction(v1::GetTransactionRequest { xid })
        .await;
    let detail = detail.expect("known").into_inner();
    assert!(detail.branches[0].waiting_for_agent);
    let mut again = Rm::connect_as(&daemon, me, &["stock"]).await;
    assert_eq!(again.order().await, order);
    // A second session of the same process takes the first one's place.
    let mut newest = Rm::connect_as(&daemon, me, &["stock"]).await;
    assert_eq!(newest.order().await, order);
    let ended = soon(again.events.message()).await.expect_err("ended");
    assert!(ended.message().contains("another session"), "{ended}");
    let mut other = Rm::connect(&daemon, &["stock"]).await;
    drop(newest);
    assert_eq!(other.order().await, order);
    other.finished(&order).await;
    tm.reaches(xid, Status::Committed).await;
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_with_what_is_owed() {
    let daemon = Daemon::start().await;
    let me = process();
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect_as(&daemon, me, &["stock"]).await;
    let xid = committed(&mut tm, &mut rm).await;
    let before = rm.order().await;
    let open = tm.begun(60_000).await;
    let (client, worker) = (tm.process, tm.lease.worker);
    let daemon = daemon.restart().await;
    let mut rm = Rm::connect_as(&daemon, me, &["stock"]).await;
    let after = rm.order().await;
    assert!(after.epoch > before.epoch);
    assert_eq!(after.epoch, rm.attached.epoch);
    assert_eq!(
        (after.xid, after.branch, after.attempt),
        (xid, 1, before.attempt)
    );
    // The lease has survived, and so have the begun transactions.
    let mut tm = Tm::connect_as(&daemon, client, Some(worker)).await;
    assert_eq!(tm.lease.worker, worker);
    assert_eq!(tm.lease.begun_through, open);
    assert_eq!(tm.outcome(open).await.status(), Status::Active);
    // An outcome of the former epoch: a success is a success.
    rm.finished(&before).await;
    tm.reaches(xid, Status::Committed).await;
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_finished_is_stuck_and_can_be_repaired() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = tm.begin(60_000).await;
    let branch = rm.register(xid, "stock", &["a"]).await;
    rm.done(xid, branch).await;
    let body = v1::transaction_request::Body::RollBack(v1::RollBackRequest {
        xid,
        reason: "no money".into(),
    });
    tm.call(body).await;
    let order = rm.order().await;
    assert_eq!(order.action(), Action::RollBack);
    rm.finish(&order, End::InProgress(v1::Empty {})).await;
    let failure = |reason: &str| v1::PhaseTwoFailure {
        reason: reason.into(),
        difference: "count: 5, not 4".into(),
        repair_statement: "UPDATE".into(),
    };
    rm.finish(&order, End::Failed(failure("deadlock"))).await;
    let second = rm.order().await;
    assert_eq!(second.attempt, 2);
    rm.finish(&second, End::Stuck(failure("the row was changed")))
        .await;
    let outcome = tm.reaches(xid, Status::Stuck).await;
    assert_eq!(outcome.reason.expect("why").detail, "no money");
    let mut operator = daemon.operator().await;
    let wanted = v1::ListTransactionsRequest {
        statuses: vec![Status::Stuck.into()],
        ..Default::default()
    };
    let listed = operator
        .list_transactions(wanted)
        .await
        .expect("a list")
        .into_inner();
    assert_eq!(listed.transactions.len(), 1);
    assert_eq!(listed.transactions[0].xid, xid);
    let get = v1::GetTransactionRequest { xid };
    let detail = operator
        .get_transaction(get)
        .await
        .expect("known")
        .into_inner();
    let problem = detail.branches[0].problem.clone().expect("a problem");
    assert_eq!(problem.reason, "the row was changed");
    assert_eq!(detail.branches[0].status, "stuck");
    let mut repair = v1::RepairRequest {
        xid,
        branch: 0,
        verb: RepairVerb::Apply.into(),
        by: String::new(),
        reason: "agreed with the shop".into(),
    };
    let unsigned = operator.repair(repair.clone()).await.expect_err("refused");
    assert!(unsigned.message().contains("who"), "{unsigned}");
    repair.by = "ann".into();
    let repaired = operator
        .repair(repair)
        .await
        .expect("repaired")
        .into_inner();
    assert_eq!(repaired.branches, [branch]);
    let forced = rm.order().await;
    assert_eq!(forced.action(), Action::RollBackForced);
    rm.finished(&forced).await;
    tm.reaches(xid, Status::RolledBack).await;
    let detail = operator
        .get_transaction(get)
        .await
        .expect("known")
        .into_inner();
    assert_eq!(detail.repairs[0].by, "ann");
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweepers_are_told_what_has_ended() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = Rm::connect(&daemon, &["stock"]).await;
    let xid = committed(&mut tm, &mut rm).await;
    let order = rm.order().await;
    rm.finished(&order).await;
    tm.reaches(xid, Status::Committed).await;
    let skipped = tm.make_xid();
    let open = tm.begun(60_000).await;
    let unknown = tm.make_xid();
    let body = v1::branch_request::Body::AskEnded(v1::AskEnded {
        resource: "stock".into(),
        xids: vec![open, xid, unknown, skipped],
    });
    let branch_event::Body::Ended(ended) = rm.call(body).await else {
        panic!("no answer");
    };
    use v1::ended::State;
    let states: Vec<State> = ended.states().collect();
    assert_eq!(
        states,
        [State::Open, State::Ended, State::NeverBegun, State::Ended]
    );
    daemon.server.shutdown().await.expect("it ends");
}

/// Whether so many such commands were logged.
async fn logged_blocked(daemon: &Daemon, count: u32) -> bool {
    let line = format!("accede_commands_total{{verb=\"blocked\"}} {count}");
    daemon
        .page("/metrics")
        .await
        .lines()
        .any(|have| have == line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_blocked_transaction_lets_go() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut agent = Rm::connect(&daemon, &["stock"]).await;
    let (x, y) = (tm.begun(60_000).await, tm.begun(60_000).await);
    let branch = agent.register(x, "stock", &["apple"]).await;
    agent.done(x, branch).await;

    // Nobody waits for it: noted, and nothing is logged.
    let blocked = v1::BranchBlocked { xid: x };
    for _ in 0..3 {
        let answer = agent.call(RmBody::Blocked(blocked)).await;
        assert!(matches!(answer, branch_event::Body::Accepted(_)));
        daemon
            .branches()
            .await
            .blocked(blocked)
            .await
            .expect("noted");
    }
    assert!(logged_blocked(&daemon, 0).await);

    for unary in [false, true] {
        let waits = agent.registration(y, "stock", &["apple"]);
        let tag = agent.ask(RmBody::Register(waits)).await;
        let mut operator = daemon.operator().await;
        soon(async {
            loop {
                let get = v1::GetTransactionRequest { xid: y };
                let detail = operator.get_transaction(get).await.expect("known");
                if !detail.into_inner().waiting.is_empty() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        if unary {
            let mut branches = daemon.branches().await;
            branches.blocked(blocked).await.expect("noted");
        } else {
            agent.send(0, RmBody::Blocked(blocked)).await;
        }
        let refusal = refusal(agent.answer(tag).await);
        assert_eq!(refusal.code(), v1::refusal::Code::HolderBlocked);
        assert_eq!(refusal.holder, x);
        assert!(refusal.retry_after_ms > 0);
    }
    assert!(logged_blocked(&daemon, 2).await);
    let nonsense = v1::BranchBlocked { xid: 0 };
    let refusal = refusal(agent.call(RmBody::Blocked(nonsense)).await);
    assert_eq!(refusal.code(), v1::refusal::Code::Invalid);
    daemon.server.shutdown().await.expect("it ends");
}
