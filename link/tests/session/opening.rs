//! From no connection to an open session.

use super::*;

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
