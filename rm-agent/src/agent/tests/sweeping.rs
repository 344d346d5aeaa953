//! What a finished transaction should not have left behind.

use accede_proto::v1::{AskEnded, Ended, ended::State};

use super::{super::database::*, fake::Done, *};

const OLD: Duration = Duration::from_secs(7200);

async fn question(connection: &mut Connection) -> (u64, AskEnded) {
    let request = connection.next().await;
    match request.body {
        Some(Ask::AskEnded(asked)) => (request.tag, asked),
        other => panic!("expected a question, got {other:?}"),
    }
}

/// Answers one question: 1 is open, 2 has ended, 3 was never begun.
async fn answer(connection: &mut Connection) -> AskEnded {
    let (tag, asked) = question(connection).await;
    let states = asked
        .xids
        .iter()
        .map(|xid| match xid % 10 {
            1 => State::Open.into(),
            2 => State::Ended.into(),
            _ => State::NeverBegun.into(),
        })
        .collect();
    connection
        .answer(tag, Answer::Ended(Ended { states }))
        .await;
    asked
}

#[tokio::test]
async fn markers_of_ended_transactions_go_and_orphans_are_counted() {
    let limits = AgentLimits {
        sweep_interval: Duration::from_millis(10),
        ..quick()
    };
    let fake = Fake::new(1);
    for number in [11, 12, 13] {
        fake.leave(number, LeftoverKind::Undo, OLD);
    }
    for number in [21, 22, 23] {
        fake.leave(number, LeftoverKind::Marker, OLD);
    }
    // Young ones are nobody's business yet.
    fake.leave(32, LeftoverKind::Undo, Duration::from_secs(1));
    fake.leave(42, LeftoverKind::Marker, Duration::from_secs(1800));
    let mut agent = start(&[("stock-db", &fake)], limits, session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection.open().await;

    let asked = answer(&mut connection).await;
    assert_eq!(asked.resource, "stock-db");
    assert_eq!(asked.xids, [11, 12, 13, 21, 22, 23]);
    let asked = answer(&mut connection).await;
    assert_eq!(asked.xids, [11, 12, 13, 21, 23], "the marker is gone");
    let (_, third) = question(&mut connection).await;
    assert_eq!(
        third.xids, asked.xids,
        "undo records stay, whatever was answered"
    );
    let status = agent.running.status().resources.remove(0);
    assert_eq!(status.orphan_undo, 2, "ended and never begun, seen twice");
    assert_eq!(status.markers_purged, 1);
    assert_eq!(status.sweeps, 2);
    let done = fake.done.lock();
    assert!(
        matches!(&done[..], [Done::Purged(keys)] if keys.len() == 1 && keys[0].xid == xid(22)),
        "{done:?}"
    );
}

#[tokio::test]
async fn many_leftovers_are_asked_about_in_batches() {
    let limits = AgentLimits {
        sweep_interval: Duration::from_millis(10),
        sweep_batch: 2,
        ..quick()
    };
    let fake = Fake::new(1);
    for number in [11, 21, 31] {
        fake.leave(number, LeftoverKind::Undo, OLD);
    }
    let mut agent = start(&[("stock-db", &fake)], limits, session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    assert_eq!(answer(&mut connection).await.xids, [11, 21]);
    assert_eq!(answer(&mut connection).await.xids, [31]);
    assert_eq!(
        answer(&mut connection).await.xids,
        [11, 21],
        "the next round"
    );
}

#[tokio::test]
async fn an_answer_of_the_wrong_length_decides_nothing() {
    let limits = AgentLimits {
        sweep_interval: Duration::from_millis(10),
        ..quick()
    };
    let fake = Fake::new(1);
    fake.leave(22, LeftoverKind::Marker, OLD);
    fake.leave(32, LeftoverKind::Marker, OLD);
    let mut agent = start(&[("stock-db", &fake)], limits, session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    let (tag, _) = question(&mut connection).await;
    let ended = Ended {
        states: vec![State::Ended.into()],
    };
    connection.answer(tag, Answer::Ended(ended)).await;
    let (_, again) = question(&mut connection).await;
    assert_eq!(again.xids, [22, 32]);
    assert!(fake.done.lock().is_empty());
    assert_eq!(agent.running.status().resources[0].sweeps, 0);
}
