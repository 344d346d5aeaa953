//! Connections that are kept at hand between transactions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{AtPool, Fixture, proxy, xid};
use crate::{error::is_retryable, limits, store::fence::Fences};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
INSERT INTO stock VALUES (1, 1000);";

/// Far beyond what any step here takes.
const SOON: Duration = Duration::from_secs(20);

async fn transaction(pool: &AtPool) {
    let mut tx = pool.begin_plain().await.expect("begin");
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = 1")
        .execute(&mut tx)
        .await
        .expect("update");
    tx.commit().await.expect("commit");
}

async fn branch(pool: &AtPool, number: u64, first: &'static str) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin_in(xid(number)).await?;
    sqlx::query(first).execute(&mut tx).await?;
    sqlx::query("INSERT INTO stock VALUES ($1, 0)")
        .bind(1000 + number.cast_signed())
        .execute(&mut tx)
        .await?;
    tx.commit().await
}

fn pool(f: &Fixture, url: &str) -> AtPool {
    AtPool::builder(url)
        .resource("test-db")
        .allow_function("forget")
        .max_connections(1)
        .build(f.registrar.clone())
        .expect("a pool")
}

#[tokio::test]
async fn the_next_transaction_needs_no_trip_for_its_connection() {
    let f = Fixture::new(STOCK).await;
    let (url, trips) = proxy::start(&f.url).await;
    let pool = pool(&f, &url);
    let mut least = usize::MAX;
    // One that came back unused to the pool meanwhile was tested there.
    for _ in 0..limits::LOANS - 1 {
        transaction(&pool).await;
        least = least.min(trips.take());
    }
    assert_eq!(least, 3, "BEGIN, UPDATE, COMMIT");
}

#[tokio::test]
async fn it_goes_back_to_its_pool_when_nobody_uses_it() {
    let f = Fixture::new(STOCK).await;
    let pool = pool(&f, &f.url);
    transaction(&pool).await;
    let unused = async {
        while pool.plain().num_idle() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, unused)
        .await
        .expect("given back");
}

#[tokio::test]
async fn others_of_the_pool_have_their_turn() {
    let f = Fixture::new(STOCK).await;
    let pool = pool(&f, &f.url);
    let stop = Arc::new(AtomicBool::new(false));
    let busy = {
        let (pool, stop) = (pool.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                transaction(&pool).await;
            }
        })
    };
    for _ in 0..3 {
        let other = tokio::time::timeout(SOON, pool.plain().acquire()).await;
        drop(other.expect("its turn").expect("a connection"));
    }
    stop.store(true, Ordering::Relaxed);
    busy.await.expect("no panic");
}

#[tokio::test]
async fn a_transaction_that_waits_is_served() {
    let f = Fixture::new(STOCK).await;
    let pool = pool(&f, &f.url);
    let all = (0..40).map(|_| transaction(&pool));
    tokio::time::timeout(SOON, futures_util::future::join_all(all))
        .await
        .expect("everybody has had the only connection");
}

#[tokio::test]
async fn settings_of_the_application_see_every_connection_come_back() {
    let f = Fixture::new(STOCK).await;
    let came_back = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came_back);
    let options = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .after_release(move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(Ok(true)))
        });
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .pool_options(options)
        .build(f.registrar.clone())
        .expect("a pool");
    for count in 1..=3 {
        transaction(&pool).await;
        let told = async {
            while came_back.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, told).await.expect("told");
    }
}

#[tokio::test]
async fn what_the_application_does_to_its_session_is_noticed() {
    let f = Fixture::new(STOCK).await;
    let pool = pool(&f, &f.url);
    for number in 1..=4 {
        branch(&pool, number, "SELECT 1").await.expect("commit");
        let mut tx = pool.begin_plain().await.expect("begin");
        sqlx::query("DEALLOCATE accede_undo")
            .execute(&mut tx)
            .await
            .expect("untouched");
        tx.commit().await.expect("commit");
    }
    assert_eq!(f.dump("undo_log").await.len(), 4);
}

/// A handler's transaction takes its connections from the same place as AT's.
#[tokio::test]
async fn what_a_handler_does_to_its_session_is_noticed() {
    let f = Fixture::new(STOCK).await;
    let pool = pool(&f, &f.url);
    for number in 1..=3 {
        branch(&pool, number, "SELECT 1").await.expect("commit");
        let mut tx = Fences::begin(&pool, SOON).await.expect("begin");
        sqlx::query("DEALLOCATE accede_undo")
            .execute(&mut tx)
            .await
            .expect("untouched");
        AtPool::roll_back(&mut tx).await;
    }
    assert!(pool.sessions_stay());
}

/// As behind a pooler: another session for the next transaction.
#[tokio::test]
async fn a_session_that_changed_unseen_is_a_passing_failure_once() {
    let f = Fixture::new(STOCK).await;
    f.execute(
        "CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN EXECUTE 'DEALLOCATE accede_undo'; END $$",
    )
    .await;
    let pool = pool(&f, &f.url);
    branch(&pool, 1, "SELECT 1").await.expect("commit");
    assert!(pool.sessions_stay());
    let error = branch(&pool, 2, "SELECT forget()").await;
    assert!(is_retryable(&error.expect_err("refused")));
    for number in 3..=5 {
        assert!(!pool.sessions_stay());
        branch(&pool, number, "SELECT 1").await.expect("commit");
    }
    assert_eq!(f.dump("undo_log").await.len(), 4);
}
