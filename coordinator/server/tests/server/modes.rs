//! Branches on actions: their names, their arguments, what operators see of them.

use accede_proto::v1::{
    self, Mode, Status, branch_event, branch_request::Body as RmBody, refusal::Code,
    transaction_request::Body as TmBody,
};

use crate::support::{Daemon, Rm, Tm, process, refusal, resource};

fn action(name: &str) -> v1::Resource {
    v1::Resource {
        name: name.into(),
        ..Default::default()
    }
}

async fn attach(daemon: &Daemon, resources: Vec<v1::Resource>) -> Rm {
    Rm::try_connect(daemon, process(), resources)
        .await
        .expect("it attaches")
}

fn tried(rm: &mut Rm, xid: u64, action: &str, payload: &[u8]) -> v1::RegisterBranch {
    v1::RegisterBranch {
        mode: Mode::Tcc.into(),
        payload: payload.to_vec().into(),
        holds_local_locks: false,
        ..rm.registration(xid, action, &[])
    }
}

async fn refused(rm: &mut Rm, registration: v1::RegisterBranch) -> v1::Refusal {
    refusal(rm.call(RmBody::Register(registration)).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_come_back_with_the_order_and_show_their_size() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = attach(&daemon, vec![action("account.freeze"), resource("stock")]).await;
    let xid = tm.begun(60_000).await;
    let freeze = tried(&mut rm, xid, "account.freeze", b"{\"amount\":5}");
    let answer = rm.call(RmBody::Register(freeze)).await;
    assert!(matches!(answer, branch_event::Body::Registered(_)));
    rm.done(xid, 1).await;
    let of_rows = rm.register(xid, "stock", &["apple"]).await;
    rm.done(xid, of_rows).await;

    let mut operator = daemon.operator().await;
    let status = operator.get_status(v1::GetStatusRequest {}).await;
    let status = status.expect("a status").into_inner();
    assert_eq!(status.payload_bytes, 12);
    let shown: Vec<_> = status
        .resources
        .iter()
        .map(|shown| (shown.name.as_str(), shown.database_id.len()))
        .collect();
    assert_eq!(shown, [("stock", 16), ("account.freeze", 0)]);
    let detail = operator
        .get_transaction(v1::GetTransactionRequest { xid })
        .await;
    let detail = detail.expect("known").into_inner();
    assert_eq!(detail.branches[0].mode(), Mode::Tcc);
    assert_eq!(detail.branches[0].payload_bytes, 12);
    let summary = detail.summary.expect("always there");
    assert_eq!(summary.modes().collect::<Vec<_>>(), [Mode::At, Mode::Tcc]);
    assert!(
        daemon
            .page("/metrics")
            .await
            .contains("accede_payload_bytes 12")
    );

    tm.commit(xid).await;
    let mut orders = [rm.order().await, rm.order().await];
    orders.sort_by_key(|order| order.branch);
    assert_eq!(orders[0].mode(), Mode::Tcc);
    assert_eq!(&orders[0].payload[..], b"{\"amount\":5}");
    assert_eq!((orders[1].mode(), orders[1].payload.len()), (Mode::At, 0));
    for order in &orders {
        rm.finished(order).await;
    }
    tm.reaches(xid, Status::Committed).await;
    daemon.server.shutdown().await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_one_thing_and_the_request_must_fit_it() {
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = attach(&daemon, vec![action("freeze"), resource("stock")]).await;
    // Shown again, also by another process, it is the same.
    let _other = attach(&daemon, vec![action("freeze")]).await;
    for (shown, words) in [
        (resource("freeze"), "\"freeze\" is the name of an action"),
        (action("stock"), "\"stock\" is the name of a database"),
    ] {
        let name = shown.name.clone();
        let Err(refusal) = Rm::try_connect(&daemon, process(), vec![shown]).await else {
            panic!("the name is taken");
        };
        assert_eq!(refusal.code(), Code::ResourceMismatch);
        assert_eq!(refusal.resource, name, "the agent can leave it out");
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }

    let xid = tm.begun(60_000).await;
    let on_action = rm.registration(xid, "freeze", &["apple"]);
    let no = refused(&mut rm, on_action).await;
    assert_eq!(no.code(), Code::ResourceMismatch, "{}", no.message);
    let on_database = tried(&mut rm, xid, "stock", b"{}");
    let no = refused(&mut rm, on_database).await;
    assert_eq!(no.code(), Code::ResourceMismatch, "{}", no.message);
    let large = vec![7; accede_core::limits::MAX_PAYLOAD_BYTES + 1];
    let large = tried(&mut rm, xid, "freeze", &large);
    let no = refused(&mut rm, large).await;
    assert_eq!(no.code(), Code::TooLarge);
    assert!(
        no.message.contains("the branch's payload"),
        "{}",
        no.message
    );
    for unknown in [0, 6, 99] {
        let registration = v1::RegisterBranch {
            mode: unknown,
            ..rm.registration(xid, "stock", &[])
        };
        let no = refused(&mut rm, registration).await;
        assert_eq!(no.code(), Code::Invalid);
        assert!(no.message.contains("TCC (3)"), "{}", no.message);
    }
    let with_locks = v1::RegisterBranch {
        row_locks: vec![vec![1].into()],
        ..tried(&mut rm, xid, "freeze", b"")
    };
    let no = refused(&mut rm, with_locks).await;
    assert!(no.message.contains("row locks"), "{}", no.message);
    daemon.server.shutdown().await.expect("it ends");
}

/// How these transactions stand, as participants of 3PC are told.
async fn standing(rm: &mut Rm, xids: Vec<u64>) -> Vec<v1::standing::State> {
    let ask = v1::AskStanding {
        resource: "account.pay".into(),
        xids,
    };
    match rm.call(RmBody::AskStanding(ask)).await {
        branch_event::Body::Standing(standing) => standing.states().collect(),
        other => panic!("{other:?} is no answer"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_of_3pc_hear_of_the_commit_before_their_order() {
    use v1::standing::State;
    let daemon = Daemon::start().await;
    let mut tm = Tm::connect(&daemon).await;
    let mut rm = attach(&daemon, vec![action("account.pay")]).await;
    let xid = tm.begun(60_000).await;
    for branch in 1..=2 {
        let promised = v1::RegisterBranch {
            mode: Mode::ThreePhase.into(),
            ..tried(&mut rm, xid, "account.pay", b"5")
        };
        let answer = rm.call(RmBody::Register(promised)).await;
        assert!(matches!(answer, branch_event::Body::Registered(_)));
        rm.done(xid, branch).await;
    }
    let unknown = tm.make_xid();
    assert_eq!(
        standing(&mut rm, vec![xid, unknown]).await,
        [State::Undecided, State::NeverBegun]
    );
    tm.commit(xid).await;
    let mut early = [rm.order().await, rm.order().await];
    early.sort_by_key(|order| order.branch);
    for order in &early {
        assert_eq!(
            (order.action(), order.mode()),
            (v1::Action::PreCommit, Mode::ThreePhase)
        );
    }
    assert_eq!(standing(&mut rm, vec![xid]).await, [State::PreCommitted]);
    let mut operator = daemon.operator().await;
    let get = v1::GetTransactionRequest { xid };
    let detail = operator.get_transaction(get).await.expect("known");
    let summary = detail.into_inner().summary.expect("always there");
    assert_eq!(summary.status(), Status::PreCommitted);
    assert!(
        daemon
            .page("/metrics")
            .await
            .contains("accede_transactions{status=\"pre_committed\"} 1")
    );
    for order in &early {
        let heard = v1::branch_finished::Result::PreCommitted(v1::Empty {});
        rm.finish(order, heard).await;
    }
    let orders = [rm.order().await, rm.order().await];
    assert_eq!(standing(&mut rm, vec![xid]).await, [State::Committing]);
    for order in &orders {
        assert_eq!((order.action(), order.attempt), (v1::Action::Commit, 2));
        rm.finished(order).await;
    }
    tm.reaches(xid, Status::Committed).await;
    assert_eq!(standing(&mut rm, vec![xid]).await, [State::Committing]);
    let back = tm.begun(60_000).await;
    let roll_back = v1::RollBackRequest {
        xid: back,
        reason: "changed my mind".into(),
    };
    tm.call(TmBody::RollBack(roll_back)).await;
    assert_eq!(standing(&mut rm, vec![back]).await, [State::RollingBack]);
    daemon.server.shutdown().await.expect("it ends");
}

/// Two agents of an action look at the same database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_that_wait_are_in_the_metrics_as_long_as_their_agents_are_attached() {
    let daemon = Daemon::start().await;
    let mut one = attach(&daemon, vec![action("pay"), action("ship")]).await;
    let mut other = attach(&daemon, vec![action("pay")]).await;
    let seen = |resource: &str, waiting, oldest_ms, alone| {
        RmBody::PromisesSeen(v1::PromisesSeen {
            resource: resource.into(),
            waiting,
            oldest_ms,
            impossible: 1,
            alone,
        })
    };
    one.send(0, seen("pay", 3, 12_500, 1)).await;
    one.send(0, seen("ship", 4, 11_000, 0)).await;
    // Of an action that it does not serve.
    other.send(0, seen("ship", 99, 1, 0)).await;
    other.send(0, seen("pay", 2, 12_000, 1)).await;
    let page = |expected: [&'static str; 4]| {
        let daemon = &daemon;
        async move {
            let all = async {
                loop {
                    let page = daemon.page("/metrics").await;
                    if expected
                        .iter()
                        .all(|line| page.lines().any(|have| have == *line))
                    {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            crate::support::soon(all).await;
        }
    };
    page([
        "accede_promises 7",
        "accede_promises_oldest_seconds 12.5",
        "accede_impossible_promises 2",
        "accede_promises_alone_total 2",
    ])
    .await;
    drop(one);
    page([
        "accede_promises 2",
        "accede_promises_oldest_seconds 12",
        "accede_impossible_promises 1",
        "accede_promises_alone_total 2",
    ])
    .await;
    daemon.server.shutdown().await.expect("it ends");
}
