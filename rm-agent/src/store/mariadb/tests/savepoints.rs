//! Savepoints, statements that fail, and several statements in one text.

use super::{Fixture, inside, registrar::Event, xid};
use crate::Error;

const STOCK: &str = "
CREATE TABLE stock (product BIGINT PRIMARY KEY, count BIGINT NOT NULL CHECK (count >= 0), name VARCHAR(9) UNIQUE);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);";

async fn counts(f: &Fixture) -> Vec<(i64, i64)> {
    sqlx::query_as("SELECT product, count FROM stock ORDER BY product")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable")
}

#[tokio::test]
async fn what_came_after_a_savepoint_is_dropped_with_its_locks() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let run = "UPDATE stock SET count = count + 1 WHERE product = ?";
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
    assert_eq!(counts(&f).await, [(1, 11), (2, 20), (3, 30), (9, 9)]);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

/// A second savepoint takes the name of the first one, which is gone with that; one that is
/// released takes the later ones along.
#[tokio::test]
async fn savepoints_as_texts_do_what_mariadb_does() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    for sql in [
        "SAVEPOINT `a b`",
        "UPDATE stock SET count = 1 WHERE product = 1",
        "savepoint `b`",
        "UPDATE stock SET count = 2 WHERE product = 2",
        "SAVEPOINT `A B`",
        "UPDATE stock SET count = 3 WHERE product = 3",
        "ROLLBACK TO `a B`",
        "ROLLBACK WORK TO SAVEPOINT B",
    ] {
        sqlx::query(sql)
            .execute(&mut tx)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    for sql in ["ROLLBACK TO `a b`", "RELEASE SAVEPOINT nowhere"] {
        let error = sqlx::query(sql).execute(&mut tx).await.expect_err(sql);
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
    tx.commit().await.expect("commit");
    assert_eq!(f.registrar.events()[0], Event::Registered(xid(1), 1, 1));
    assert_eq!(counts(&f).await, [(1, 1), (2, 20), (3, 30)]);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(counts(&f).await, [(1, 10), (2, 20), (3, 30)]);
}

/// As in MariaDB itself.
#[tokio::test]
async fn a_failed_statement_takes_back_itself_alone() {
    let f = Fixture::new(STOCK).await;
    for kind in ["branch", "plain"] {
        let mut tx = match kind {
            "branch" => f.pool.begin_in(xid(1)).await,
            _ => f.pool.begin_plain().await,
        }
        .expect("begin");
        sqlx::query("UPDATE stock SET count = 11 WHERE product = 1")
            .execute(&mut tx)
            .await
            .expect("update");
        for sql in [
            "UPDATE stock SET count = count - 25 WHERE product > 1",
            "INSERT INTO stock VALUES (4, 4, NULL), (1, 1, NULL)",
            "INSERT INTO stock VALUES (5, 5, NULL), (1, 1, NULL) RETURNING product",
            "SELECT nothing FROM stock",
        ] {
            let error = sqlx::query(sql).execute(&mut tx).await.expect_err(sql);
            assert!(error.as_database_error().is_some(), "{sql}: {error}");
        }
        sqlx::query("DELETE FROM stock WHERE product = 2")
            .execute(&mut tx)
            .await
            .expect("it goes on");
        if kind == "plain" {
            tx.rollback().await.expect("rollback");
            continue;
        }
        tx.commit().await.expect("commit");
        // Row 2 went with its name.
        assert_eq!(f.registrar.events()[0], Event::Registered(xid(1), 1, 3));
        assert_eq!(counts(&f).await, [(1, 11), (3, 30)]);
        f.roll_back(xid(1), 1).await.expect("undone");
        assert_eq!(counts(&f).await, [(1, 10), (2, 20), (3, 30)]);
    }
}

#[tokio::test]
async fn a_deadlock_leaves_a_rollback_only() {
    let f = Fixture::new(STOCK).await;
    let mut other = f.pool.plain().begin().await.expect("begin");
    // It has changed more, so that the branch is the victim.
    for sql in [
        "INSERT INTO stock SELECT seq, seq, NULL FROM seq_100_to_200",
        "UPDATE stock SET count = 0 WHERE product = 2",
    ] {
        sqlx::query(sql).execute(&mut *other).await.expect(sql);
    }
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let mut part = tx.begin().await.expect("a savepoint");
    sqlx::query("UPDATE stock SET count = 0 WHERE product = 1")
        .execute(&mut part)
        .await
        .expect("update");
    let (here, there) = tokio::join!(
        sqlx::query("UPDATE stock SET count = 1 WHERE product = 2").execute(&mut part),
        sqlx::query("UPDATE stock SET count = 1 WHERE product = 1").execute(&mut *other),
    );
    there.expect("not the victim");
    let error = here.expect_err("the victim");
    assert!(crate::is_retryable(&error), "{error}");
    part.rollback().await.expect_err("the savepoint is gone");
    let error = sqlx::query("SELECT 1")
        .execute(&mut tx)
        .await
        .expect_err("broken");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    tx.rollback().await.expect("rollback");
    other.rollback().await.expect("rollback");
    assert_eq!(counts(&f).await, [(1, 10), (2, 20), (3, 30)]);
}

/// Whatever makes the database roll back behind the agent's back: what came later is not
/// committed without what came before.
#[tokio::test]
async fn a_branch_that_the_database_rolled_back_cannot_commit() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let change = "UPDATE stock SET count = 0 WHERE product = 1";
    sqlx::query(change).execute(&mut tx).await.expect("update");
    sqlx::raw_sql("ROLLBACK")
        .execute(tx.connection())
        .await
        .expect("behind its back");
    sqlx::query("UPDATE stock SET count = 0 WHERE product = 2")
        .execute(&mut tx)
        .await
        .expect("unnoticed");
    let error = tx.commit().await.expect_err("noticed");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    assert_eq!(f.dump("stock").await, before);
    assert_eq!(f.undo_rows().await, 0);
    assert_eq!(
        f.registrar.events().last(),
        Some(&Event::Withdrawn(xid(1), 1))
    );
}

#[tokio::test]
async fn a_cancelled_statement_is_taken_back_too() {
    let f = Fixture::with(STOCK, |builder| builder.allow_function("sleep")).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 11 WHERE product = 1")
        .execute(&mut tx)
        .await
        .expect("update");
    let mut part = tx.begin().await.expect("a savepoint");
    let slow = sqlx::query("UPDATE stock SET count = 12 WHERE product = 1 AND SLEEP(0.2) = 0");
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
    assert_eq!(counts(&f).await[0], (1, 11));
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(counts(&f).await[0], (1, 10));
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
    assert_eq!(counts(&f).await, [(1, 10), (3, 30), (4, 4)]);
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
