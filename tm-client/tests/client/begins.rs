//! Beginning: no round trip, in order, not lost, refused.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use accede_proto::v1::transaction_request::Body as Ask;
use accede_tm_client::{CommitError, Error, Options, RefusalCode, TransactionClient, limits};

use crate::{
    builder, client,
    fake::{Fake, Frame, Script},
    options,
};

fn silent() -> Script {
    Script {
        logs_begins: false,
        ..Script::default()
    }
}

fn is_begin((_, ask): &Frame) -> bool {
    matches!(ask, Ask::Begin(_))
}

#[tokio::test]
async fn a_transaction_is_two_messages_and_one_round_trip() {
    // It says nothing about begins, so `begin` cannot have waited for anything.
    let fake = Fake::start_with(silent()).await;
    let client = client(&fake).await;
    let transaction = client
        .begin(Options::new("place-order").timeout(Duration::from_secs(30)))
        .await
        .unwrap();
    let xid = transaction.xid();
    let committed = transaction.commit().await.unwrap();
    assert_eq!(committed.xid, xid);
    let frames = fake.frames();
    let [
        (1, Ask::Open(open)),
        (1, Ask::Begin(begin)),
        (1, Ask::Commit(commit)),
    ] = &frames[..]
    else {
        panic!("other frames: {frames:#?}");
    };
    assert!(open.client_name.starts_with("test@"), "{open:?}");
    assert!(!open.has_worker && open.client != 0);
    assert_eq!((begin.xid, commit.xid), (xid.as_u64(), xid.as_u64()));
    assert_eq!(
        (begin.name.as_str(), begin.timeout_ms),
        ("place-order", 30_000)
    );
    assert_eq!(begin.parent, 0);
    assert_eq!(xid.parts().worker, 8, "the leased number");
}

#[tokio::test(flavor = "multi_thread")]
async fn begins_of_many_tasks_go_out_in_the_order_of_their_ids() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    client
                        .begin(options())
                        .await
                        .unwrap()
                        .commit()
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let begins = fake.begins();
    assert_eq!(begins.len(), 400);
    assert!(begins.is_sorted_by(|earlier, later| earlier < later));
}

#[tokio::test]
async fn unlogged_begins_are_sent_again_in_order_before_all_else() {
    let fake = Fake::start_with(silent()).await;
    let client = client(&fake).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(client.begin(options()).await.unwrap());
    }
    let xids: Vec<u64> = open.iter().map(|open| open.xid().as_u64()).collect();
    fake.until("four begins", |frames| {
        frames.iter().filter(|f| is_begin(f)).count() == 4
    })
    .await;
    // Two are logged, the news of it is lost with the connection.
    fake.log_quietly(xids[0]);
    fake.log_quietly(xids[1]);
    fake.script(|script| script.logs_begins = true);
    fake.break_connections();
    for transaction in open {
        transaction.commit().await.unwrap();
    }
    let frames = fake.frames();
    let again: Vec<&Ask> = frames
        .iter()
        .filter(|(session, _)| *session == 2)
        .map(|(_, ask)| ask)
        .collect();
    let Ask::Open(reopened) = again[0] else {
        panic!("no opening: {again:#?}");
    };
    assert!(reopened.has_worker && reopened.worker == 8, "{reopened:?}");
    let sent_again: Vec<u64> = again[1..]
        .iter()
        .map_while(|ask| match ask {
            Ask::Begin(begin) => Some(begin.xid),
            _ => None,
        })
        .collect();
    assert_eq!(sent_again, xids[2..]);
}

#[tokio::test]
async fn begins_while_disconnected_go_out_once() {
    let fake = Fake::start_with(silent()).await;
    let client = client(&fake).await;
    fake.break_connections();
    let mut status = client.status();
    status
        .wait_for(|status| !status.is_connected())
        .await
        .unwrap();
    let first = client.begin(options()).await.unwrap();
    let second = client.begin(options()).await.unwrap();
    fake.script(|script| script.logs_begins = true);
    second.commit().await.unwrap();
    first.commit().await.unwrap();
    let begins = fake.begins();
    assert!(begins.is_sorted_by(|a, b| a < b), "each once: {begins:?}");
    assert_eq!(begins.len(), 2);
}

