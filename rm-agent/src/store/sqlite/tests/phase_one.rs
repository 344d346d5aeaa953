//! What a branch does until its local commit.

use sqlx::Row as _;

use super::{
    Fixture, inside,
    registrar::{Answer, Event},
    xid,
};
use crate::{Error, RefusalCode};

const STOCK: &str = "
CREATE TABLE stock (product INTEGER PRIMARY KEY, count INT NOT NULL, code TEXT UNIQUE COLLATE NOCASE);
INSERT INTO stock (product, count, code) VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT);
INSERT INTO orders (note) VALUES ('old');";

#[tokio::test]
async fn without_a_global_transaction_nothing_differs() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin().await.expect("begin");
    sqlx::query("UPDATE stock SET count = count - ? WHERE product = ?")
        .bind(3)
        .bind(1)
        .execute(&mut tx)
        .await
        .expect("update");
    sqlx::query("REPLACE INTO stock (product, count) VALUES (2, 5)")
        .execute(&mut tx)
        .await
        .expect("anything may run");
    tx.commit().await.expect("commit");
    assert!(f.registrar.events().is_empty());
    assert_eq!(f.undo_rows().await, 0);
}

#[tokio::test]
async fn a_branch_registers_writes_its_undo_record_and_is_done() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let done = sqlx::query("UPDATE stock SET count = count - ? WHERE product = ? OR code = ?")
        .bind(3)
        .bind(1)
        .bind("B")
        .execute(&mut tx)
        .await
        .expect("update");
    assert_eq!(done.rows_affected(), 2);
    let done = sqlx::query("INSERT INTO orders (note) VALUES (?), (?)")
        .bind("new")
        .bind("newer")
        .execute(&mut tx)
        .await
        .expect("insert");
    assert_eq!((done.rows_affected(), done.last_insert_rowid()), (2, 3));
    let done = sqlx::query("DELETE FROM stock WHERE product = ?")
        .bind(3)
        .execute(&mut tx)
        .await
        .expect("delete");
    assert_eq!(done.rows_affected(), 1);
    let none = sqlx::query("UPDATE stock SET count = 0 WHERE product = 99")
        .execute(&mut tx)
        .await
        .expect("update");
    assert_eq!(none.rows_affected(), 0);
    tx.commit().await.expect("commit");
    // Two rows updated, two inserted, one deleted.
    assert_eq!(
        f.registrar.take_events(),
        [Event::Registered(xid(1), 1, 5), Event::Done(xid(1), 1)]
    );
    assert_eq!(f.undo_rows().await, 1);
}

#[tokio::test]
async fn the_users_returning_list_comes_first() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let row = sqlx::query("INSERT INTO orders (note) VALUES (?) RETURNING id, UPPER(note) AS loud")
        .bind("x")
        .fetch_one(&mut tx)
        .await
        .expect("insert");
    assert_eq!(
        (row.get::<i32, _>("id"), row.get::<&str, _>("loud")),
        (2, "X")
    );
    let rows = sqlx::query("DELETE FROM stock WHERE count > ? RETURNING code")
        .bind(15)
        .fetch_all(&mut tx)
        .await
        .expect("delete");
    assert_eq!(rows.len(), 2);
    tx.commit().await.expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await.len(), 3);
    assert_eq!(f.dump("orders").await.len(), 1);
}

#[tokio::test]
async fn a_refused_branch_is_rolled_back() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.registrar.answer(Answer::Refuse(RefusalCode::Deadlock));
    let error = f
        .branch(xid(1), &["UPDATE stock SET count = 0"])
        .await
        .expect_err("refused");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Refused(_))),
        "{error}"
    );
    assert_eq!(f.dump("stock").await, before);
    assert_eq!(f.undo_rows().await, 0);
}

#[tokio::test]
async fn a_commit_after_the_give_up_time_is_refused_by_the_database() {
    let f = Fixture::new(STOCK).await;
    f.registrar
        .answer(Answer::GiveUp(std::time::Duration::ZERO));
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 0")
        .execute(&mut tx)
        .await
        .expect("update");
    let error = tx.commit().await.expect_err("too late");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::GaveUp { .. })),
        "{error}"
    );
    assert_eq!(
        f.registrar.events().last(),
        Some(&Event::Withdrawn(xid(1), 1))
    );
}

