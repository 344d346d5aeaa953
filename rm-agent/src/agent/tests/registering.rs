//! Branches in phase one: nothing that the coordinator must hear gets lost.

use accede_proto::v1::{
    BranchDoomed, BranchWithdrawn, Empty, LocksFree, RegisterBranch, Registered, refusal::Code,
};
use tokio::task::JoinHandle;

use super::{coordinator::refusal, *};
use crate::registrar::{RefusalCode, Refused, Registrar as _, Registration, RowCheck};

pub(super) fn registration(number: u64, wait_limit: Duration) -> Registration {
    Registration {
        xid: xid(number),
        resource: "stock-db".into(),
        row_locks: vec![Arc::from(&b"row 1"[..]), Arc::from(&b"row 2"[..])],
        mode: Mode::At,
        escrow_locks: Vec::new(),
        payload: Default::default(),
        wait_limit,
        can_keep_open: false,
    }
}

fn row_check(number: Option<u64>) -> RowCheck {
    RowCheck {
        xid: number.map(xid),
        resource: "stock-db".into(),
        row_locks: registration(1, SOON).row_locks,
        wait_limit: SOON,
    }
}

type Registering = JoinHandle<Result<crate::Registered, Refused>>;

fn register(agent: &Agent, number: u64, wait_limit: Duration) -> Registering {
    let registrar = Arc::clone(&agent.registrar);
    tokio::spawn(async move { registrar.register(registration(number, wait_limit)).await })
}

async fn asked(connection: &mut Connection) -> (u64, RegisterBranch) {
    let request = connection.next().await;
    match request.body {
        Some(Ask::Register(register)) => (request.tag, register),
        other => panic!("expected a registration, got {other:?}"),
    }
}

async fn withdrawn(connection: &mut Connection) -> (u64, BranchWithdrawn) {
    let request = connection.next().await;
    match request.body {
        Some(Ask::Withdrawn(withdrawn)) => (request.tag, withdrawn),
        other => panic!("expected a withdrawal, got {other:?}"),
    }
}

async fn grant(connection: &Connection, tag: u64, branch: u32) {
    let granted = Registered {
        branch,
        give_up_ms: 9000,
        keep_open: false,
    };
    connection.answer(tag, Answer::Registered(granted)).await;
}

async fn accept(connection: &Connection, tag: u64) {
    connection.answer(tag, Answer::Accepted(Empty {})).await;
}

/// Registers a branch and answers the request that did it.
async fn registered(agent: &Agent, connection: &mut Connection, number: u64) -> RegisterBranch {
    let registering = register(agent, number, SOON);
    let (tag, asked) = asked(connection).await;
    grant(connection, tag, 1).await;
    let granted = soon(registering).await.expect("ran").expect("granted");
    assert_eq!(granted.branch, 1);
    assert_eq!(granted.give_up, Duration::from_secs(9));
    asked
}

#[tokio::test]
async fn a_branch_registers_and_its_done_is_sent_until_acknowledged() {
    let (mut agent, mut connection, _) = attached(quick(), session_limits()).await;
    let asked = registered(&agent, &mut connection, 5).await;
    assert_eq!(asked.xid, 5);
    assert_eq!(asked.resource, "stock-db");
    assert_eq!(asked.row_locks, ["row 1", "row 2"]);
    assert!(asked.holds_local_locks);
    let wait_limit = Duration::from_millis(asked.wait_limit_ms.into());
    assert!(
        wait_limit <= SOON && wait_limit > SOON / 2,
        "{wait_limit:?}"
    );
    assert_eq!(agent.running.status().open_branches, 1);

    agent.registrar.done(xid(5), 1);
    assert_eq!(agent.running.status().open_branches, 0);
    let first = connection.next().await;
    assert!(matches!(&first.body, Some(Ask::Done(done)) if done.xid == 5 && done.branch == 1));
    connection.fail("cut").await;

    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    let again = connection.next().await;
    assert_eq!(again, first);
    accept(&connection, again.tag).await;
    // The acknowledgement is seen before this registration's answer.
    registered(&agent, &mut connection, 6).await;
    connection.fail("cut again").await;

    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    agent.registrar.withdrawn(xid(6), 1);
    withdrawn(&mut connection).await;
}

