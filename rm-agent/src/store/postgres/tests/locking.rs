//! SELECT … FOR UPDATE, NOWAIT, SKIP LOCKED.

use sqlx::{Connection as _, Row as _};

use super::{Fixture, registrar::Event, xid};
use crate::{Error, RefusalCode};

const JOBS: &str = "
CREATE TABLE jobs (id int PRIMARY KEY, v int);
INSERT INTO jobs SELECT i, 0 FROM generate_series(1, 6) i;";

async fn ids(tx: &mut crate::AtTransaction, sql: &'static str) -> Result<Vec<i32>, sqlx::Error> {
    let rows = sqlx::query(sql).fetch_all(tx).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[tokio::test]
async fn rows_that_another_transaction_holds_are_refused_or_skipped_at_once() {
    let f = Fixture::new(JOBS).await;
    // Committed here, but its transaction may still be undone.
    f.branch(xid(1), &["UPDATE jobs SET v = 1 WHERE id IN (2, 5)"])
        .await
        .expect("commit");
    let mut other = sqlx::PgConnection::connect(&f.url).await.expect("connect");
    sqlx::raw_sql("BEGIN; SELECT FROM jobs WHERE id = 3 FOR UPDATE")
        .execute(&mut other)
        .await
        .expect("locked");

    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    let free = ids(
        &mut tx,
        "SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED",
    )
    .await;
    assert_eq!(free.expect("skipped"), [1, 4, 6]);
    let free = ids(
        &mut tx,
        "SELECT id FROM jobs WHERE id > 3 ORDER BY id FOR SHARE NOWAIT",
    )
    .await;
    let error = free.expect_err("one of them is held");
    match Error::from_sqlx(&error) {
        Some(Error::Refused(refused)) => assert_eq!(refused.code, RefusalCode::LockWaitTimedOut),
        other => panic!("{other:?}"),
    }
    tx.rollback().await.expect("rollback");
    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    let error = ids(
        &mut tx,
        "SELECT id FROM jobs WHERE id = 3 FOR NO KEY UPDATE NOWAIT",
    )
    .await;
    let error = error.expect_err("locked in the database");
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::LocalLockTimedOut { .. })
        ),
        "{error}"
    );
    tx.rollback().await.expect("rollback");

    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let own = ids(
        &mut tx,
        "SELECT id FROM jobs WHERE id = 2 FOR UPDATE NOWAIT",
    )
    .await;
    assert_eq!(own.expect("its own"), [2]);
    let own = ids(&mut tx, "SELECT id FROM jobs WHERE id = 2 FOR UPDATE").await;
    assert_eq!(own.expect("its own"), [2]);
    tx.rollback().await.expect("rollback");
    let events = f.registrar.take_events();
    assert_eq!(
        events.last(),
        Some(&Event::Checked(xid(1), 1)),
        "it would have waited"
    );
    assert!(events.contains(&Event::CheckedAtOnce(xid(2), 5)));
}
