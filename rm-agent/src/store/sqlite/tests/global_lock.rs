//! Local transactions outside of any global one that respect those.

use super::{
    Fixture,
    registrar::{Answer, Event},
    xid,
};
use crate::{Error, RefusalCode, global_lock};

const STOCK: &str = "
CREATE TABLE stock (product INTEGER PRIMARY KEY, count INTEGER NOT NULL);
INSERT INTO stock VALUES (1, 100), (2, 100);";

const TAKE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";

async fn left(f: &Fixture) -> Vec<i64> {
    sqlx::query_scalar("SELECT count FROM stock ORDER BY product")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable")
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
async fn rows_that_may_still_be_undone_are_not_written() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &[TAKE]).await.expect("commit");
    let error = global_lock(sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect_err("held");
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::Refused(refused)) if refused.code == RefusalCode::LockWaitTimedOut
        ),
        "{error}"
    );
    assert_eq!(left(&f).await, [99, 100], "rolled back");
    f.registrar.end(xid(1));
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderRollingBack));
    global_lock(sqlx::query(TAKE).execute(&f.pool))
        .await
        .expect("free, the second time");
    assert_eq!(left(&f).await, [98, 100]);
}