#[tokio::test]
async fn a_dropped_registration_is_withdrawn_until_acknowledged() {
    let (mut agent, mut connection, _) = attached(quick(), session_limits()).await;
    let registering = register(&agent, 5, SOON);
    let (_, request) = asked(&mut connection).await;
    registering.abort();
    let (_, first) = withdrawn(&mut connection).await;
    assert_eq!(first.request, request.request);
    assert_eq!((first.xid, first.resource.as_str()), (5, "stock-db"));
    connection.fail("cut").await;
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    let (_, again) = withdrawn(&mut connection).await;
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_registration_that_times_out_is_withdrawn() {
    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    let registering = register(&agent, 5, Duration::ZERO);
    let (tag, request) = asked(&mut connection).await;
    let refused = soon(registering)
        .await
        .expect("ran")
        .expect_err("no answer");
    assert_eq!(refused.code, RefusalCode::UnknownOutcome);
    let (_, withdrawal) = withdrawn(&mut connection).await;
    assert_eq!(withdrawal.request, request.request);
    // The late answer changes nothing.
    grant(&connection, tag, 1).await;
    registered(&agent, &mut connection, 6).await;
    assert_eq!(agent.running.status().open_branches, 1);
}

#[tokio::test]
async fn a_refused_registration_needs_no_withdrawal() {
    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    let registering = register(&agent, 5, SOON);
    let (tag, first) = asked(&mut connection).await;
    connection
        .answer(tag, refusal(Code::HolderRollingBack, "busy"))
        .await;
    let refused = soon(registering).await.expect("ran").expect_err("refused");
    assert_eq!(refused.code, RefusalCode::HolderRollingBack);
    // The very next frame is another registration, with an id of its own.
    let second = registered(&agent, &mut connection, 5).await;
    assert_ne!(second.request, first.request);
}

#[tokio::test]
async fn a_registration_survives_a_reconnect_with_its_id() {
    let (mut agent, mut connection, _) = attached(quick(), session_limits()).await;
    let registering = register(&agent, 5, SOON);
    let (_, first) = asked(&mut connection).await;
    connection.fail("cut").await;
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    let (tag, again) = asked(&mut connection).await;
    assert_eq!(again, first);
    grant(&connection, tag, 3).await;
    let granted = soon(registering).await.expect("ran").expect("granted");
    assert_eq!(granted.branch, 3);
}

#[tokio::test]
async fn withdrawn_and_doomed_name_the_branch() {
    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    let request = registered(&agent, &mut connection, 5).await;
    agent.registrar.withdrawn(xid(5), 1);
    let (_, withdrawal) = withdrawn(&mut connection).await;
    assert_eq!(withdrawal.request, request.request);

    registered(&agent, &mut connection, 6).await;
    agent.registrar.doomed(xid(6), 1, "é".repeat(5000));
    let request = connection.next().await;
    let Some(Ask::Doomed(BranchDoomed { xid, detail, .. })) = request.body else {
        panic!("expected a doomed branch, got {request:?}");
    };
    assert_eq!(xid, 6);
    assert_eq!(detail.len(), 1024);
    // A second end of the same branch is a bug of the caller and tells nothing.
    agent.registrar.done(super::xid(6), 1);
    registered(&agent, &mut connection, 7).await;
}

#[tokio::test]
async fn registrations_wait_while_too_many_branches_are_open() {
    let session = SessionLimits {
        open_deliveries: 1,
        ..session_limits()
    };
    let (agent, mut connection, _) = attached(quick(), session).await;
    registered(&agent, &mut connection, 5).await;
    let refused = soon(register(&agent, 6, Duration::ZERO))
        .await
        .expect("ran")
        .expect_err("no room");
    assert_eq!(refused.code, RefusalCode::Overloaded);
    // Room comes back with the acknowledgement, not before.
    agent.registrar.done(xid(5), 1);
    let done = connection.next().await;
    let waiting = register(&agent, 7, SOON);
    accept(&connection, done.tag).await;
    let (tag, _) = asked(&mut connection).await;
    grant(&connection, tag, 1).await;
    soon(waiting).await.expect("ran").expect("granted");
}

#[tokio::test]
async fn without_a_coordinator_or_database_the_refusal_says_why() {
    let down = Fake::new(1);
    down.set_up(false);
    let agent = start(&[("stock-db", &down)], quick(), session_limits())
        .await
        .expect("starts although the database is down");
    agent
        .until_state(0, |state| {
            matches!(state, ResourceState::Unavailable { problem: Some(_) })
        })
        .await;
    let refused = soon(register(&agent, 5, Duration::ZERO))
        .await
        .expect("ran")
        .expect_err("no database");
    assert_eq!(refused.code, RefusalCode::Unreachable);
    assert!(refused.message.contains("connection refused"), "{refused}");

    let elsewhere = Registration {
        resource: "other-db".into(),
        ..registration(5, SOON)
    };
    let refused = soon(agent.registrar.register(elsewhere))
        .await
        .expect_err("unknown");
    assert_eq!(refused.code, RefusalCode::ResourceUnknown);

    // The database is there, but the coordinator never accepts the session.
    let up = Fake::new(2);
    let mut agent = start(&[("stock-db", &up)], quick(), session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection
        .refuse(Code::ResourceMismatch, "stock-db is another database")
        .await;
    soon(async {
        loop {
            let refused = register(&agent, 5, Duration::ZERO)
                .await
                .expect("ran")
                .expect_err("not attached");
            assert_eq!(refused.code, RefusalCode::Unreachable);
            if refused.message.contains("stock-db is another database") {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn lock_checks_are_asked_and_withdrawn_like_registrations() {
    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    let check = |number: Option<u64>| {
        let registrar = Arc::clone(&agent.registrar);
        tokio::spawn(async move { registrar.check_locks(row_check(number)).await })
    };
    let checking = check(Some(5));
    let request = connection.next().await;
    assert!(matches!(&request.body, Some(Ask::CheckLocks(check)) if check.row_locks.len() == 2));
    connection
        .answer(request.tag, Answer::LocksFree(LocksFree {}))
        .await;
    soon(checking).await.expect("ran").expect("free");

    let checking = check(None);
    let request = connection.next().await;
    checking.abort();
    let (_, withdrawal) = withdrawn(&mut connection).await;
    let Some(Ask::CheckLocks(asked)) = request.body else {
        panic!("expected a check, got {request:?}");
    };
    assert_eq!(withdrawal.request, asked.request);
    // Outside of any transaction.
    assert_eq!((withdrawal.xid, asked.xid), (0, 0));

    // An answer of the wrong kind is no permission.
    let checking = check(Some(7));
    let request = connection.next().await;
    grant(&connection, request.tag, 1).await;
    soon(checking)
        .await
        .expect("ran")
        .expect_err("no permission");
}

#[tokio::test]
async fn a_shutdown_waits_for_open_branches_and_acknowledgements() {
    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    registered(&agent, &mut connection, 5).await;
    let agent = Arc::new(agent);
    let closing = {
        let agent = Arc::clone(&agent);
        tokio::spawn(async move { agent.running.shutdown().await })
    };
    tokio::task::yield_now().await;
    agent.registrar.done(xid(5), 1);
    let request = connection.next().await;
    assert!(!closing.is_finished());
    accept(&connection, request.tag).await;
    let rest = soon(connection.requests.message())
        .await
        .expect("a clean end");
    assert_eq!(rest, None);
    drop(connection);
    soon(closing).await.expect("ran");
    let refused = soon(register(&agent, 6, SOON))
        .await
        .expect("ran")
        .expect_err("closed");
    assert_eq!(refused.code, RefusalCode::ShuttingDown);
}

#[tokio::test]
async fn an_agent_that_is_dropped_refuses_registrations_at_once() {
    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    let Agent {
        running, registrar, ..
    } = agent;
    drop(running);
    let end = soon(connection.requests.message()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    let refused = soon(registrar.register(registration(5, SOON)))
        .await
        .expect_err("gone");
    assert_eq!(refused.code, RefusalCode::ShuttingDown);
}

#[tokio::test]
async fn news_of_a_blocked_transaction_goes_out_now_or_not_at_all() {
    let (mut agent, mut connection, _) = attached(quick(), session_limits()).await;
    agent.registrar.blocked(xid(5));
    let request = connection.next().await;
    assert_eq!(request.tag, 0, "nobody waits for an answer");
    match request.body {
        Some(Ask::Blocked(blocked)) => assert_eq!(blocked.xid, 5),
        other => panic!("expected news, got {other:?}"),
    }
    connection.fail("cut").await;
    agent.until_disconnected().await;
    agent.registrar.blocked(xid(6));
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    // What was said meanwhile is old: the next frame is a registration.
    registered(&agent, &mut connection, 7).await;
}

#[tokio::test]
async fn nothing_joins_from_within_a_step() {
    use accede_link::context::{TransactionContext, scope};

    let (agent, mut connection, _) = attached(quick(), session_limits()).await;
    let step = Some(TransactionContext::of_step(xid(7)));
    let joined = scope(step, agent.registrar.register(registration(7, SOON))).await;
    let refused = joined.expect_err("it would be there twice");
    assert_eq!(refused.code, RefusalCode::Invalid);
    let text = refused.to_string();
    assert!(text.contains("make it a step of its own"), "{text}");
    // Another transaction is its own affair.
    let registrar = Arc::clone(&agent.registrar);
    let registering = tokio::spawn(scope(step, async move {
        registrar.register(registration(8, SOON)).await
    }));
    let (tag, asked) = asked(&mut connection).await;
    assert_eq!(asked.xid, xid(8).as_u64());
    grant(&connection, tag, 1).await;
    soon(registering).await.expect("ran").expect("granted");
}
