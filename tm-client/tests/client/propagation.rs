//! What becomes of the caller's transaction.

use accede_proto::v1::{Begin, Decision, transaction_request::Body as Ask};
use accede_tm_client::{
    CommitError, Error, Propagation, TransactionClient, Xid,
    context::{TransactionContext, scope, suspend},
    current_xid,
    propagate::{IncomingXidLayer, OutgoingXidLayer},
    spawn_in_transaction,
};
use tower::{Layer, ServiceExt};

use crate::{
    client,
    fake::{Fake, OnCommit, Script},
    options,
};

#[derive(Debug)]
enum WorkError {
    Own,
    Transaction(Error),
}

impl From<Error> for WorkError {
    fn from(error: Error) -> Self {
        Self::Transaction(error)
    }
}

async fn see(
    client: &TransactionClient,
    propagation: Propagation,
) -> Result<Option<Xid>, WorkError> {
    client
        .run(options(), propagation, async { Ok(current_xid()) })
        .await
}

fn begun(fake: &Fake) -> Vec<Begin> {
    let frames = fake.frames().into_iter();
    frames
        .filter_map(|(_, ask)| match ask {
            Ask::Begin(begin) => Some(begin),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn without_a_transaction() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    for begins in [Propagation::Required, Propagation::RequiresNew] {
        let before = begun(&fake).len();
        let seen = see(&client, begins)
            .await
            .unwrap()
            .expect("in a transaction");
        let begun = begun(&fake);
        assert_eq!(begun.len(), before + 1);
        let last = begun.last().unwrap();
        assert_eq!((last.xid, last.parent), (seen.as_u64(), 0));
        assert_eq!(fake.is_decided(seen.as_u64()), Some(Decision::Commit));
    }
    for runs_without in [
        Propagation::Supports,
        Propagation::NotSupported,
        Propagation::Never,
    ] {
        assert_eq!(see(&client, runs_without).await.unwrap(), None);
    }
    let error = see(&client, Propagation::Mandatory).await.unwrap_err();
    let WorkError::Transaction(error @ Error::Required { .. }) = error else {
        panic!("{error:?}");
    };
    assert!(
        error.to_string().contains("\"test\" must run inside"),
        "{error}"
    );
    assert_eq!(begun(&fake).len(), 2);
    assert_eq!(current_xid(), None);
}

#[tokio::test]
async fn within_a_transaction() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let outer = client.begin(options()).await.unwrap();
    let xid = outer.xid();
    outer
        .scope(async {
            for joins in [
                Propagation::Required,
                Propagation::Supports,
                Propagation::Mandatory,
            ] {
                assert_eq!(see(&client, joins).await.unwrap(), Some(xid));
            }
            assert_eq!(see(&client, Propagation::NotSupported).await.unwrap(), None);
            let new = see(&client, Propagation::RequiresNew).await.unwrap();
            let new = new.expect("in a transaction");
            assert_ne!(new, xid);
            let begin = begun(&fake).pop().unwrap();
            assert_eq!((begin.xid, begin.parent), (new.as_u64(), xid.as_u64()));
            assert_eq!(fake.is_decided(new.as_u64()), Some(Decision::Commit));
            let error = see(&client, Propagation::Never).await.unwrap_err();
            assert!(
                matches!(error, WorkError::Transaction(Error::Forbidden { xid: named, .. }) if named == xid)
            );
            // Each time the caller's own transaction resumed.
            assert_eq!(current_xid(), Some(xid));
            suspend(async { assert_eq!(current_xid(), None) }).await;
        })
        .await;
    assert_eq!(
        fake.is_decided(xid.as_u64()),
        None,
        "joining decides nothing"
    );
    outer.commit().await.unwrap();
    assert_eq!(begun(&fake).len(), 2);
}

/// A step may be done again: nothing joins its saga's transaction, which counts as suspended.
#[tokio::test]
async fn within_a_step_of_a_saga() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let saga = Xid::from_u64(0x0000_2627_ba40_0001).expect("an id");
    let step = TransactionContext::of_step(saga);
    scope(Some(step), async {
        for begins in [Propagation::Required, Propagation::RequiresNew] {
            let new = see(&client, begins).await.unwrap().expect("its own");
            assert_ne!(new, saga);
            let begin = begun(&fake).pop().unwrap();
            assert_eq!((begin.xid, begin.parent), (new.as_u64(), saga.as_u64()));
        }
        for runs in [Propagation::Supports, Propagation::Never] {
            assert_eq!(see(&client, runs).await.unwrap(), Some(saga));
        }
        let none = see(&client, Propagation::Mandatory).await.unwrap_err();
        assert!(matches!(
            none,
            WorkError::Transaction(Error::Required { .. })
        ));
    })
    .await;
    assert_eq!(begun(&fake).len(), 2);
}

