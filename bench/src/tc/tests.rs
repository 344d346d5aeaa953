use std::time::Duration;

use tokio::{net::TcpListener, sync::oneshot};

use super::*;

/// How long the load is measured.
const WINDOW: Duration = Duration::from_millis(200);

/// The load runs against the echo server in this process.
async fn echoed(in_flight: usize) -> Measured {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(echo::serve(listener, async {
        let _ = stopped.await;
    }));
    let measured = with_load(&address, in_flight, WINDOW, None).await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    measured.unwrap()
}

/// begin, begun-through, 2 × (register, registered, done, accepted), commit, outcome,
/// 2 × (order, finished, accepted) are 18 messages, of which begun-through may serve several.
///
/// The window cuts the transactions that are in flight at its two ends: their messages on one
/// side count, their end on the other. On a slow machine these are many among few.
fn assert_messages(measured: Measured, in_flight: f64) {
    let ended_at_least = measured.transactions_per_s * WINDOW.as_secs_f64();
    let cut = 18.0 * in_flight / ended_at_least;
    let each = measured.messages_each;
    assert!(
        (17.0 - cut..=18.0 + cut).contains(&each),
        "{each} messages per transaction, {cut} of them uncertain"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_at_a_time_has_a_known_number_of_messages() {
    let measured = echoed(1).await;
    assert_messages(measured, 1.0);
    assert!(measured.p50_us > 0.0 && measured.p50_us <= measured.p99_us);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_in_flight_all_end() {
    let measured = echoed(300).await;
    assert!(measured.transactions_per_s > 0.0);
    assert_messages(measured, 300.0);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let port = free_port().unwrap();
    let error = Load::start(&format!("http://127.0.0.1:{port}"), 1)
        .await
        .err();
    assert!(error.is_some());
}

#[test]
fn the_share_is_of_the_tighter_limit() {
    let measured = Measured {
        transactions_per_s: 1_000.0,
        messages_per_s: 18_000.0,
        messages_each: 18.0,
        p50_us: 100.0,
        p99_us: 200.0,
        forced_writes_each: 0.1,
        log_entries_each: 0.2,
    };
    let round = |echo_messages_per_s, log_entries_per_s| Round {
        noisy: false,
        coordinator: measured,
        echo_messages_per_s,
        log_entries_per_s,
    };
    let share = |round| figures(16, &[round]).share_of_limit;
    assert_eq!(
        share(round(36_000.0, 400_000.0)),
        0.5,
        "messages are tighter"
    );
    assert_eq!(
        share(round(36_000_000.0, 16_000.0)),
        0.25,
        "the log is tighter"
    );
}

#[test]
fn json_has_the_agreed_names() {
    let measured = Measured {
        transactions_per_s: 1.0,
        messages_per_s: 1.0,
        messages_each: 1.0,
        p50_us: 1.0,
        p99_us: 1.0,
        forced_writes_each: 1.0,
        log_entries_each: 1.0,
    };
    let round = Round {
        noisy: true,
        coordinator: measured,
        echo_messages_per_s: 1.0,
        log_entries_per_s: 1.0,
    };
    let row = figures(1, &[round]);
    assert_eq!(row.cells().len(), Figures::head().len());
    let names: Vec<String> = match serde_json::to_value(&row).unwrap() {
        serde_json::Value::Object(row) => row.into_iter().map(|(name, _)| name).collect(),
        other => panic!("{other}"),
    };
    let mut expected = [
        "in_flight",
        "transactions_per_s",
        "p50_us",
        "p99_us",
        "forced_writes_per_transaction",
        "messages_per_transaction",
        "log_entries_per_transaction",
        "echo_messages_per_s",
        "log_entries_per_s",
        "share_of_limit",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}
