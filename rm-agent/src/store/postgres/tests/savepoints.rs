//! Savepoints, and several statements in one text.

use super::{Fixture, inside, registrar::Event, xid};
use crate::Error;

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL CHECK (count >= 0), name text UNIQUE);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);";

#[tokio::test]
async fn what_came_after_a_savepoint_is_dropped_with_its_locks() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let run = "UPDATE stock SET count = count + 1 WHERE product = $1";
    sqlx::query(run)
        .bind(1_i64)
        .execute(&mut tx)
        .await
        .expect("update");
    {
        let mut part = tx.begin().await.expect("a savepoint");
        sqlx::query(run)
            .bind(1_i64)
            .execute(&mut part)
            .await
            .expect("update");
        sqlx::query("DELETE FROM stock WHERE product > 1")
            .execute(&mut part)
            .await
            .expect("delete");
        let inner = part.begin().await.expect("a savepoint inside");
        inner.commit().await.expect("kept");
        part.rollback().await.expect("rolled back");
    }
    {
        // Kept, with one inside that is dropped on the way.
        let mut part = tx.begin().await.expect("a savepoint");
        sqlx::query("INSERT INTO stock VALUES (9, 9, 'i')")
            .execute(&mut part)
            .await
            .expect("insert");
        let mut inner = part.begin().await.expect("a savepoint inside");
        sqlx::query("DELETE FROM stock")
            .execute(&mut inner)
            .await
            .expect("delete");
        drop(inner);
        part.commit().await.expect("kept");
    }
    tx.commit().await.expect("commit");
    // Row 1 changed once, row 9 and its name came.
    assert_eq!(f.registrar.events()[0], Event::Registered(xid(1), 1, 3));
    let after = f.dump("stock").await;
    assert_eq!(after, ["(1,11,a)", "(2,20,b)", "(3,30,)", "(9,9,i)"]);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

#[tokio::test]
async fn a_failure_inside_a_savepoint_is_taken_back() {
    let f = Fixture::new(STOCK).await;
    for name in ["Text", "plain"] {
        f.registrar.release();
        let mut tx = if name == "Text" {
            f.pool.begin_in(xid(1)).await
        } else {
            f.pool.begin_plain().await
        }
        .expect("begin");
        let mut part = tx.begin().await.expect("a savepoint");
        let too_low = "UPDATE stock SET count = count - 100 WHERE product = 1";
        let error = sqlx::query(too_low)
            .execute(&mut part)
            .await
            .expect_err("below zero");
        assert!(error.as_database_error().is_some());
        part.rollback().await.expect("rolled back");
        for sql in [
            "SAVEPOINT \"A b\"",
            "UPDATE stock SET count = 0 WHERE product = 2",
            "SAVEPOINT \"A b\"",
            "UPDATE stock SET count = 1 WHERE product = 2",
            "RELEASE \"A b\"",
            "ROLLBACK TO SAVEPOINT \"A b\"",
            "UPDATE stock SET count = 2 WHERE product = 3",
        ] {
            sqlx::query(sql)
                .execute(&mut tx)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        if name == "plain" {
            tx.rollback().await.expect("rollback");
            continue;
        }
        tx.commit().await.expect("commit");
        assert_eq!(f.registrar.events()[0], Event::Registered(xid(1), 1, 1));
        assert_eq!(f.dump("stock").await, ["(1,10,a)", "(2,20,b)", "(3,2,)"]);
    }
    // Without a savepoint, only a rollback is left.
    f.registrar.release();
    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    sqlx::query("SELECT 1 / 0")
        .execute(&mut tx)
        .await
        .expect_err("nonsense");
    let error = tx.begin().await.expect_err("broken");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    let error = sqlx::query("ROLLBACK TO nowhere")
        .execute(&mut tx)
        .await
        .expect_err("broken");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    tx.rollback().await.expect("rollback");
}

#[tokio::test]
async fn a_cancelled_statement_is_taken_back_too() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 11 WHERE product = 1")
        .execute(&mut tx)
        .await
        .expect("update");
    let mut part = tx.begin().await.expect("a savepoint");
    let slow = sqlx::query("UPDATE stock SET count = 12 FROM pg_sleep(0.2) WHERE product = 1");
    let patience = std::time::Duration::from_millis(50);
    tokio::time::timeout(patience, slow.execute(&mut part))
        .await
        .expect_err("cancelled");
    let error = sqlx::query("SELECT 1")
        .execute(&mut part)
        .await
        .expect_err("cancelled before");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    part.rollback().await.expect("rolled back");
    tx.commit().await.expect("commit");
    assert_eq!(f.dump("stock").await[0], "(1,11,a)");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await[0], "(1,10,a)");
}

#[tokio::test]
async fn several_statements_in_one_text_run_or_are_refused_together() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let text = "UPDATE stock SET name = 'x;y' WHERE product = 1; DELETE FROM stock WHERE product = 2;;
                SAVEPOINT a; DELETE FROM stock; ROLLBACK TO a; INSERT INTO stock VALUES (4, 4, ';') -- end;";
    let done = inside(xid(1), async { sqlx::raw_sql(text).execute(&f.pool).await })
        .await
        .expect("one branch");
    assert_eq!(done.rows_affected(), 5);
    assert_eq!(f.dump("stock").await, ["(1,10,x;y)", "(3,30,)", "(4,4,;)"]);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);

    f.registrar.release();
    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    let error = sqlx::raw_sql("DELETE FROM stock; TRUNCATE stock")
        .execute(&mut tx)
        .await;
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("TRUNCATE"), "{error}");
    let error = sqlx::query("DELETE FROM stock; DELETE FROM stock")
        .execute(&mut tx)
        .await;
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("raw_sql"), "{error}");
    tx.commit().await.expect("nothing ran");
    assert_eq!(f.dump("stock").await, before);
}
