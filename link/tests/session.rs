//! The session against a coordinator over real sockets: nothing is lost, nothing
//! is sent twice that must not be, and an unknown result is never a failure.

mod support;

use std::{sync::Arc, time::Duration};

use accede_link::session::{
    Call, ClusterId, ConnectProblem, Session, SessionError, SessionLimits, SessionOptions,
    SessionStatus,
};
use accede_proto::v1::{branch_event::Body, branch_request::Body as Ask, refusal::Code};
use support::{
    CLUSTER, Connection, Coordinator, Recorder, SOON, accepted, attached, connect, done, granted,
    quick, refusal, register, soon, wait_for, xid,
};
use tokio::{net::TcpListener, task::JoinHandle};

type Branches = Session<accede_link::session::BranchFrames>;

fn call(session: &Branches, xid: u64, how: Call) -> JoinHandle<Result<Body, SessionError>> {
    let session = session.clone();
    tokio::spawn(async move { session.call(register(xid), how).await })
}

async fn opened(
    limits: SessionLimits,
    role: Recorder,
) -> (Coordinator, Branches, Connection, Arc<Recorder>) {
    let mut coordinator = Coordinator::start().await;
    let role = Arc::new(role);
    let session = connect(&[coordinator.url()], &role, limits);
    let mut connection = coordinator.session().await;
    connection.open().await;
    wait_for(&session, SessionStatus::is_connected).await;
    (coordinator, session, connection, role)
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order() {
    let (_coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    let calls: Vec<_> = (1..=3)
        .map(|xid| call(&session, xid, Call::once(SOON)))
        .collect();
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(connection.next().await);
    }
    requests.reverse();
    for request in &requests {
        connection
            .answer(request.tag, granted(xid(request) as u32))
            .await;
    }
    for (at, call) in calls.into_iter().enumerate() {
        let answer = soon(call).await.expect("ran").expect("granted");
        assert_eq!(answer, granted(at as u32 + 1));
    }
}

#[tokio::test]
async fn starts_before_the_coordinator_and_connects_when_it_comes() {
    let parked = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = parked.local_addr().expect("bound");
    drop(parked);
    let role = Arc::new(Recorder::default());
    let session = connect(&[address.to_string()], &role, quick());
    let status = wait_for(&session, |status| {
        matches!(
            status,
            SessionStatus::Connecting {
                problem: Some(_),
                ..
            }
        )
    })
    .await;
    let text = format!("{status:?}");
    assert!(text.contains("Connection refused"), "{text}");

    let impatient = session
        .call(register(1), Call::once(Duration::from_millis(30)))
        .await
        .expect_err("nobody there");
    assert!(
        matches!(
            &impatient,
            SessionError::NotSent {
                problem: Some(ConnectProblem::Unreachable { .. }),
                ..
            }
        ),
        "{impatient:?}"
    );

    let patient = call(&session, 2, Call::once(SOON));
    let listener = TcpListener::bind(address).await.expect("the same port");
    let mut coordinator = Coordinator::on(listener);
    let mut connection = coordinator.session().await;
    connection.open().await;
    // The first call was given up before it was written: it must not appear.
    let request = connection.next().await;
    assert_eq!(xid(&request), 2);
    connection.answer(request.tag, granted(1)).await;
    assert_eq!(
        soon(patient).await.expect("ran").expect("granted"),
        granted(1)
    );
}

#[tokio::test]
async fn a_broken_connection_leaves_calls_unknown_or_sends_them_again() {
    let (mut coordinator, session, mut connection, role) =
        opened(quick(), Recorder::default()).await;
    let once = call(&session, 1, Call::once(SOON));
    let first = connection.next().await;
    assert_eq!(xid(&first), 1);
    let again = call(&session, 2, Call::idempotent(SOON));
    let second = connection.next().await;
    connection.fail("power cut").await;

    let error = soon(once).await.expect("ran").expect_err("unknown");
    assert!(matches!(error, SessionError::Unknown { .. }), "{error:?}");
    assert!(error.to_string().contains("power cut"), "{error}");

    let mut connection = coordinator.session().await;
    let open = connection.open().await;
    assert_eq!(
        open.cluster_id.as_ref(),
        CLUSTER,
        "shows the cluster it knows"
    );
    let repeated = connection.next().await;
    assert_eq!(repeated, second, "the same content under the same tag");
    connection.answer(repeated.tag, granted(9)).await;
    assert_eq!(
        soon(again).await.expect("ran").expect("granted"),
        granted(9)
    );
    assert_eq!(*role.disconnects.lock(), 1);
}

#[tokio::test]
async fn after_a_reconnect_all_goes_out_in_order() {
    let role = Recorder {
        discard: true,
        ..Recorder::default()
    };
    role.again.lock().push(done(100));
    let (mut coordinator, session, mut connection, _) = opened(quick(), role).await;
    assert_eq!(
        xid(&connection.next().await),
        100,
        "the role's frame is first"
    );

    for xid in 1..=3 {
        let slot = soon(session.delivery_slot()).await.expect("open");
        slot.deliver(done(xid)).expect("queued");
    }
    let first = connection.next().await;
    connection.next().await;
    connection.next().await;
    connection.answer(first.tag, accepted()).await;
    // A later answer proves that the acknowledgement was seen.
    let probe = call(&session, 50, Call::once(SOON));
    let request = connection.next().await;
    connection.answer(request.tag, granted(1)).await;
    soon(probe).await.expect("ran").expect("granted");
    connection.fail("gone").await;
    wait_for(&session, |status| !status.is_connected()).await;

    soon(session.send(done(666)))
        .await
        .expect("queued, then discarded by the role");
    let late = call(&session, 60, Call::once(SOON));
    let mut connection = coordinator.session().await;
    connection.open().await;
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(xid(&connection.next().await));
    }
    assert_eq!(order, [100, 2, 3, 60]);
    late.abort();
}

