//! Branches that stand still in the database, and those that are only slow.

use std::time::Duration;

use super::{Fixture, registrar::Event, xid};

const STOCK: &str = "
CREATE TABLE stock (product BIGINT PRIMARY KEY, count BIGINT NOT NULL);
INSERT INTO stock VALUES (1, 10), (2, 20);";

#[tokio::test]
async fn a_statement_that_waits_for_a_lock_is_told_and_a_slow_one_is_not() {
    let f = Fixture::with(STOCK, |builder| builder.allow_function("sleep")).await;
    let mut holder = f.pool.plain().begin().await.expect("begins");
    sqlx::query("SELECT * FROM stock WHERE product = 1 FOR UPDATE")
        .execute(&mut *holder)
        .await
        .expect("locks");
    let told = async {
        for _ in 0..2 {
            f.registrar.waiting.notified().await;
        }
        holder.rollback().await.expect("lets go");
    };
    let statements = ["UPDATE stock SET count = 0 WHERE product = 1"];
    let both = async { tokio::join!(f.branch(xid(1), &statements), told) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("told in time");
    result.expect("goes on");
    assert!(
        f.registrar
            .take_all_events()
            .contains(&Event::Blocked(xid(1)))
    );

    // On a busy machine the question may take too long, which counts as waiting.
    for number in 2..22 {
        let id = xid(number);
        f.registrar.release();
        let slow = "UPDATE stock SET count = count + 1 WHERE product = 2 AND SLEEP(0.3) = 0";
        f.branch(id, &[slow]).await.expect("slow");
        if !f.registrar.take_all_events().contains(&Event::Blocked(id)) {
            return;
        }
    }
    panic!("it was always told");
}

#[tokio::test]
async fn a_branch_that_waits_too_long_says_so() {
    let f = Fixture::with(STOCK, |builder| builder.lock_wait(Duration::from_secs(1))).await;
    let mut holder = f.pool.plain().begin().await.expect("begins");
    sqlx::query("SELECT * FROM stock WHERE product = 1 FOR UPDATE")
        .execute(&mut *holder)
        .await
        .expect("locks");
    let error = f
        .branch(xid(1), &["DELETE FROM stock"])
        .await
        .expect_err("locked");
    let own = crate::Error::from_sqlx(&error);
    assert!(
        matches!(own, Some(crate::Error::LocalLockTimedOut { .. })),
        "{error}"
    );
    holder.rollback().await.expect("lets go");
}