#[tokio::test]
async fn a_branch_that_was_rolled_back_before_cannot_commit() {
    let f = Fixture::new(STOCK).await;
    super::phase_two::roll_back(
        &f.pool,
        super::BranchKey {
            xid: xid(1),
            branch: 1,
        },
        false,
        super::UndoPolicy::Check,
    )
    .await
    .expect("a defence row");
    let error = f
        .branch(xid(1), &["UPDATE stock SET count = 0"])
        .await
        .expect_err("too late");
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::RolledBackMeanwhile { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    let f = Fixture::with(STOCK, |builder| builder.max_connections(1)).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 0")
        .execute(&mut tx)
        .await
        .expect("update");
    drop(tx);
    assert_eq!(f.dump("stock").await, before);
    // A future that is dropped half-way leaves a transaction that can only roll back.
    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    let mut slow = Box::pin(
        sqlx::query(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
             INSERT INTO orders (note) SELECT i FROM n WHERE i > 299999",
        )
        .execute(&mut tx),
    );
    assert!(futures_util::poll!(&mut slow).is_pending());
    drop(slow);
    let error = sqlx::query("SELECT 1")
        .execute(&mut tx)
        .await
        .expect_err("cancelled");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    tx.rollback().await.expect("rollback");
    assert_eq!(f.dump("orders").await.len(), 1);
}

#[tokio::test]
async fn a_failed_statement_leaves_a_rollback_only() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("INSERT INTO stock (product, count) VALUES (1, 1)")
        .execute(&mut tx)
        .await
        .expect_err("it is there already");
    let error = sqlx::query("SELECT 1")
        .execute(&mut tx)
        .await
        .expect_err("broken");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    tx.commit().await.expect_err("it cannot commit");
}

#[tokio::test]
async fn a_lone_statement_is_a_branch() {
    let f = Fixture::new(STOCK).await;
    inside(xid(1), async {
        sqlx::query("UPDATE stock SET count = 1 WHERE product = 1")
            .execute(&f.pool)
            .await
            .expect("update");
        let count: i32 = sqlx::query_scalar("SELECT count FROM stock WHERE product = 1")
            .fetch_one(&f.pool)
            .await
            .expect("select");
        assert_eq!(count, 1);
    })
    .await;
    assert_eq!(f.registrar.done_branches(xid(1)), [1]);
}

#[tokio::test]
async fn branches_wait_for_each_other() {
    let f = Fixture::new(STOCK).await;
    let mut first = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("SELECT * FROM stock")
        .fetch_all(&mut first)
        .await
        .expect("a read takes the write lock too");
    let second = f.branch(xid(2), &["UPDATE stock SET count = 7 WHERE product = 1"]);
    let told = async {
        f.registrar.waiting.notified().await;
        sqlx::query("UPDATE stock SET count = 5 WHERE product = 3")
            .execute(&mut first)
            .await
            .expect("updates");
        first.commit().await.expect("commits");
    };
    let (second, ()) = tokio::join!(second, told);
    second.expect("its turn has come");
    assert!(
        f.registrar
            .take_all_events()
            .contains(&Event::Blocked(xid(2)))
    );
}

#[tokio::test]
async fn a_branch_that_waits_too_long_says_so() {
    let f = Fixture::with(STOCK, |builder| {
        builder.lock_wait(std::time::Duration::from_millis(200))
    })
    .await;
    let mut holder = f
        .pool
        .plain()
        .begin_with("BEGIN IMMEDIATE")
        .await
        .expect("begins");
    sqlx::query("UPDATE stock SET count = 0")
        .execute(&mut *holder)
        .await
        .expect("writes");
    let error = f
        .branch(xid(1), &["DELETE FROM stock"])
        .await
        .expect_err("locked");
    let own = Error::from_sqlx(&error);
    assert!(
        matches!(own, Some(Error::LocalLockTimedOut { .. })),
        "{error}"
    );
    holder.rollback().await.expect("lets go");
}
