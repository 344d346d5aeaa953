//! Leases: renewed in time, lost, taken anew.

use std::time::Duration;

use accede_proto::v1::transaction_request::Body as Ask;
use accede_tm_client::{CommitError, Error, NoXid, RefusalCode};

use crate::{
    builder, client,
    fake::{Fake, OnRenewal, Script},
    options,
};

#[tokio::test]
async fn a_lease_is_renewed_before_it_ends() {
    let fake = Fake::start_with(Script {
        ttl_ms: 600,
        ..Script::default()
    })
    .await;
    let client = client(&fake).await;
    fake.until("four renewals", |frames| {
        let renewals = frames
            .iter()
            .filter(|(_, ask)| matches!(ask, Ask::Renew(_)));
        renewals.count() >= 4
    })
    .await;
    // More time than one lease lives has passed.
    client
        .begin(options())
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lost_lease_stops_begins_with_a_reason() {
    let fake = Fake::start_with(Script {
        ttl_ms: 300,
        renewal: OnRenewal::Silent,
        ..Script::default()
    })
    .await;
    let client = builder(fake.url())
        .begin_patience(Duration::from_millis(50))
        .build()
        .unwrap();
    client
        .status()
        .wait_for(|status| status.is_connected())
        .await
        .unwrap();
    let transaction = client.begin(options()).await.unwrap();
    // Only time ends a lease.
    tokio::time::sleep(Duration::from_millis(350)).await;
    let error = client.begin(options()).await.unwrap_err();
    let Error::CannotBegin { reason, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*reason, NoXid::LeaseEnded);
    assert!(error.to_string().contains("without a renewal"), "{error}");
    // What was begun before can still be ended: the coordinator decides.
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_over_is_replaced_and_its_begins_are_given_up() {
    let fake = Fake::start_with(Script {
        ttl_ms: 600,
        logs_begins: false,
        renewal: OnRenewal::EndedOnce,
        ..Script::default()
    })
    .await;
    let client = client(&fake).await;
    let old = client.begin(options()).await.unwrap();
    assert_eq!(old.xid().parts().worker, 8);
    fake.until("a second opening", |frames| {
        frames.iter().any(|(session, ask)| {
            *session == 2 && matches!(ask, Ask::Open(open) if !open.has_worker)
        })
    })
    .await;
    client
        .status()
        .wait_for(|status| status.is_connected())
        .await
        .unwrap();
    client.ready().await.unwrap();
    let new = client.begin(options()).await.unwrap();
    assert_eq!(new.xid().parts().worker, 9);
    new.commit().await.unwrap();
    let error = old.commit().await.unwrap_err();
    let CommitError::NeverBegun { refusal, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(refusal.code, RefusalCode::LeaseEnded);
    let of_old = |xid: &&u64| **xid & 0x1fff == 8;
    assert_eq!(
        fake.begins().iter().filter(of_old).count(),
        1,
        "not sent again"
    );
}
