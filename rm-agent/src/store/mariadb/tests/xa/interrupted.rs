//! XA branches that something comes in between: their rollback, a broken connection, a dropped
//! future.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

use super::{
    super::{
        PhaseTwoError,
        registrar::{Answer, Event},
        xid,
    },
    BEFORE, TAKE, commit, fences, fixture, fixture_with, name, own, prepare, prepared, roll_back,
    stock,
};
use crate::{Error, RefusalCode, is_retryable, polled::polled};

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
    f.registrar.answer(Answer::GiveUp(Duration::ZERO));
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
    assert_eq!(prepared(&f).await, 0);
    assert_eq!(stock(&f).await, BEFORE);
    // The rows are free.
    f.execute(TAKE).await;
}

#[tokio::test]
async fn a_rollback_that_crosses_with_the_prepare_is_repeated() {
    let (f, _) = fixture().await;
    let name = name(&f, 1).await;
    let mut agent = MySqlConnection::connect(&f.url).await.expect("connects");
    let half = format!(
        "XA START {name}; {TAKE}; \
         INSERT INTO accede_fence (xid, branch_id, status, resource, created) \
         VALUES ({}, 1, 1, 'x', SYSDATE(6))",
        xid(1).as_u64()
    );
    sqlx::raw_sql(AssertSqlSafe(half))
        .execute(&mut agent)
        .await
        .expect("half-way");
    let result = roll_back(&f, 1).await;
    assert!(
        matches!(&result, Err(PhaseTwoError::Failed { reason }) if reason.contains("prepares")),
        "{result:?}"
    );
    sqlx::raw_sql(AssertSqlSafe(format!("XA END {name}; XA PREPARE {name}")))
        .execute(&mut agent)
        .await
        .expect("prepared");
    let result = roll_back(&f, 1).await;
    assert!(
        matches!(&result, Err(PhaseTwoError::Failed { .. })),
        "{result:?}"
    );
    agent.close().await.expect("closes");
    roll_back(&f, 1).await.expect("rolled back");
    assert_eq!(prepared(&f).await, 0);
    assert_eq!(stock(&f).await, BEFORE);
}

/// A session that still said that it was killed has not prepared; of one that broke nobody knows.
fn assert_tells_the_truth(events: &[Event], error: &sqlx::Error) {
    match (events, Error::from_sqlx(error)) {
        ([Event::Registered(..), Event::Doomed(..)], Some(Error::CommitUnknown { .. })) => {}
        ([Event::Registered(..), Event::Withdrawn(..)], None) => {
            assert!(error.as_database_error().is_some(), "{error}");
        }
        _ => panic!("{events:?}: {error}"),
    }
}

#[tokio::test]
async fn a_connection_that_breaks_dooms_or_withdraws() {
    let (f, xa) = fixture().await;
    // Before the last message.
    let mut tx = xa.begin_in(xid(1)).await.expect("begins");
    sqlx::query(TAKE).execute(&mut tx).await.expect("updates");
    let session: i64 = sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)")
        .fetch_one(&mut tx)
        .await
        .expect("reads");
    f.execute(&format!("KILL CONNECTION {session}")).await;
    // It ends some time after the KILL.
    let ended = async {
        while sqlx::query_scalar::<_, i64>(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = ?",
        )
        .bind(session)
        .fetch_one(f.pool.plain())
        .await
        .expect("reads")
            > 0
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("ended");
    let error = tx.commit().await.expect_err("broken");
    assert_tells_the_truth(&f.registrar.take_events(), &error);
    // In the middle of it.
    f.execute(
        "CREATE TRIGGER die BEFORE INSERT ON accede_fence FOR EACH ROW \
         KILL CONNECTION CONNECTION_ID()",
    )
    .await;
    let error = prepare(&xa, 2, TAKE).await.expect_err("broken");
    assert_tells_the_truth(&f.registrar.take_events(), &error);
    f.execute("DROP TRIGGER die").await;
    for number in [1, 2] {
        roll_back(&f, number).await.expect("barred");
    }
    assert_eq!(prepared(&f).await, 0);
    assert_eq!(stock(&f).await, BEFORE);
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
        // One that was doomed may be on its way back.
        let rolled_back = async {
            while let Err(error) = roll_back(&f, number).await {
                assert!(matches!(error, PhaseTwoError::Failed { .. }), "{error}");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), rolled_back)
            .await
            .expect("rolled back or barred");
        assert_eq!(prepared(&f).await, 0, "after {times} polls");
        // No connection went back with an open transaction: the row is free.
        f.execute(
            "SET STATEMENT innodb_lock_wait_timeout = 5 FOR \
             UPDATE stock SET count = 10 WHERE product = 1",
        )
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
async fn a_cancelled_statement_leaves_only_rollback_or_a_savepoint() {
    let (f, xa) = fixture().await;
    let slow = "UPDATE stock SET count = 5 WHERE SLEEP(0.05) = 0";
    for back in [false, true] {
        let mut tx = xa.begin_in(xid(1)).await.expect("begins");
        for sql in [TAKE, "SAVEPOINT a"] {
            sqlx::raw_sql(sql).execute(&mut tx).await.expect(sql);
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
                sqlx::raw_sql(sql).execute(&mut tx).await.expect(sql);
            }
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
            assert_eq!(stock(&f).await, BEFORE);
        }
    }
    assert_eq!(stock(&f).await, [(1, 9), (2, 20)]);
}

#[tokio::test]
async fn a_deadlock_and_a_lock_time_out_leave_only_a_rollback_that_may_help() {
    let (f, xa) = fixture_with(|builder| builder.lock_wait(Duration::from_secs(1))).await;
    let mut holder = xa.begin_in(xid(1)).await.expect("begins");
    sqlx::query(TAKE).execute(&mut holder).await.expect("first");
    let mut waits = xa.begin_in(xid(2)).await.expect("begins");
    let error = sqlx::query(TAKE)
        .execute(&mut waits)
        .await
        .expect_err("locked");
    assert!(
        matches!(own(&error), Error::LocalLockTimedOut { .. }),
        "{error}"
    );
    let error = waits.commit().await.expect_err("only a rollback");
    assert!(matches!(own(&error), Error::Broken { .. }), "{error}");
    holder.rollback().await.expect("rolls back");

    let mut left = xa.begin_in(xid(3)).await.expect("begins");
    let mut right = xa.begin_in(xid(4)).await.expect("begins");
    let other = "UPDATE stock SET count = 0 WHERE product = 2";
    sqlx::query(TAKE).execute(&mut left).await.expect("first");
    sqlx::query(other).execute(&mut right).await.expect("first");
    let (one, two) = tokio::join!(
        sqlx::query(other).execute(&mut left),
        sqlx::query(TAKE).execute(&mut right)
    );
    let error = match (one, two) {
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => error,
        other => panic!("one of them gives way: {other:?}"),
    };
    assert!(is_retryable(&error), "{error}");
    left.rollback().await.expect("rolls back");
    right.rollback().await.expect("rolls back");
    assert_eq!(stock(&f).await, BEFORE);
    assert!(f.registrar.take_events().is_empty());
}