#[tokio::test]
async fn a_refused_begin_fails_the_next_call_with_its_reason() {
    let fake = Fake::start_with(Script {
        refuses: "unwanted",
        ..Script::default()
    })
    .await;
    let client = client(&fake).await;
    let refused = client.begin(Options::new("unwanted")).await.unwrap();
    let also = client.begin(Options::new("unwanted")).await.unwrap();
    let fine = client.begin(options()).await.unwrap();
    // Its answer comes after the refusals.
    fine.commit().await.unwrap();
    let before = fake.frames().len();
    let xid = refused.xid();
    let error = refused.commit().await.unwrap_err();
    let CommitError::NeverBegun { refusal, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(refusal.code, RefusalCode::LimitReached);
    assert_eq!(error.xid(), xid);
    assert!(!error.is_unknown());
    assert!(
        error.to_string().contains("too many open transactions"),
        "{error}"
    );
    let back = also.roll_back("not needed").await.unwrap();
    assert!(back.detail.contains("never begun"), "{back}");
    assert_eq!(fake.frames().len(), before, "nothing was asked");
}

#[tokio::test]
async fn without_a_coordinator_begin_says_so_and_works_once_it_runs() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = builder(format!("http://{address}"))
        .begin_patience(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = client.begin(options()).await.unwrap_err();
    assert!(matches!(error, Error::CannotBegin { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("no lease yet"), "{text}");
    assert!(text.contains(&address.to_string()), "{text}");

    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let fake = Fake::start_on(listener, Script::default());
    client
        .status()
        .wait_for(|status| status.is_connected())
        .await
        .unwrap();
    client
        .begin(options())
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(fake.begins().len(), 1);
}

#[tokio::test]
async fn wrong_configuration_is_refused_at_once() {
    let error = TransactionClient::builder("nonsense://x")
        .build()
        .unwrap_err();
    assert!(matches!(error, Error::Configuration(_)), "{error}");
    let error = builder("http://127.0.0.1:7700".into())
        .name("")
        .build()
        .unwrap_err();
    assert!(
        error.to_string().contains("the client's name is empty"),
        "{error}"
    );
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let error = client.begin(Options::new("")).await.unwrap_err();
    assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    assert_eq!(fake.begins().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_reordered_while_connections_break() {
    const TASKS: usize = 8;
    const BREAKS: u32 = 10;
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let enough = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (client, enough) = (client.clone(), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut begun = Vec::new();
                while !enough.load(Relaxed) {
                    let transaction = client.begin(options()).await.unwrap();
                    begun.push(transaction.xid().as_u64());
                    transaction.commit().await.unwrap();
                }
                begun
            })
        })
        .collect();
    for _ in 0..BREAKS {
        // Each time in the midst of work of a new session.
        let wanted = fake.begins().len() + TASKS;
        fake.until("more work", |frames| {
            frames.iter().filter(|frame| is_begin(frame)).count() >= wanted
        })
        .await;
        fake.break_connections();
    }
    enough.store(true, Relaxed);
    let mut begun = BTreeSet::new();
    for task in tasks {
        begun.extend(task.await.unwrap());
    }
    let frames = fake.frames();
    let sessions = frames.iter().map(|(session, _)| *session).max().unwrap();
    assert!(sessions > 3, "only {sessions} sessions");
    for session in 1..=sessions {
        let begins: Vec<u64> = frames
            .iter()
            .filter_map(|(on, ask)| match ask {
                Ask::Begin(begin) if *on == session => Some(begin.xid),
                _ => None,
            })
            .collect();
        assert!(
            begins.is_sorted_by(|a, b| a < b),
            "session {session}: {begins:?}"
        );
    }
    let announced: BTreeSet<u64> = fake.begins().into_iter().collect();
    assert_eq!(announced, begun);
}

#[tokio::test]
async fn begins_are_bounded() {
    let fake = Fake::start_with(silent()).await;
    let client = builder(fake.url())
        .begin_patience(Duration::from_millis(200))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    let mut open = Vec::new();
    let error = loop {
        match client.begin(options()).await {
            Ok(transaction) => open.push(transaction),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooManyBegins { .. }), "{error}");
    assert_eq!(open.len(), limits::MAX_UNLOGGED_BEGINS);
    // Room comes back with the news that they are logged.
    fake.script(|script| script.logs_begins = true);
    fake.log_quietly(open[9].xid().as_u64());
    fake.break_connections();
    open.push(client.begin(options()).await.unwrap());
    client.shutdown().await;
}
