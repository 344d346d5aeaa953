//! A deadlock of which the coordinator sees one half and PostgreSQL the other, with a real daemon
//! and a real database.

mod stock;

use std::time::Duration;

use accede_proto::v1::{
    ListRowLocksRequest, Mode, RegisterBranch, RequestId, branches_client::BranchesClient,
    operator_client::OperatorClient,
};
use accede_rm_agent::{Error, RefusalCode, is_retryable};
use accede_tests::clock;
use accede_tm_client::Options;

use stock::{RESOURCE, SOON, Surroundings, take};

/// Of every branch's waits; long, so that nothing ends by it that can end otherwise.
const LOCK_WAIT: Duration = Duration::from_secs(8);

/// X holds the row lock on product 1. Y has product 2 locked in the database and waits at the
/// coordinator for product 1. Then X wants product 2.
#[tokio::test(flavor = "multi_thread")]
async fn one_lets_go_long_before_any_time_out() -> anyhow::Result<()> {
    let s = Surroundings::new(|pool| pool.lock_wait(LOCK_WAIT)).await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;

    let mut waiting = s.pool.begin_in(y.xid()).await?;
    take(&mut waiting, 2).await?;
    take(&mut waiting, 1).await?;
    let waiting = tokio::spawn(waiting.commit());
    s.waits_at_the_coordinator(y.xid()).await?;

    let began = clock::now();
    let mut second = s.pool.begin_in(x.xid()).await?;
    take(&mut second, 2).await?;
    second.commit().await?;
    let took = clock::now() - began;
    let refused = waiting.await?.expect_err("it had to let go");
    assert!(took < LOCK_WAIT / 4, "{took:?}");
    assert!(took >= Duration::from_millis(100), "{took:?}: no deadlock");
    let Some(Error::Refused(why)) = Error::from_sqlx(&refused) else {
        panic!("{refused}");
    };
    assert_eq!(why.code, RefusalCode::HolderBlocked);
    assert_eq!(why.holder, Some(x.xid()));
    assert!(is_retryable(&refused));

    x.commit().await?;
    // Now nobody is in its way.
    let mut again = s.pool.begin_in(y.xid()).await?;
    take(&mut again, 2).await?;
    take(&mut again, 1).await?;
    again.commit().await?;
    y.commit().await?;
    assert_eq!(s.counts().await, [98, 98]);
    s.end().await;
    Ok(())
}

/// The same when the one that waits does not say that it holds local locks: nobody can tell it to
/// let go, so the database's time-out ends the circle.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_see_ends_by_the_lock_time_out() -> anyhow::Result<()> {
    let patience = Duration::from_millis(1_500);
    let s = Surroundings::new(|pool| pool.lock_wait(patience)).await?;
    let x = s.transactions.begin(Options::new("x")).await?;
    let y = s.transactions.begin(Options::new("y")).await?;
    let mut first = s.pool.begin_in(x.xid()).await?;
    take(&mut first, 1).await?;
    first.commit().await?;

    let mut operator = OperatorClient::connect(s.url.clone()).await?;
    let listed = operator
        .list_row_locks(ListRowLocksRequest::default())
        .await?;
    let listed = listed.into_inner().row_locks.into_iter();
    let keys = listed.map(|lock| lock.key).collect();
    let mut local = s.pool.plain().begin().await?;
    sqlx::query("SELECT * FROM stock WHERE product = 2 FOR UPDATE")
        .execute(&mut *local)
        .await?;
    let waits = RegisterBranch {
        xid: y.xid().as_u64(),
        request: Some(RequestId {
            client: 7,
            sequence: 1,
        }),
        resource: RESOURCE.to_owned(),
        mode: Mode::At.into(),
        row_locks: keys,
        wait_limit_ms: 20_000,
        holds_local_locks: false,
        agent: 7,
        ..RegisterBranch::default()
    };
    let mut branches = BranchesClient::connect(s.url.clone()).await?;
    let waits = tokio::spawn(async move { branches.register(waits).await.map(drop) });
    s.waits_at_the_coordinator(y.xid()).await?;

    let began = clock::now();
    let mut second = s.pool.begin_in(x.xid()).await?;
    let error = take(&mut second, 2).await.expect_err("it waits in vain");
    let took = clock::now() - began;
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::LocalLockTimedOut { .. })
        ),
        "{error}"
    );
    assert!(took >= patience / 2 && took < SOON, "{took:?}");
    second.rollback().await?;
    assert!(!waits.is_finished(), "it was never told to let go");

    x.roll_back("a row was locked").await?;
    waits.await??;
    local.rollback().await?;
    y.roll_back("never done").await?;
    s.end().await;
    Ok(())
}