#[tokio::test]
async fn many_frames_keep_their_order() {
    let (_coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    let sender = {
        let session = session.clone();
        tokio::spawn(async move {
            for xid in 1..=5000 {
                session.send(done(xid)).await.expect("sent");
            }
        })
    };
    for expected in 1..=5000 {
        assert_eq!(xid(&connection.next().await), expected);
    }
    soon(sender).await.expect("ran");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_the_late_answer_is_ignored() {
    let (_coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    let error = session
        .call(register(1), Call::idempotent(Duration::from_millis(50)))
        .await
        .expect_err("no answer");
    assert!(matches!(error, SessionError::Unknown { .. }), "{error:?}");
    let request = connection.next().await;
    connection.answer(request.tag, granted(1)).await;
    let next = call(&session, 2, Call::once(SOON));
    let request = connection.next().await;
    connection.answer(request.tag, granted(2)).await;
    assert_eq!(soon(next).await.expect("ran").expect("granted"), granted(2));
}

#[tokio::test]
async fn open_calls_deliveries_and_frames_are_bounded() {
    let limits = SessionLimits {
        open_calls: 1,
        open_deliveries: 1,
        queued_frames: 2,
        frame_bytes: 100,
        ..quick()
    };
    let role = Arc::new(Recorder::default());
    // Nobody reads: a coordinator that never accepts the session.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let session = connect(&[address], &role, limits);

    let first = call(&session, 1, Call::once(SOON));
    let busy = loop {
        let error = session
            .call(register(2), Call::once(Duration::from_millis(20)))
            .await
            .expect_err("nobody answers");
        // Until the first call's task has run, this one takes its place.
        if !matches!(error, SessionError::NotSent { .. }) {
            break error;
        }
    };
    assert!(matches!(busy, SessionError::Busy { open: 1 }), "{busy:?}");

    let slot = session.delivery_slot().await.expect("open");
    let waiting = tokio::time::timeout(Duration::from_millis(20), session.delivery_slot()).await;
    assert!(waiting.is_err(), "one slot only");
    drop(slot);
    drop(soon(session.delivery_slot()).await.expect("free again"));

    for xid in 1..=2 {
        session
            .try_send_slot()
            .expect("room")
            .send(done(xid))
            .expect("queued");
    }
    let full = session.try_send_slot().expect_err("full");
    assert!(matches!(full, SessionError::Busy { open: 2 }), "{full:?}");

    let large = Ask::Register(accede_proto::v1::RegisterBranch {
        resource: "x".repeat(200),
        ..Default::default()
    });
    let error = session
        .call(large.clone(), Call::once(SOON))
        .await
        .expect_err("too large");
    assert!(error.to_string().contains("at most 100"), "{error}");
    let slot = session.delivery_slot().await.expect("open");
    assert!(matches!(
        slot.deliver(large),
        Err(SessionError::TooLarge { .. })
    ));
    first.abort();
}

#[tokio::test]
async fn a_slow_reader_holds_the_senders_back_and_loses_nothing() {
    let limits = SessionLimits {
        queued_frames: 64,
        ..quick()
    };
    let (_coordinator, session, mut connection, _) = opened(limits, Recorder::default()).await;
    let body = |xid: u64| {
        Ask::Register(accede_proto::v1::RegisterBranch {
            xid,
            resource: "x".repeat(16 * 1024),
            ..Default::default()
        })
    };
    // More than windows, buffers and queue can hold.
    let count = 600;
    let sender = {
        let session = session.clone();
        tokio::spawn(async move {
            for xid in 1..=count {
                session.send(body(xid)).await.expect("sent");
            }
        })
    };
    // It gets stuck: the queue stays full for as long as nobody reads.
    soon(async {
        let mut full = 0;
        while full < 50 {
            full = if session.try_send_slot().is_err() {
                full + 1
            } else {
                0
            };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(!sender.is_finished(), "the sender is held back");
    for expected in 1..=count {
        assert_eq!(xid(&connection.next().await), expected);
    }
    soon(sender).await.expect("ran");
}

#[tokio::test]
async fn garbage_instead_of_an_opening_answer_is_refused_and_tried_again() {
    let mut coordinator = Coordinator::start().await;
    let role = Arc::new(Recorder::default());
    let session = connect(&[coordinator.url()], &role, quick());
    let garbage: [(&str, Body, u64); 3] = [
        ("no answer to the opening frame", accepted(), 0),
        ("has 3 bytes instead of 16", attached(&[1, 2, 3]), 0),
        (
            "answers a request that was not sent",
            attached(&CLUSTER),
            999,
        ),
    ];
    for (why, body, tag) in garbage {
        let mut connection = coordinator.session().await;
        let request = connection.next().await;
        let tag = if tag == 0 { request.tag } else { tag };
        connection.answer(tag, body).await;
        let end = soon(connection.requests.message()).await;
        assert!(!matches!(end, Ok(Some(_))), "the client leaves: {end:?}");
        wait_for(&session, |status| {
            matches!(status, SessionStatus::Connecting {
                problem: Some(problem @ ConnectProblem::NotACoordinator { .. }), ..
            } if problem.to_string().contains(why))
        })
        .await;
    }
    let mut connection = coordinator.session().await;
    connection.open().await;
    wait_for(&session, SessionStatus::is_connected).await;
}

#[tokio::test]
async fn something_that_is_no_grpc_server_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let noise = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut hello = &b"220 mail.example ESMTP\r\n"[..];
            drop(tokio::io::copy(&mut hello, &mut socket).await);
        }
    });
    let role = Arc::new(Recorder::default());
    let session = connect(&[address], &role, quick());
    let status = wait_for(&session, |status| {
        matches!(
            status,
            SessionStatus::Connecting {
                problem: Some(_),
                ..
            }
        )
    })
    .await;
    assert!(!status.is_connected());
    noise.abort();
}

#[tokio::test]
async fn another_cluster_is_refused_by_name() {
    let mut coordinator = Coordinator::start().await;
    let role = Arc::new(Recorder::default());
    let options = SessionOptions {
        addresses: vec![coordinator.url()],
        cluster: Some(ClusterId::from_bytes([9; 16])),
        limits: quick(),
    };
    let session = Session::start(&options, role).expect("sound options");
    let mut connection = coordinator.session().await;
    let open = connection.open().await;
    assert_eq!(open.cluster_id.as_ref(), [9; 16]);
    let is_other = |status: &SessionStatus| {
        matches!(
            status,
            SessionStatus::Connecting {
                problem: Some(ConnectProblem::OtherCluster { .. }),
                ..
            }
        )
    };
    let status = wait_for(&session, is_other).await;
    let SessionStatus::Connecting {
        problem: Some(problem),
        ..
    } = status
    else {
        unreachable!("just waited for it");
    };
    let text = problem.to_string();
    assert!(
        text.contains("07070707-0707") && text.contains("09090909-0909"),
        "{text}"
    );
    // The coordinator may notice it first.
    let mut connection = coordinator.session().await;
    connection
        .refuse(Code::OtherCluster, "this is cluster 0707")
        .await;
    wait_for(&session, |status| {
        is_other(status) && format!("{status:?}").contains("this is cluster 0707")
    })
    .await;
    let error = session
        .call(register(1), Call::once(Duration::from_millis(20)))
        .await
        .expect_err("not connected");
    assert!(error.to_string().contains("another cluster"), "{error}");
}

#[tokio::test]
async fn follows_a_coordinator_that_does_not_lead() {
    let mut follower = Coordinator::start().await;
    let mut leader = Coordinator::start().await;
    let role = Arc::new(Recorder::default());
    let session = connect(&[follower.url(), leader.url()], &role, quick());
    let mut connection = follower.session().await;
    connection.refuse(Code::NotLeader, "tc-2 leads").await;
    let mut connection = leader.session().await;
    connection.open().await;
    assert_eq!(*role.opening_refused.lock(), [Code::NotLeader]);

    // It stops to lead while a call is open: certainly not carried out there.
    let open = call(&session, 5, Call::once(SOON));
    let request = connection.next().await;
    connection
        .answer(request.tag, refusal(Code::NotLeader, "tc-1 leads"))
        .await;
    let mut connection = follower.session().await;
    connection.open().await;
    let request = connection.next().await;
    assert_eq!(xid(&request), 5);
    connection.answer(request.tag, granted(1)).await;
    assert_eq!(soon(open).await.expect("ran").expect("granted"), granted(1));
}

#[tokio::test]
async fn the_role_may_not_accept_the_answer() {
    let mut coordinator = Coordinator::start().await;
    let role = Arc::new(Recorder {
        rejects: Some("the database belongs elsewhere".into()),
        ..Recorder::default()
    });
    let session = connect(&[coordinator.url()], &role, quick());
    coordinator.session().await.open().await;
    wait_for(&session, |status| {
        format!("{status:?}").contains("the database belongs elsewhere")
    })
    .await;
}

#[tokio::test]
async fn refusals_and_news_reach_the_right_ears() {
    let (_coordinator, session, mut connection, role) = opened(quick(), Recorder::default()).await;
    connection.answer(0, granted(77)).await;
    let refused = call(&session, 1, Call::idempotent(SOON));
    let request = connection.next().await;
    connection
        .answer(request.tag, refusal(Code::NotBegun, "never begun"))
        .await;
    let error = soon(refused).await.expect("ran").expect_err("refused");
    assert!(error.to_string().contains("never begun"), "{error}");
    assert_eq!(*role.news.lock(), [granted(77)]);

    let unknown = call(&session, 2, Call::idempotent(SOON));
    let request = connection.next().await;
    connection
        .answer(request.tag, refusal(Code::UnknownOutcome, "leader changed"))
        .await;
    let error = soon(unknown).await.expect("ran").expect_err("unknown");
    assert!(matches!(error, SessionError::Unknown { .. }), "{error:?}");

    // A delivery that cannot be taken now comes again; one refused for good does not.
    let slot = session.delivery_slot().await.expect("open");
    slot.deliver(done(3)).expect("queued");
    let request = connection.next().await;
    connection
        .answer(request.tag, refusal(Code::Overloaded, "later"))
        .await;
    let again = connection.next().await;
    assert_eq!(again, request);
    connection
        .answer(again.tag, refusal(Code::Forgotten, "too late"))
        .await;
    soon(async {
        while role.refused.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*role.refused.lock(), ["too late"]);
}

#[tokio::test]
async fn closing_waits_for_what_is_open_and_takes_nothing_new() {
    let (_coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    let slot = session.delivery_slot().await.expect("open");
    let open = call(&session, 1, Call::once(SOON));
    let request = connection.next().await;
    let closing = {
        let session = session.clone();
        tokio::spawn(async move { session.close(SOON).await })
    };
    tokio::task::yield_now().await;
    let refused = session
        .call(register(2), Call::once(SOON))
        .await
        .expect_err("closing");
    assert!(matches!(refused, SessionError::Closed), "{refused:?}");
    // What is owed still goes out.
    slot.deliver(done(3)).expect("queued");
    connection.answer(request.tag, granted(1)).await;
    assert_eq!(soon(open).await.expect("ran").expect("granted"), granted(1));
    let owed = connection.next().await;
    assert_eq!(xid(&owed), 3);
    connection.answer(owed.tag, accepted()).await;
    let end = soon(connection.requests.message())
        .await
        .expect("a clean end");
    assert_eq!(end, None);
    drop(connection);
    soon(closing).await.expect("ran");
    assert_eq!(*session.status().borrow(), SessionStatus::Closed);
}

#[tokio::test]
async fn closing_without_patience_leaves_open_calls_unknown() {
    let (_coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    let open = call(&session, 1, Call::idempotent(SOON));
    connection.next().await;
    soon(session.close(Duration::from_millis(10))).await;
    let error = soon(open).await.expect("ran").expect_err("unknown");
    assert!(matches!(error, SessionError::Unknown { .. }), "{error:?}");
    let error = session.send(done(1)).await.expect_err("closed");
    assert!(matches!(error, SessionError::Closed), "{error:?}");
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_session() {
    let (_coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    drop(session);
    // The stream ends or is reset, at once.
    let end = soon(connection.requests.message()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let mut coordinator = Coordinator::start().await;
    let wire = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = wire.local_addr().expect("bound").to_string();
    let target = coordinator.address;
    let (cut, is_cut) = tokio::sync::oneshot::channel::<()>();
    let proxy = tokio::spawn(async move {
        let (mut client, _) = wire.accept().await.expect("accepts");
        let mut server = tokio::net::TcpStream::connect(target)
            .await
            .expect("connects");
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut server) => panic!("{copied:?}"),
            _ = is_cut => {}
        }
        // Both sockets stay open and nothing moves any more.
        std::future::pending::<()>().await;
    });
    let limits = SessionLimits {
        keep_alive_interval: Duration::from_millis(50),
        keep_alive_timeout: Duration::from_millis(100),
        ..quick()
    };
    let session = connect(&[address], &Arc::new(Recorder::default()), limits);
    let mut connection = coordinator.session().await;
    connection.open().await;
    wait_for(&session, SessionStatus::is_connected).await;
    cut.send(()).expect("the proxy waits");
    wait_for(&session, |status| !status.is_connected()).await;
    proxy.abort();
}

#[tokio::test]
async fn a_session_can_be_opened_anew() {
    let (mut coordinator, session, mut connection, _) = opened(quick(), Recorder::default()).await;
    let open = call(&session, 1, Call::idempotent(SOON));
    let request = connection.next().await;
    session.reopen();
    let mut connection = coordinator.session().await;
    connection.open().await;
    assert_eq!(connection.next().await, request);
    connection.answer(request.tag, granted(1)).await;
    assert_eq!(soon(open).await.expect("ran").expect("granted"), granted(1));
}

#[tokio::test]
async fn bad_options_are_refused_at_once() {
    let start = |addresses: Vec<String>| {
        let options = SessionOptions {
            addresses,
            ..SessionOptions::default()
        };
        Session::<accede_link::session::BranchFrames>::start(
            &options,
            Arc::new(Recorder::default()),
        )
        .expect_err("refused")
        .to_string()
    };
    assert!(start(Vec::new()).contains("no coordinator address was given"));
    assert!(start(vec!["ftp://x:1".into()]).contains("only http://"));
}
