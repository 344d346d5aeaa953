//! XA branches that something comes in between: their rollback, a broken connection, a dropped
//! future.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{
    super::{
        PhaseTwoError,
        registrar::{Answer, Event},
        xid,
    },
    TAKE, commit, fences, fixture, fixture_with, name, own, prepare, prepared, roll_back,
};
use crate::{Error, RefusalCode, polled::polled};

#[tokio::test]
async fn a_late_prepare_fails() {
    let (f, xa) = fixture().await;
    let mut tx = xa.begin_in(xid(1)).await.expect("begins");
    sqlx::query(TAKE).execute(&mut tx).await.expect("updates");
    roll_back(&f, 1).await.expect("barred");
    assert_eq!(fences(&f).await, [3]);
    let error = tx.commit().await.expect_err("too late");
    assert!(
        matches!(own(&error), Error::RolledBackMeanwhile { .. }),
        "{error}"
    );
    // The give-up time has passed.
    f.registrar
        .answer(Answer::GiveUp(std::time::Duration::ZERO));
    let error = prepare(&xa, 2, TAKE).await.expect_err("too late");
    assert!(matches!(own(&error), Error::GaveUp { .. }), "{error}");
    // The coordinator says no.
    f.registrar
        .answer(Answer::Refuse(RefusalCode::AlreadyDecided));
    let error = prepare(&xa, 3, TAKE).await.expect_err("refused");
    assert!(matches!(own(&error), Error::Refused(_)), "{error}");
    assert_eq!(
        f.registrar.take_events(),
        [
            Event::Registered(xid(1), 1, 0),
            Event::Withdrawn(xid(1), 1),
            Event::Registered(xid(2), 1, 0),
            Event::Withdrawn(xid(2), 1)
        ]
    );
    assert!(prepared(&f).await.is_empty());
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
    // The rows are free.
    f.execute(TAKE).await;
}

#[tokio::test]
async fn a_rollback_that_crosses_with_the_prepare_waits_for_it() {
    let (f, _) = fixture().await;
    let fence = |number| {
        format!(
            "BEGIN; {TAKE}; INSERT INTO accede_fence VALUES ({}, 1, 1, 'x', now())",
            xid(number).as_u64()
        )
    };
    let mut agent = PgConnection::connect(&f.url).await.expect("connects");
    sqlx::raw_sql(AssertSqlSafe(fence(1)))
        .execute(&mut agent)
        .await
        .expect("half-way");
    let waits = async {
        while sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(f.pool.plain())
        .await
        .expect("reads")
            == 0
        {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql(AssertSqlSafe(format!(
            "PREPARE TRANSACTION '{}'",
            name(&f, 1)
        )))
        .execute(&mut agent)
        .await
        .expect("prepared");
    };
    let both = async { tokio::join!(roll_back(&f, 1), waits) };
    let both = tokio::time::timeout(std::time::Duration::from_secs(60), both);
    let (rolled_back, ()) = both.await.expect("the rollback waits, then goes on");
    rolled_back.expect("rolled back");
    assert!(prepared(&f).await.is_empty());
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);

    // One that gets nowhere: the order is repeated.
    sqlx::raw_sql(AssertSqlSafe(fence(2)))
        .execute(&mut agent)
        .await
        .expect("half-way");
    let result = roll_back(&f, 2).await;
    assert!(
        matches!(&result, Err(PhaseTwoError::Failed { reason }) if reason.contains("prepares")),
        "{result:?}"
    );
    agent.close().await.expect("closes");
    roll_back(&f, 2).await.expect("barred");
    assert_eq!(fences(&f).await, [3]);
}

