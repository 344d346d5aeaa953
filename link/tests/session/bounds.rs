//! Deadlines, bounds and back-pressure.

use super::*;

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
