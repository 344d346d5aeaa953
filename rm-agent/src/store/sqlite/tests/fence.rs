//! TCC on SQLite.

use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};

use super::{
    super::{AtPool, FencedTransaction, fence::promises},
    Fixture, phase_two,
};
use crate::store::{
    fence::Fences,
    finish::{Ledger, LeftoverKind},
    test_saga, test_tcc,
};

ground!(AtPool, FencedTransaction, sqlite, "INTEGER", "");

stories!(
    effects_come_once,
    orders_without_a_try,
    failed_tries_leave_nothing,
    dropped_tries_leave_nothing,
    handlers_fail,
    arguments_have_versions,
    all_at_once,
);

stories!(
    test_three_phase: three_phases,
    promises_are_taken_back,
    goes_by_the_table,
    open_promises_are_found,
);

/// What is reported as done survives a crash, also where the application's own connections take
/// that less seriously.
#[tokio::test]
async fn what_is_tried_is_durable_whatever_the_pool_says() {
    let f = Fixture::new(test_tcc::SETUP).await;
    let options: SqliteConnectOptions = f.url.parse().expect("a URL");
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .connect_options(options.synchronous(SqliteSynchronous::Normal))
        .build(f.registrar.clone())
        .expect("a pool");
    for begin in [Fences::begin, Fences::begin_step] {
        let mut tx = begin(&pool, Duration::from_secs(5)).await.expect("begins");
        let full: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&mut tx)
            .await
            .expect("read");
        assert_eq!(full, 2);
        AtPool::roll_back(&mut tx).await;
    }
}

#[tokio::test]
async fn fences_of_ended_branches_are_purged_and_tries_stay() {
    let f = Fixture::new(test_tcc::SETUP).await;
    test_tcc::one_of_each(&f.pool, &f.registrar).await;
    let found = phase_two::leftovers(f.pool.phase_two(), Ledger::FENCES, Duration::ZERO, None, 10);
    let found = found.await.expect("found");
    let kinds: Vec<_> = found.iter().map(|leftover| leftover.kind).collect();
    use LeftoverKind::{Marker, Undo};
    assert_eq!(kinds, [Undo, Marker, Marker]);
    let keys = test_tcc::all_keys();
    // Local transactions that began before may still run into a row: the purge waits for them.
    for _ in 0..500 {
        let purge = phase_two::purge_markers(&f.pool, Ledger::FENCES, &keys);
        purge.await.expect("purged");
        if test_tcc::fences_left(&f.pool, &f.registrar).await == [0] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the markers stay");
}

#[tokio::test]
async fn steps_of_sagas_take_effect_once_and_are_taken_back() {
    let f = Fixture::new(test_tcc::SETUP).await;
    test_saga::all_stories(&f.pool, &f.registrar).await;
}

#[tokio::test]
async fn open_promises_are_found_without_reading_what_has_ended() {
    let f = Fixture::new(test_tcc::SETUP).await;
    let plan = format!("EXPLAIN QUERY PLAN {}", promises());
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(plan))
        .bind("account.pay")
        .bind(10_000_i64)
        .bind(100_i64)
        .fetch_all(f.pool.phase_two())
        .await
        .expect("a plan");
    let [(.., step)] = &plan[..] else {
        panic!("one step, nothing is sorted: {plan:?}");
    };
    assert!(
        step.contains("USING INDEX accede_fence_open (resource=?"),
        "{step}"
    );
}
