//! Ending: committed, rolled back, not known; dropped guards; shutdown.

use std::time::Duration;

use accede_proto::v1::{Decision, transaction_request::Body as Ask};
use accede_tm_client::{
    CommitError, Error, Outcome, PhaseTwo, RefusalCode, RollBackCause, RollBackError,
    TransactionClient, Xid,
};

use crate::{
    builder,
    fake::{Fake, OnCommit, Script},
    options,
};

async fn on_commit(commit: OnCommit) -> (Fake, TransactionClient) {
    let fake = Fake::start_with(Script {
        commit,
        ..Script::default()
    })
    .await;
    let client = builder(fake.url())
        .decision_patience(Duration::from_millis(400))
        .roll_back_patience(Duration::from_millis(400))
        .outcome_patience(Duration::from_millis(400))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    (fake, client)
}

fn commits(fake: &Fake) -> usize {
    let frames = fake.frames();
    let commits = frames
        .iter()
        .filter(|(_, ask)| matches!(ask, Ask::Commit(_)));
    commits.count()
}

#[tokio::test]
async fn a_commit_without_an_answer_is_unknown_and_can_be_asked_for() {
    let (fake, client) = on_commit(OnCommit::Silent).await;
    let transaction = client.begin(options()).await.unwrap();
    let xid = transaction.xid();
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown { .. }), "{error}");
    assert!(error.is_unknown());
    assert!(error.to_string().contains(&xid.to_string()), "{error}");
    assert_eq!(client.outcome(xid).await.unwrap(), Outcome::Active);
    // An unknown commit must never be turned into a rollback by the guard.
    assert_eq!(fake.is_decided(xid.as_u64()), None);
    fake.script(|script| script.answers_questions = false);
    let error = client.outcome(xid).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_commit_is_asked_again_when_the_connection_breaks() {
    let (fake, client) = on_commit(OnCommit::BreaksOnce).await;
    let transaction = client.begin(options()).await.unwrap();
    let xid = transaction.xid();
    let committed = transaction.commit().await.unwrap();
    assert_eq!(committed.phase_two, PhaseTwo::Running);
    assert_eq!(commits(&fake), 2);
    assert_eq!(fake.is_decided(xid.as_u64()), Some(Decision::Commit));
    assert_eq!(
        client.outcome(xid).await.unwrap(),
        Outcome::Committed(committed)
    );
}

#[tokio::test]
async fn a_busy_coordinator_is_asked_again() {
    let (fake, client) = on_commit(OnCommit::OverloadedOnce).await;
    let transaction = client.begin(options()).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(commits(&fake), 2);
}

#[tokio::test]
async fn a_rollback_decided_elsewhere_says_why() {
    let (fake, client) = on_commit(OnCommit::TimedOut).await;
    let transaction = client.begin(options()).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    let CommitError::RolledBack(back) = &error else {
        panic!("{error}");
    };
    assert_eq!(back.cause, RollBackCause::TimedOut);
    assert!(!error.is_unknown());
    assert_eq!(
        client.outcome(back.xid).await.unwrap(),
        Outcome::RolledBack(back.clone())
    );
    drop(fake);
}

#[tokio::test]
async fn a_refused_commit_keeps_the_coordinators_words() {
    let (_fake, client) = on_commit(OnCommit::Invalid).await;
    let transaction = client.begin(options()).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    let CommitError::Refused { refusal, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(refusal.code, RefusalCode::Invalid);
    assert!(error.to_string().contains("no such thing"), "{error}");
}

#[tokio::test]
async fn a_rollback_tells_its_reason() {
    let (fake, client) = on_commit(OnCommit::Decides).await;
    let transaction = client.begin(options()).await.unwrap();
    let back = transaction.roll_back("sold out").await.unwrap();
    assert_eq!(back.cause, RollBackCause::Requested);
    assert_eq!(back.detail, "sold out");
    assert_eq!(fake.is_decided(back.xid.as_u64()), Some(Decision::RollBack));
}

#[tokio::test]
async fn questions_about_strange_transactions_have_answers() {
    let (_fake, client) = on_commit(OnCommit::Decides).await;
    let transaction = client.begin(options()).await.unwrap();
    let later = Xid::from_u64(transaction.xid().as_u64() + (1 << 30)).unwrap();
    let earlier = Xid::from_u64(transaction.xid().as_u64() - (1 << 30)).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(client.outcome(later).await.unwrap(), Outcome::NotBegun);
    assert_eq!(client.outcome(earlier).await.unwrap(), Outcome::Forgotten);
}

#[tokio::test]
async fn a_dropped_guard_rolls_back() {
    let (fake, client) = on_commit(OnCommit::Decides).await;
    let transaction = client.begin(options()).await.unwrap();
    let dropped = transaction.xid().as_u64();
    // Also where there is no runtime.
    std::thread::spawn(move || drop(transaction))
        .join()
        .unwrap();
    let cancelled = client.begin(options()).await.unwrap();
    let cancelled_xid = cancelled.xid().as_u64();
    let task = tokio::spawn(async move {
        cancelled.scope(std::future::pending::<()>()).await;
        drop(cancelled);
    });
    task.abort();
    let frames = fake
        .until("two rollbacks", |frames| {
            let backs = frames
                .iter()
                .filter(|(_, ask)| matches!(ask, Ask::RollBack(_)));
            backs.count() == 2
        })
        .await;
    assert!(frames.iter().any(|(_, ask)| matches!(
        ask,
        Ask::RollBack(ask) if ask.reason.contains("dropped")
    )));
    for xid in [dropped, cancelled_xid] {
        assert_eq!(fake.is_decided(xid), Some(Decision::RollBack));
    }
}

#[tokio::test]
async fn an_abandoned_commit_is_not_rolled_back() {
    let (fake, client) = on_commit(OnCommit::Silent).await;
    let transaction = client.begin(options()).await.unwrap();
    let xid = transaction.xid();
    let commit = tokio::spawn(transaction.commit());
    fake.until("the commit", |frames| {
        frames.iter().any(|(_, ask)| matches!(ask, Ask::Commit(_)))
    })
    .await;
    commit.abort();
    assert!(commit.await.is_err());
    // Whatever the guard had sent would be before this answer.
    assert_eq!(client.outcome(xid).await.unwrap(), Outcome::Active);
}

#[tokio::test]
async fn a_rollback_of_what_is_committed_says_so() {
    let (fake, client) = on_commit(OnCommit::Decides).await;
    let transaction = client.begin(options()).await.unwrap();
    let xid = transaction.xid();
    fake.decide_commit(xid.as_u64());
    let error = transaction.roll_back("too late").await.unwrap_err();
    assert!(matches!(error, RollBackError::Committed(_)), "{error}");
}

#[tokio::test]
async fn shutdown_ends_the_lease_and_stops_begins() {
    let (fake, client) = on_commit(OnCommit::Decides).await;
    client
        .begin(options())
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    client.shutdown().await;
    fake.until("the close", |frames| {
        frames
            .last()
            .is_some_and(|(_, ask)| matches!(ask, Ask::Close(_)))
    })
    .await;
    let error = client.begin(options()).await.unwrap_err();
    assert!(matches!(error, Error::ShutDown), "{error}");
    client.shutdown().await;
}
