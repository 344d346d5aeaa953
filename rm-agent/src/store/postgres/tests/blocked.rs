//! Branches that stand still in the database, and those that are only slow.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::{
    Fixture, inside,
    registrar::{Answer, Event},
    xid,
};
use crate::{AtPoolBuilder, Error, RefusalCode};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
INSERT INTO stock VALUES (1, 10), (2, 20);";
const UPDATE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";
const SLOW: &str =
    "UPDATE stock SET count = count - 1 WHERE product = 1 AND pg_sleep(0.35) IS NOT NULL";

async fn fixture(configure: impl FnOnce(AtPoolBuilder) -> AtPoolBuilder) -> Fixture {
    Fixture::with(STOCK, |builder| {
        configure(builder.allow_function("pg_sleep"))
    })
    .await
}

/// Runs `branch` while another local transaction has run `holding`, until the coordinator was told
/// `times` that it stands still; then that transaction ends and the branch must succeed.
async fn told_while_waiting(f: &Fixture, holding: &'static str, branch: &str, times: usize) {
    let mut holder = f.pool.plain().begin().await.expect("begins");
    sqlx::query(holding)
        .execute(&mut *holder)
        .await
        .expect("locks");
    let told = async {
        for _ in 0..times {
            f.registrar.waiting.notified().await;
        }
        holder.rollback().await.expect("lets go");
    };
    let id = xid(1);
    let statements = [branch];
    let both = async { tokio::join!(f.branch(id, &statements), told) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("told in time");
    result.expect("goes on");
    let blocked = |event: &&Event| **event == Event::Blocked(id);
    assert!(f.registrar.take_all_events().iter().filter(blocked).count() >= times);
}

#[tokio::test]
async fn a_statement_that_waits_for_a_lock_is_told_again_and_again() {
    let f = fixture(|builder| builder).await;
    told_while_waiting(&f, UPDATE, UPDATE, 3).await;
    let locking = "SELECT * FROM stock WHERE product = 1 FOR UPDATE";
    f.registrar.release();
    told_while_waiting(&f, UPDATE, locking, 1).await;
}

#[tokio::test]
async fn reads_and_the_reading_of_the_catalog_can_stand_still_too() {
    let f = fixture(|builder| builder).await;
    let alter = "ALTER TABLE stock ADD COLUMN note text";
    told_while_waiting(&f, alter, "SELECT count FROM stock", 2).await;
}

#[tokio::test]
async fn a_commit_can_stand_still() {
    let f = fixture(|builder| builder).await;
    f.execute(
        "CREATE TABLE item (id bigint PRIMARY KEY, product bigint NOT NULL REFERENCES stock \
         DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let holding = "DELETE FROM stock WHERE product = 2";
    told_while_waiting(&f, holding, "INSERT INTO item VALUES (1, 2)", 1).await;
}

#[tokio::test]
async fn a_slow_statement_does_not_stand_still() {
    let f = fixture(|builder| builder).await;
    // On a busy machine the question may take too long, which counts as waiting.
    for number in 2..22 {
        let id = xid(number);
        f.branch(id, &[SLOW]).await.expect("slow");
        f.registrar.release();
        if f.registrar.take_all_events() == [Event::Registered(id, 1, 1), Event::Done(id, 1)] {
            return;
        }
    }
    panic!("it was always told");
}

#[tokio::test]
async fn without_an_answer_a_slow_statement_counts_as_one_that_waits() {
    let f = fixture(|builder| builder.phase_two_connections(1)).await;
    let busy = f.pool.phase_two().acquire().await.expect("its only one");
    f.branch(xid(3), &[SLOW]).await.expect("slow");
    drop(busy);
    let events = f.registrar.take_all_events();
    assert!(events.contains(&Event::Blocked(xid(3))), "{events:?}");
}

#[tokio::test]
async fn waiting_for_a_connection_is_standing_still() {
    let f = fixture(|builder| builder.max_connections(1)).await;
    let id = xid(4);
    let busy = f.pool.plain().acquire().await.expect("the only one");
    let told = async {
        f.registrar.waiting.notified().await;
        f.registrar.waiting.notified().await;
        drop(busy);
    };
    let statements = [UPDATE];
    let (result, ()) = tokio::join!(f.branch(id, &statements), told);
    result.expect("goes on");
    assert_eq!(f.registrar.take_all_events()[0], Event::Blocked(id));

    // A lone statement that is not known yet waits for a connection to plan it. What was said of
    // the branch while it got its connection is not about that.
    let _ = f.registrar.waiting.notified().now_or_never();
    let busy = f.pool.plain().acquire().await.expect("the only one");
    let told = async {
        f.registrar.waiting.notified().await;
        drop(busy);
    };
    let lone = inside(id, async {
        sqlx::query("UPDATE stock SET count = 5 WHERE product = 2")
            .execute(&f.pool)
            .await
    });
    let (result, ()) = tokio::join!(lone, told);
    result.expect("goes on");
    assert_eq!(f.registrar.take_all_events()[0], Event::Blocked(id));

    // Work outside of any transaction concerns no coordinator.
    let busy = f.pool.plain().acquire().await.expect("the only one");
    let plain = async { f.pool.begin_plain().await.expect("begins").rollback().await };
    let later = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        drop(busy);
    };
    let (result, ()) = tokio::join!(plain, later);
    result.expect("goes on");
    assert_eq!(f.registrar.take_all_events(), []);
}

#[tokio::test]
async fn who_must_let_go_is_run_again_or_told_so() {
    let f = fixture(|builder| builder).await;
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderBlocked));
    inside(xid(5), async {
        sqlx::query(UPDATE).execute(&f.pool).await.expect("again");
    })
    .await;
    assert_eq!(f.registrar.take_events().len(), 2);
    f.registrar.release();
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderBlocked));
    let error = f.branch(xid(6), &[UPDATE]).await.expect_err("refused");
    assert!(crate::is_retryable(&error));
    assert!(matches!(
        Error::from_sqlx(&error),
        Some(Error::Refused(refused)) if refused.code == RefusalCode::HolderBlocked
    ));
}
