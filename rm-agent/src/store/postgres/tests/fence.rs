//! TCC on PostgreSQL.

use std::time::Duration;

use super::{
    super::{AtPool, FencedTransaction, fence::PROMISES},
    Fixture, phase_two, proxy,
};
use crate::{
    limits,
    store::{
        fence::Fences as _,
        finish::{Ledger, LeftoverKind},
        test_saga, test_tcc,
    },
};

ground!(
    AtPool,
    FencedTransaction,
    postgres,
    "bigint",
    "SELECT pg_terminate_backend(pg_backend_pid())"
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
async fn steps_are_durable_where_the_session_has_that_off() {
    let f = Fixture::new(test_tcc::SETUP).await;
    let options: sqlx::postgres::PgConnectOptions = f.url.parse().expect("a URL");
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .connect_options(options.options([("synchronous_commit", "off")]))
        .build(f.registrar.clone())
        .expect("a pool");
    let mut tx = pool.begin_step(limits::LOCK_WAIT).await.expect("begins");
    let setting: String = sqlx::query_scalar("SHOW synchronous_commit")
        .fetch_one(&mut tx)
        .await
        .expect("shown");
    assert_eq!(setting, "on");
    AtPool::roll_back(&mut tx).await;
}

#[tokio::test]
async fn open_promises_are_found_without_reading_what_has_ended() {
    let f = Fixture::new(test_tcc::SETUP).await;
    f.execute(
        "INSERT INTO accede_fence (xid, branch_id, status, resource, created, payload)
         SELECT 2000000 + n, 1, 1, 'account.pay', now(), 'x' FROM generate_series(1, 5000) n;
         ANALYZE accede_fence",
    )
    .await;
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN {PROMISES}")))
        .bind("account.pay")
        .bind(10_000.0)
        .bind(100_i64)
        .fetch_all(f.pool.plain())
        .await
        .expect("a plan");
    let plan = plan.join("\n");
    assert!(plan.contains("using accede_fence_open"), "{plan}");
}

#[tokio::test]
async fn what_a_step_writes_beside_its_transaction_is_refused() {
    use accede_link::context::{TransactionContext, scope};

    let f = Fixture::new(test_tcc::SETUP).await;
    let xid = super::xid(77);
    let step = Some(TransactionContext::of_step(xid));
    let write = "UPDATE account SET free = free - 5 WHERE id = 1";
    let written = scope(step, sqlx::query(write).execute(&f.pool)).await;
    let text = written.expect_err("it would be there twice").to_string();
    assert!(
        text.contains("in the step's own local transaction"),
        "{text}"
    );
    // What it does outside of any transaction is its own affair, and so is reading.
    let read = sqlx::query_scalar("SELECT free FROM account WHERE id = 1");
    let free: i32 = scope(step, read.fetch_one(&f.pool)).await.expect("read");
    assert_eq!(free, 100);
    let outside = accede_link::context::suspend(sqlx::query(write).execute(&f.pool));
    scope(step, outside).await.expect("a plain one");
    assert_eq!(f.dump("account").await[0], "(1,95,0)");
}
