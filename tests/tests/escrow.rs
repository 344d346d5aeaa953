//! Many transactions that take from one row at the same time, with a real daemon and a real
//! database.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stock;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use accede_rm_agent::Error;
use accede_tests::eventually;
use accede_tm_client::Options;
use tokio::{sync::Barrier, task::JoinSet};

use stock::{SOON, Surroundings};

const TAKE: &str = "UPDATE stock SET count = count - $1 WHERE product = 1 AND count >= $1";

/// A hundred are there. All buyers have theirs at the same time, before any of them is decided:
/// with exclusive locks the second would have to wait for the end of the first.
#[tokio::test(flavor = "multi_thread")]
async fn none_waits_for_the_others_and_nothing_is_lost() -> anyhow::Result<()> {
    const BUYERS: i64 = 12;
    let s = Surroundings::new(|pool| pool.escrow_column("stock", "count", 0..=100)).await?;
    let all_have_theirs = Arc::new(Barrier::new(BUYERS as usize));
    let sold = Arc::new(AtomicI64::new(0));
    let mut buyers = JoinSet::new();
    for number in 1..=BUYERS {
        let (pool, transactions) = (s.pool.clone(), s.transactions.clone());
        let (all_have_theirs, sold) = (Arc::clone(&all_have_theirs), Arc::clone(&sold));
        buyers.spawn(async move {
            let order = transactions.begin(Options::new("order")).await?;
            let mut branch = pool.begin_in(order.xid()).await?;
            sqlx::query(TAKE).bind(number).execute(&mut branch).await?;
            branch.commit().await?;
            all_have_theirs.wait().await;
            if number % 3 == 0 {
                order.roll_back("changed my mind").await?;
            } else {
                sold.fetch_add(number, Relaxed);
                order.commit().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(buyer) = buyers.join_next().await {
        buyer??;
    }
    let left = 100 - sold.load(Relaxed);
    eventually("what was not sold is back", SOON, async || {
        (s.counts().await == [left, 100]).then_some(())
    })
    .await?;
    s.end().await;
    Ok(())
}

/// What an undecided transaction brought cannot be taken before it is decided.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_taken_back_is_not_sold() -> anyhow::Result<()> {
    let s = Surroundings::new(|pool| pool.escrow_column("stock", "count", 0..=200)).await?;
    let delivery = s.transactions.begin(Options::new("delivery")).await?;
    let mut branch = s.pool.begin_in(delivery.xid()).await?;
    sqlx::query("UPDATE stock SET count = count + 50 WHERE product = 1")
        .execute(&mut branch)
        .await?;
    branch.commit().await?;

    let order = s.transactions.begin(Options::new("order")).await?;
    let mut branch = s.pool.begin_in(order.xid()).await?;
    sqlx::query(TAKE).bind(120_i64).execute(&mut branch).await?;
    let taking = tokio::spawn(branch.commit());
    s.waits_at_the_coordinator(order.xid()).await?;
    delivery.commit().await?;
    taking.await??;
    order.commit().await?;
    assert_eq!(s.counts().await, [30, 100]);

    // More than there is room for is refused before anybody waits.
    let delivery = s.transactions.begin(Options::new("delivery")).await?;
    let mut branch = s.pool.begin_in(delivery.xid()).await?;
    let error = sqlx::query("UPDATE stock SET count = count + 171 WHERE product = 1")
        .execute(&mut branch)
        .await
        .expect_err("201 are too many");
    assert!(matches!(
        Error::from_sqlx(&error),
        Some(Error::OutOfBounds { value: 201, .. })
    ));
    branch.rollback().await?;
    delivery.roll_back("no room").await?;
    s.end().await;
    Ok(())
}
