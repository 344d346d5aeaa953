//! Answers, order, and what a broken connection leaves behind.

use super::*;

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

/// Cuts the connection at random moments: every delivery arrives in the end, and
/// always in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_survive_random_cuts() {
    const COUNT: u64 = 400;
    let seed: u64 = rand::random();
    let mut random = seed;
    let mut chance = move |of: u64| {
        // Knuth's multiplier: enough randomness to choose moments with.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33).is_multiple_of(of)
    };
    let mut coordinator = Coordinator::start().await;
    let session = connect(
        &[coordinator.url()],
        &Arc::new(Recorder::default()),
        SessionLimits {
            open_deliveries: 50,
            ..quick()
        },
    );
    let sender = {
        let session = session.clone();
        tokio::spawn(async move {
            for xid in 1..=COUNT {
                let slot = session.delivery_slot().await.expect("open");
                slot.deliver(done(xid)).expect("queued");
            }
        })
    };
    let mut highest = 0;
    let mut acknowledged = std::collections::BTreeSet::new();
    while acknowledged.len() < COUNT as usize {
        let mut connection = coordinator.session().await;
        connection.open().await;
        let mut last = 0;
        while acknowledged.len() < COUNT as usize {
            let request = connection.next().await;
            let xid = xid(&request);
            assert!(xid > last, "seed {seed}: {xid} after {last}");
            assert!(xid <= highest + 1, "seed {seed}: {xid} overtook {highest}");
            last = xid;
            highest = highest.max(xid);
            if chance(40) {
                connection.fail("cut").await;
                break;
            }
            connection.answer(request.tag, accepted()).await;
            acknowledged.insert(xid);
        }
    }
    soon(sender).await.expect("ran");
    soon(session.close(SOON)).await;
}
