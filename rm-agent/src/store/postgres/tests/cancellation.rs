//! Futures dropped at every point where they can wait.

use super::{
    Fixture,
    registrar::{Answer, Event},
    xid,
};
use crate::{Error, polled::polled};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
INSERT INTO stock VALUES (1, 10), (2, 20);";

#[tokio::test]
async fn a_branch_dropped_anywhere_tells_the_truth() {
    let f = Fixture::with(STOCK, |builder| builder.max_connections(2)).await;
    let mut finished = 0;
    for times in 0.. {
        let xid = xid(times as u64 + 1);
        f.registrar.release();
        f.registrar.take_events();
        let result = polled(times, async {
            let mut tx = f.pool.begin_in(xid).await?;
            sqlx::query("UPDATE stock SET count = count - 1 WHERE product = 1")
                .execute(&mut tx)
                .await?;
            sqlx::query("DELETE FROM stock WHERE product = 2")
                .execute(&mut tx)
                .await?;
            tx.commit().await
        })
        .await;
        let events = f.registrar.take_events();
        match events.as_slice() {
            [] => assert!(result.is_none()),
            [Event::Registered(..), Event::Done(..)] => {}
            [
                Event::Registered(..),
                Event::Withdrawn(..) | Event::Doomed(..),
            ] => {
                assert!(result.is_none(), "only a dropped commit leaves doubt");
            }
            other => panic!("after {times} polls: {other:?}"),
        }
        // No connection goes back with an open transaction: the rows are free.
        let order = super::phase_two::roll_back(
            f.pool.phase_two(),
            super::BranchKey { xid, branch: 1 },
            false,
            super::UndoPolicy::Check,
        );
        order.await.expect("undone, or nothing to undo");
        assert_eq!(
            f.dump("stock").await,
            ["(1,10)", "(2,20)"],
            "after {times} polls"
        );
        if let Some(result) = result {
            result.expect("committed");
            finished += 1;
            if finished == 3 {
                break;
            }
        }
        assert!(times < 500, "it ends at some time");
    }
    // Every connection still works.
    for _ in 0..4 {
        let (a, b) = tokio::join!(f.pool.begin_plain(), f.pool.begin_plain());
        for mut tx in [a.expect("begin"), b.expect("begin")] {
            let open: bool = sqlx::query_scalar("SELECT count(*) = 2 FROM stock")
                .fetch_one(&mut tx)
                .await
                .expect("read");
            assert!(open);
            tx.rollback().await.expect("rollback");
        }
    }
}

#[tokio::test]
async fn a_statement_dropped_half_way_leaves_only_rollback() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 1")
        .execute(&mut tx)
        .await
        .expect("update");
    let slow = sqlx::query("UPDATE stock SET count = 2 WHERE pg_sleep(0.2) IS NOT NULL");
    assert!(polled(1, slow.execute(&mut tx)).await.is_none());
    let error = sqlx::query("SELECT 1")
        .execute(&mut tx)
        .await
        .expect_err("half-way");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    let error = tx.commit().await.expect_err("half-way");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Broken { .. })),
        "{error}"
    );
    assert!(f.registrar.events().is_empty());
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
}

#[tokio::test]
async fn a_failed_statement_leaves_only_rollback() {
    let f = Fixture::new(STOCK).await;
    for sql in ["INSERT INTO stock VALUES (1, 1)", "SELECT 1 / 0"] {
        let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
        sqlx::query("UPDATE stock SET count = 1")
            .execute(&mut tx)
            .await
            .expect("update");
        let error = sqlx::query(sql).execute(&mut tx).await.expect_err("fails");
        assert!(
            error.as_database_error().is_some(),
            "the database's own error stays"
        );
        let error = tx.commit().await.expect_err("failed before");
        assert!(error.to_string().contains("can only roll back"), "{error}");
    }
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
}

#[tokio::test]
async fn a_commit_dropped_while_it_registers_is_withdrawn() {
    let f = Fixture::with(STOCK, |builder| builder.max_connections(1)).await;
    f.registrar.answer(Answer::Never);
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 1")
        .execute(&mut tx)
        .await
        .expect("update");
    tokio::select! {
        _ = tx.commit() => panic!("nobody answers"),
        () = f.registrar.waiting.notified() => {}
    }
    assert_eq!(f.registrar.events(), [Event::Dropped(xid(1))]);
    // The only connection comes back clean.
    let mut tx = f.pool.begin_plain().await.expect("begin");
    let count: i64 = sqlx::query_scalar("SELECT sum(count)::bigint FROM stock")
        .fetch_one(&mut tx)
        .await
        .expect("read");
    assert_eq!(count, 30);
}

#[tokio::test]
async fn a_commit_whose_connection_breaks_is_doomed() {
    let f = Fixture::new(STOCK).await;
    // The server ends the connection in the middle of the last message.
    f.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN NEW; END';
         CREATE TRIGGER die BEFORE INSERT ON undo_log FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await;
    let error = f
        .branch(xid(1), &["DELETE FROM stock"])
        .await
        .expect_err("broken");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::CommitUnknown { .. })),
        "{error}"
    );
    assert_eq!(
        f.registrar.events(),
        [Event::Registered(xid(1), 1, 2), Event::Doomed(xid(1), 1)]
    );
    assert_eq!(f.dump("stock").await.len(), 2);
}
