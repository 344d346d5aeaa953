//! What runs before the commit and after the end.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use accede_proto::v1::Decision;
use accede_tm_client::{
    CommitError, Ended, Error, Propagation, RollBackCause, TransactionClient, Xid, current_xid,
    limits,
};

use crate::{
    client,
    fake::{Fake, OnCommit, Script},
    options,
};

/// What has happened, in its order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn short(ended: &Ended) -> String {
    match ended {
        Ended::Committed(_) => "committed".into(),
        Ended::RolledBack(back) => format!("rolled back: {}", back.detail),
        Ended::NeverBegun { .. } => "never begun".into(),
        Ended::Unknown { .. } => "unknown".into(),
        other => format!("{other:?}"),
    }
}

/// Takes down which hooks run, in which transaction.
fn note_both(client: &TransactionClient, log: &Log, name: &'static str) -> Result<(), Error> {
    let (before, after) = (log.clone(), log.clone());
    client.before_commit(move || async move {
        let place = if current_xid().is_some() {
            "inside"
        } else {
            "outside"
        };
        before.note(format!("{name} before, {place}"));
        Ok(())
    })?;
    client.after_end(move |ended| after.note(format!("{name} after, {}", short(ended))))
}

async fn run(
    client: &TransactionClient,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    client.run(options(), Propagation::Required, work).await
}

#[tokio::test]
async fn they_run_in_their_order_around_the_commit() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let log = Log::default();
    run(&client, async {
        note_both(&client, &log, "a")?;
        note_both(&client, &log, "b")?;
        log.note("work");
        Ok(())
    })
    .await
    .unwrap();
    let expected = [
        "work",
        "a before, inside",
        "b before, inside",
        "a after, committed",
        "b after, committed",
    ];
    assert_eq!(log.taken(), expected);
}

#[tokio::test]
async fn a_hook_may_add_hooks_and_prevent_the_commit() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let log = Log::default();
    let transaction = client.begin(options()).await.unwrap();
    let xid = transaction.xid();
    let (inner, notes) = (client.clone(), log.clone());
    transaction
        .scope(async {
            note_both(&client, &log, "a")?;
            client.before_commit(move || async move {
                inner.before_commit(|| async { Err("the books do not balance".into()) })?;
                note_both(&inner, &notes, "late")?;
                Ok(())
            })
        })
        .await
        .unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert!(!error.is_unknown());
    assert_eq!(error.xid(), xid);
    assert!(
        matches!(&error, CommitError::Prevented { reason, .. } if reason == "the books do not balance"),
        "{error}"
    );
    assert_eq!(fake.is_decided(xid.as_u64()), Some(Decision::RollBack));
    let because = "rolled back: before its commit: the books do not balance";
    let expected = [
        "a before, inside".to_owned(),
        format!("a after, {because}"),
        format!("late after, {because}"),
    ];
    assert_eq!(log.taken(), expected);
}

#[tokio::test]
async fn after_a_rollback_only_the_end_is_told() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let log = Log::default();
    let result = run(&client, async {
        note_both(&client, &log, "a")?;
        Err(Error::ShutDown)
    });
    result.await.unwrap_err();
    assert_eq!(
        log.taken(),
        ["a after, rolled back: the function returned an error"]
    );
}

#[tokio::test]
async fn the_end_is_told_once_when_the_guard_is_dropped() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let (told, ended) = tokio::sync::oneshot::channel();
    let transaction = client.begin(options()).await.unwrap();
    transaction
        .scope(async { client.after_end(move |ended| told.send(ended.clone()).unwrap()) })
        .await
        .unwrap();
    drop(transaction);
    let Ended::RolledBack(back) = ended.await.unwrap() else {
        panic!("it was rolled back");
    };
    assert_eq!(back.cause, RollBackCause::Requested);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_unknown() {
    let fake = Fake::start_with(Script {
        commit: OnCommit::Silent,
        ..Script::default()
    })
    .await;
    let client = client(&fake).await;
    let log = Log::default();
    let transaction = client.begin(options()).await.unwrap();
    transaction
        .scope(async { note_both(&client, &log, "a") })
        .await
        .unwrap();
    let mut commit = Box::pin(transaction.commit());
    tokio::select! {
        biased;
        _ = &mut commit => panic!("nobody answers"),
        () = tokio::task::yield_now() => {}
    }
    drop(commit);
    assert_eq!(log.taken(), ["a before, inside", "a after, unknown"]);
}

#[tokio::test]
async fn a_hook_that_panics_changes_no_outcome() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let ran = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&ran);
    run(&client, async {
        client.after_end(|_| panic!("planted"))?;
        client.after_end(move |_| other.store(true, Ordering::SeqCst))
    })
    .await
    .unwrap();
    assert!(ran.load(Ordering::SeqCst), "the others run all the same");
}

#[tokio::test]
async fn only_who_began_the_transaction_knows_its_end() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let error = client.after_end(|_| {}).unwrap_err();
    assert!(matches!(error, Error::Required { .. }), "{error}");

    let other = Xid::from_u64(1 << 30).unwrap();
    let context = accede_tm_client::TransactionContext::new(other);
    let elsewhere = accede_tm_client::context::scope(Some(context), async {
        client.before_commit(|| async { Ok(()) })
    });
    let error = elsewhere.await.unwrap_err();
    assert!(
        matches!(error, Error::BegunElsewhere { xid } if xid == other),
        "{error}"
    );

    let many = run(&client, async {
        for _ in 0..limits::MAX_HOOKS {
            client.after_end(|_| {})?;
        }
        client.after_end(|_| {})
    });
    let error = many.await.unwrap_err();
    assert!(matches!(error, Error::TooManyHooks { .. }), "{error}");
}