#[tokio::test]
async fn a_connection_that_breaks_dooms_or_withdraws() {
    let (f, xa) = fixture().await;
    // Before the last message: nothing was prepared, but nobody can tell.
    let mut tx = xa.begin_in(xid(1)).await.expect("begins");
    let backend: i32 = sqlx::query_scalar("UPDATE stock SET count = 0 RETURNING pg_backend_pid()")
        .fetch_one(&mut tx)
        .await
        .expect("updates");
    f.execute(&format!("SELECT pg_terminate_backend({backend}, 5000)"))
        .await;
    let error = tx.commit().await.expect_err("broken");
    assert!(
        matches!(own(&error), Error::CommitUnknown { .. }),
        "{error}"
    );
    // In the middle of it.
    f.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN NEW; END';
         CREATE TRIGGER die BEFORE INSERT ON accede_fence FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await;
    let error = prepare(&xa, 2, TAKE).await.expect_err("broken");
    assert!(
        matches!(own(&error), Error::CommitUnknown { .. }),
        "{error}"
    );
    f.execute("DROP TRIGGER die ON accede_fence").await;
    assert_eq!(
        f.registrar.take_events(),
        [
            Event::Registered(xid(1), 1, 0),
            Event::Doomed(xid(1), 1),
            Event::Registered(xid(2), 1, 0),
            Event::Doomed(xid(2), 1)
        ]
    );
    for number in [1, 2] {
        roll_back(&f, number).await.expect("barred");
    }
    assert!(prepared(&f).await.is_empty());
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
}

#[tokio::test]
async fn a_branch_dropped_anywhere_tells_the_truth() {
    let (f, xa) = fixture_with(|builder| builder.max_connections(2)).await;
    xa.check().await.expect("can be used");
    let mut finished = 0;
    for times in 0.. {
        let number = times as u64 + 1;
        f.registrar.take_events();
        let result = polled(times, prepare(&xa, number, TAKE)).await;
        let events = f.registrar.take_events();
        match events.as_slice() {
            [] => assert!(result.is_none()),
            [Event::Registered(..), Event::Done(..)] => {}
            [
                Event::Registered(..),
                Event::Withdrawn(..) | Event::Doomed(..),
            ] => assert!(result.is_none(), "only a dropped commit leaves doubt"),
            other => panic!("after {times} polls: {other:?}"),
        }
        roll_back(&f, number).await.expect("rolled back or barred");
        assert!(prepared(&f).await.is_empty(), "after {times} polls");
        // No connection went back with an open transaction: the row is free.
        f.execute("SET lock_timeout = '5s'; UPDATE stock SET count = 10 WHERE product = 1")
            .await;
        if let Some(result) = result {
            result.expect("prepared");
            finished += 1;
            if finished == 3 {
                break;
            }
        }
        assert!(times < 500, "it ends at some time");
    }
}

#[tokio::test]
async fn a_failed_or_cancelled_statement_leaves_only_rollback_or_a_savepoint() {
    let (f, xa) = fixture().await;
    let slow = "UPDATE stock SET count = 5 WHERE pg_sleep(0.1) IS NOT NULL";
    for back in [false, true] {
        let mut tx = xa.begin_in(xid(1)).await.expect("begins");
        for sql in [TAKE, "SAVEPOINT a"] {
            sqlx::query(sql).execute(&mut tx).await.expect(sql);
        }
        assert!(
            polled(1, sqlx::query(slow).execute(&mut tx))
                .await
                .is_none()
        );
        let error = sqlx::query("SELECT 1").execute(&mut tx).await;
        assert!(
            matches!(own(&error.expect_err("half-way")), Error::Broken { .. }),
            "only a rollback"
        );
        if back {
            for sql in [
                "ROLLBACK TO a",
                "UPDATE stock SET count = 3 WHERE product = 2",
            ] {
                sqlx::query(sql).execute(&mut tx).await.expect(sql);
            }
            sqlx::query("SELECT 1 / 0")
                .execute(&mut tx)
                .await
                .expect_err("fails");
            sqlx::raw_sql("ROLLBACK TO a")
                .execute(&mut tx)
                .await
                .expect("back");
            tx.commit().await.expect("prepared");
            commit(&f, 1).await.expect("committed");
        } else {
            let error = tx.commit().await.expect_err("half-way");
            assert!(matches!(own(&error), Error::Broken { .. }), "{error}");
            assert!(f.registrar.take_events().is_empty());
            assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
        }
    }
    assert_eq!(f.dump("stock").await, ["(1,9)", "(2,20)"]);
}
