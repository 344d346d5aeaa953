//! How a session ends, by itself or by its peer.

use super::*;

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
