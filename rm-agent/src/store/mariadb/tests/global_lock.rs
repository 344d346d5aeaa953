//! Local transactions outside of any global one that respect those.

use std::time::Duration;

use accede_link::context::suspend;

use super::{
    Fixture, inside,
    registrar::{Answer, Event},
    xid,
};
use crate::{Error, RefusalCode, global_lock, global_lock_within};

const STOCK: &str = "
CREATE TABLE stock (product INT PRIMARY KEY, count BIGINT NOT NULL);
INSERT INTO stock VALUES (1, 100), (2, 100);";

const TAKE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";
const READ: &str = "SELECT count FROM stock WHERE product = 1 FOR UPDATE";

fn refusal(error: &sqlx::Error) -> RefusalCode {
    match Error::from_sqlx(error) {
        Some(Error::Refused(refused)) => refused.code,
        other => panic!("{error}: {other:?}"),
    }
}

#[tokio::test]
async fn a_write_looks_at_its_rows_before_it_commits_and_leaves_nothing_behind() {
    let f = Fixture::new(STOCK).await;
    global_lock(sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("nobody holds it");
    assert_eq!(f.registrar.take_events(), [Event::CheckedOutside(1)]);
    let mut tx = f.pool.begin_checked().await.expect("begin");
    assert_eq!(tx.xid(), None);
    sqlx::query(TAKE).execute(&mut tx).await.expect("runs");
    sqlx::query("DELETE FROM stock WHERE product = 2")
        .execute(&mut tx)
        .await
        .expect("runs");
    assert_eq!(f.registrar.take_events(), [], "not before it commits");
    tx.commit().await.expect("nobody holds them");
    assert_eq!(f.registrar.take_events(), [Event::CheckedOutside(2)]);
    assert_eq!(left(&f).await, [98]);
    let undo: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM undo_log")
        .fetch_one(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!((undo, f.registrar.held_locks()), (0, 0));
}

#[tokio::test]
async fn rows_that_may_still_be_undone_are_neither_written_nor_seen() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &[TAKE]).await.expect("commit");
    let error = global_lock(sqlx::query(TAKE).execute(&f.pool)).await;
    let held = RefusalCode::LockWaitTimedOut;
    assert_eq!(refusal(&error.expect_err("held")), held);
    let seen = global_lock(sqlx::query(READ).fetch_one(&f.pool)).await;
    assert_eq!(refusal(&seen.expect_err("held")), held);
    assert_eq!(left(&f).await, [99, 100], "rolled back");
    // Whoever does not ask sees it, and changes it.
    sqlx::query(READ).fetch_one(&f.pool).await.expect("sees");
    f.registrar.end(xid(1));
    global_lock(sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("free");
    assert_eq!(left(&f).await, [98, 100]);
}

#[tokio::test]
async fn whoever_is_in_the_way_of_an_undo_lets_go_and_runs_again() {
    let f = Fixture::new(STOCK).await;
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderRollingBack));
    global_lock(sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("the second time");
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderRollingBack));
    let work = f.pool.run(|tx| {
        Box::pin(async move {
            sqlx::query(READ).fetch_one(&mut *tx).await?;
            sqlx::query(TAKE).execute(tx).await.map(drop)
        })
    });
    global_lock(work).await.expect("the second time");
    assert_eq!(left(&f).await, [98, 100]);
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderRollingBack));
    let mut tx = f.pool.begin_checked().await.expect("begin");
    sqlx::query(TAKE).execute(&mut tx).await.expect("runs");
    let error = tx.commit().await.expect_err("refused");
    assert!(crate::is_retryable(&error));
    assert_eq!(left(&f).await, [98, 100], "rolled back");
}

#[tokio::test]
async fn the_scope_ends_where_it_should() {
    let f = Fixture::new(STOCK).await;
    global_lock(async {
        let plain = f.pool.begin_plain().await?;
        let mut tx = plain;
        sqlx::query(TAKE).execute(&mut tx).await?;
        tx.commit().await?;
        let elsewhere = tokio::spawn({
            let pool = f.pool.clone();
            async move { sqlx::query(TAKE).execute(&pool).await.map(drop) }
        });
        elsewhere.await.expect("ran")
    })
    .await
    .expect("they ask nobody");
    sqlx::query(TAKE).execute(&f.pool).await.expect("nor this");
    assert_eq!(f.registrar.take_events(), []);
    // A branch stays a branch, and must not wait for its own transaction.
    let branch = inside(xid(7), async {
        global_lock(sqlx::query(TAKE).execute(&f.pool)).await?;
        let mut tx = f.pool.begin_checked().await?;
        assert_eq!(tx.xid(), Some(xid(7)));
        sqlx::query(TAKE).execute(&mut tx).await?;
        tx.commit().await?;
        suspend(global_lock(async {
            sqlx::query("SELECT 1").execute(&f.pool).await
        }))
        .await
    });
    branch.await.expect("its own");
    assert!(matches!(
        f.registrar.take_events()[..],
        [
            Event::Registered(_, 1, 1),
            Event::Done(_, 1),
            Event::Registered(_, 2, 1),
            Event::Done(_, 2),
        ]
    ));
}

#[tokio::test]
async fn it_waits_as_long_as_it_is_told() {
    let f = Fixture::with(STOCK, |builder| builder.lock_wait(Duration::from_secs(20))).await;
    let limit = || f.registrar.last_check().expect("asked").wait_limit;
    global_lock(sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("free");
    assert!(limit() > Duration::from_secs(10));
    let short = Duration::from_secs(3);
    global_lock_within(short, sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("free");
    assert!(limit() < short);
    let long = Duration::from_secs(3_600);
    global_lock_within(long, sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("free");
    assert!(limit() < Duration::from_secs(20), "the pool's is the most");
}

#[tokio::test]
async fn what_writes_unseen_is_refused_and_what_changes_nothing_asks_nothing() {
    let f = Fixture::new(STOCK).await;
    let error = global_lock(sqlx::query("TRUNCATE stock").execute(&f.pool)).await;
    let error = error.expect_err("whose rows are not known");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Statement { .. })),
        "{error}"
    );
    global_lock(sqlx::query("UPDATE stock SET count = count").execute(&f.pool))
        .await
        .expect("it changes nothing");
    global_lock(sqlx::query("SELECT * FROM stock").execute(&f.pool))
        .await
        .expect("it only reads");
    assert_eq!(f.registrar.take_events(), []);
    assert_eq!(left(&f).await, [100, 100]);
}

/// The check is given up with the future, and the rows are free again.
#[tokio::test]
async fn a_dropped_check_rolls_back() {
    let f = Fixture::new(STOCK).await;
    f.registrar.answer(Answer::Never);
    let pool = f.pool.clone();
    let taking = tokio::spawn(global_lock(async move {
        sqlx::query(TAKE).execute(&pool).await.map(drop)
    }));
    f.registrar.waiting.notified().await;
    taking.abort();
    taking.await.expect_err("aborted");
    sqlx::query(TAKE).execute(&f.pool).await.expect("unlocked");
    assert_eq!(f.registrar.take_events(), [Event::DroppedOutside]);
    assert_eq!(left(&f).await, [99, 100]);
}

async fn left(f: &Fixture) -> Vec<i64> {
    sqlx::query_scalar("SELECT count FROM stock ORDER BY product")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable")
}
