//! TCC on MariaDB.

use std::time::Duration;

use sqlx::Row as _;

use super::{
    super::{AtPool, FencedTransaction, fence::PROMISES},
    BranchKey, Fixture, phase_two, proxy, xid,
};
use crate::store::{
    fence::{Fences, Status},
    finish::{Ledger, LeftoverKind},
    test_saga, test_tcc,
};

ground!(
    AtPool,
    FencedTransaction,
    mariadb,
    "SIGNED",
    "KILL CONNECTION_ID()"
);

stories!(
    effects_come_once,
    orders_without_a_try,
    failed_tries_leave_nothing,
    dropped_tries_leave_nothing,
    handlers_fail,
    arguments_have_versions,
    all_at_once,
    a_lost_session_is_not_known,
);

stories!(
    test_three_phase: three_phases,
    promises_are_taken_back,
    goes_by_the_table,
    open_promises_are_found,
);

#[tokio::test]
async fn fences_of_ended_branches_are_purged_and_tries_stay() {
    let f = Fixture::new(test_tcc::SETUP).await;
    test_tcc::one_of_each(&f.pool, &f.registrar).await;
    // A row of this very millisecond is not old yet.
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        let found =
            phase_two::leftovers(f.pool.phase_two(), Ledger::FENCES, Duration::ZERO, None, 10);
        let found = found.await.expect("found");
        kinds = found.iter().map(|leftover| leftover.kind).collect();
    }
    use LeftoverKind::{Marker, Undo};
    assert_eq!(kinds, [Undo, Marker, Marker]);
    let keys = test_tcc::all_keys();
    // Local transactions that began before may still run into a row: the purge waits for them.
    for _ in 0..500 {
        let purge = phase_two::purge_markers(f.pool.phase_two(), Ledger::FENCES, &keys);
        purge.await.expect("purged");
        if test_tcc::fences_left(&f.pool, &f.registrar).await == [0] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the markers stay");
}

#[tokio::test]
async fn a_try_costs_two_trips_and_an_end_too() {
    let f = Fixture::new(test_tcc::SETUP).await;
    let (url, trips) = proxy::start(&f.url).await;
    let pool = AtPool::builder(&url)
        .resource("test-db")
        .max_connections(1)
        .build(f.registrar.clone())
        .expect("a pool");
    let counted = test_tcc::trips(&pool, &f.registrar, &trips).await;
    assert_eq!(counted, [3, 3, 3], "with one statement of the handler's");
}

#[tokio::test]
async fn steps_of_sagas_take_effect_once_and_are_taken_back() {
    let f = Fixture::new(test_tcc::SETUP).await;
    test_saga::all_stories(&f.pool, &f.registrar).await;
}

#[tokio::test]
async fn open_promises_are_found_without_reading_what_has_ended() {
    let f = Fixture::new(test_tcc::SETUP).await;
    f.execute(
        "INSERT INTO accede_fence (xid, branch_id, status, resource, created, payload)
         SELECT 2000000 + seq, 1, 1, 'account.pay', SYSDATE(6), 'x' FROM seq_1_to_5000;
         ANALYZE TABLE accede_fence",
    )
    .await;
    let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN {PROMISES}")))
        .bind("account.pay")
        .bind(10_000_000_i64)
        .bind(100_u64)
        .fetch_one(f.pool.plain())
        .await
        .expect("a plan");
    let index: Option<String> = plan.try_get("key").expect("a column");
    assert_eq!(index.as_deref(), Some("accede_fence_open"));
}

/// The application's next statement on the connection of a step commits by itself, as ever.
#[tokio::test]
async fn a_step_leaves_its_session_as_it_was() {
    let f = Fixture::with("", |builder| builder.max_connections(1)).await;
    let settings = "SELECT CAST(CONCAT(@@autocommit, ' ', @@innodb_lock_wait_timeout) AS CHAR)";
    let read = async || {
        let read = sqlx::query_scalar::<_, String>(settings).fetch_one(f.pool.plain());
        read.await.expect("reads")
    };
    let before = read().await;
    let key = BranchKey {
        xid: xid(1),
        branch: 1,
    };
    let begun = Fences::begin(&f.pool, Duration::from_secs(5)).await;
    let mut tx = begun.expect("begins");
    let claimed = f.pool.claim(&mut tx, key, "step").await;
    assert_eq!(claimed.expect("claimed"), Status::Running);
    let closed = f
        .pool
        .close(&mut tx, key, Some(Status::Confirmed), None)
        .await;
    closed.expect("done");
    drop(tx);
    assert_eq!(read().await, before);
}