#[tokio::test]
async fn only_who_began_it_rolls_back() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let fails = async || {
        client
            .run(options(), Propagation::Required, async {
                Err::<(), _>(WorkError::Own)
            })
            .await
    };
    let handled = client
        .run(options(), Propagation::Required, async {
            assert!(fails().await.is_err());
            Ok::<_, WorkError>(current_xid())
        })
        .await;
    let xid = handled.unwrap().expect("in a transaction").as_u64();
    assert_eq!(fake.is_decided(xid), Some(Decision::Commit));

    let mut seen = None;
    let passed_on = client
        .run(options(), Propagation::Required, async {
            seen = current_xid();
            fails().await
        })
        .await;
    assert!(matches!(passed_on, Err(WorkError::Own)));
    let xid = seen.expect("in a transaction").as_u64();
    assert_eq!(fake.is_decided(xid), Some(Decision::RollBack));
}

#[tokio::test]
async fn a_rule_may_commit_in_spite_of_an_error() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let mut seen = None;
    let result = client
        .run_deciding(
            options(),
            Propagation::Required,
            |error| !matches!(error, WorkError::Own),
            async {
                seen = current_xid();
                Err::<(), _>(WorkError::Own)
            },
        )
        .await;
    assert!(matches!(result, Err(WorkError::Own)));
    let xid = seen.expect("in a transaction").as_u64();
    assert_eq!(fake.is_decided(xid), Some(Decision::Commit));
}

#[tokio::test]
async fn ok_is_ok_only_when_it_committed() {
    let fake = Fake::start_with(Script {
        commit: OnCommit::TimedOut,
        ..Script::default()
    })
    .await;
    let client = client(&fake).await;
    let error = see(&client, Propagation::Required).await.unwrap_err();
    assert!(matches!(
        error,
        WorkError::Transaction(Error::Commit(CommitError::RolledBack(_)))
    ));
}

#[tokio::test]
async fn a_panic_rolls_back() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let task = tokio::spawn(async move {
        client
            .run(options(), Propagation::Required, async {
                assert!(current_xid().is_none(), "panics");
                Ok::<(), WorkError>(())
            })
            .await
    });
    assert!(task.await.unwrap_err().is_panic());
    let frames = fake
        .until("a rollback", |frames| {
            frames
                .iter()
                .any(|(_, ask)| matches!(ask, Ask::RollBack(_)))
        })
        .await;
    assert!(!frames.iter().any(|(_, ask)| matches!(ask, Ask::Commit(_))));
}

#[tokio::test]
async fn spawned_tasks_join_when_asked_to() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let seen = client
        .run(options(), Propagation::Required, async {
            let task = spawn_in_transaction(async { current_xid() });
            let in_task = task.expect("in a transaction").await.expect("no panic");
            assert_eq!(in_task, current_xid());
            Ok::<_, WorkError>(in_task)
        })
        .await
        .unwrap();
    assert!(seen.is_some());
    assert!(spawn_in_transaction(async {}).is_err());
}

#[tokio::test]
async fn the_transaction_reaches_the_next_service_with_its_deadline() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let show = || async {
        let context = accede_tm_client::context::current();
        let remaining = context.and_then(|context| context.remaining());
        assert!(
            remaining.is_some_and(|left| left.as_secs() >= 55),
            "{remaining:?}"
        );
        current_xid().map_or_else(String::new, |xid| xid.to_string())
    };
    let service = axum::Router::new()
        .route("/", axum::routing::get(show))
        .layer(IncomingXidLayer);
    let call = || {
        let request = http::Request::get("/").body(axum::body::Body::empty());
        OutgoingXidLayer
            .layer(service.clone())
            .oneshot(request.unwrap())
    };
    let transaction = client.begin(options()).await.unwrap();
    let response = transaction.scope(async { call().await }).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 100)
        .await
        .unwrap();
    assert_eq!(body, transaction.xid().to_string());
    transaction.commit().await.unwrap();
}
