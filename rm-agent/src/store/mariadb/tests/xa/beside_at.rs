//! XA on tables that AT branches write as well.

use accede_proto::v1::Mode;

use super::{
    super::{
        UndoPolicy, phase_two,
        registrar::{Answer, Event},
        xid,
    },
    BEFORE, TAKE, TAKEN, XaPool, commit, fences, fixture, key, own, prepared, roll_back, stock,
};
use crate::{Error, RefusalCode, error::is_retryable};

async fn prepare(xa: &XaPool, number: u64, sql: &'static str) -> Result<(), sqlx::Error> {
    let mut tx = xa.begin_beside_at_in(xid(number)).await?;
    sqlx::query(sql).execute(&mut tx).await?;
    tx.commit().await
}

#[tokio::test]
async fn a_branch_takes_the_locks_of_its_rows_and_is_prepared() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, "UPDATE stock SET count = count - 1")
        .await
        .expect("prepared");
    assert_eq!(
        f.registrar.take_events(),
        [Event::Registered(xid(1), 1, 2), Event::Done(xid(1), 1)]
    );
    assert_eq!(f.registrar.last().expect("registered").mode, Mode::Xa);
    assert_eq!(prepared(&f).await, 1);
    assert_eq!(stock(&f).await, BEFORE, "unseen");
    commit(&f, 1).await.expect("committed");
    assert_eq!(stock(&f).await, [(1, 9), (2, 19)]);
    assert_eq!(fences(&f).await, [1]);
    f.registrar.end(xid(1));

    prepare(&xa, 2, TAKE).await.expect("prepared");
    roll_back(&f, 2).await.expect("rolled back");
    assert_eq!(stock(&f).await, [(1, 9), (2, 19)]);
    assert_eq!(f.undo_rows().await, 0, "nothing was recorded");
}

#[tokio::test]
async fn what_an_undecided_at_branch_wrote_is_not_built_upon() {
    let (f, xa) = fixture().await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begins");
    sqlx::query(TAKE).execute(&mut tx).await.expect("taken");
    tx.commit().await.expect("locally committed");

    let error = prepare(&xa, 2, TAKE).await.expect_err("its row is held");
    let Error::Refused(refused) = own(&error) else {
        panic!("refused, not {error}");
    };
    assert_eq!(refused.code, RefusalCode::LockWaitTimedOut);
    assert_eq!(refused.holder, Some(xid(1)));
    assert_eq!(prepared(&f).await, 0);
    // Its own locks are gone, too: the undo finds the row free.
    phase_two::roll_back(&f.pool, key(1), true, UndoPolicy::Check)
        .await
        .expect("undone");
    f.registrar.end(xid(1));
    prepare(&xa, 2, TAKE).await.expect("prepared");
    commit(&f, 2).await.expect("committed");
    assert_eq!(stock(&f).await, TAKEN, "taken once");
}

#[tokio::test]
async fn a_passing_refusal_can_be_repeated() {
    let (f, xa) = fixture().await;
    let code = RefusalCode::HolderRollingBack;
    f.registrar.answer(Answer::Refuse(code));
    let error = prepare(&xa, 1, TAKE).await.expect_err("refused");
    assert!(is_retryable(&error), "{error}");
    prepare(&xa, 1, TAKE).await.expect("prepared");
}

#[tokio::test]
async fn what_at_refuses_is_refused_and_savepoints_take_locks_back() {
    let (f, xa) = fixture().await;
    let mut tx = xa.begin_beside_at_in(xid(1)).await.expect("begins");
    let error = sqlx::query("TRUNCATE heap").execute(&mut tx).await;
    let error = error.expect_err("its rows are not seen");
    assert!(matches!(own(&error), Error::Statement { .. }), "{error}");
    for sql in [
        "SAVEPOINT a",
        "UPDATE stock SET count = 0 WHERE product = 2",
        "ROLLBACK TO a",
        TAKE,
    ] {
        sqlx::query(sql).execute(&mut tx).await.expect(sql);
    }
    tx.commit().await.expect("prepared");
    let registered = Event::Registered(xid(1), 1, 1);
    assert_eq!(f.registrar.take_events().first(), Some(&registered));
    commit(&f, 1).await.expect("committed");
    assert_eq!(stock(&f).await, TAKEN);
}

#[tokio::test]
async fn a_branch_that_wrote_nothing_is_none_and_locks_last() {
    let (f, xa) = fixture().await;
    for sql in [
        "SELECT count FROM stock",
        "UPDATE stock SET count = 0 WHERE product = 77",
    ] {
        prepare(&xa, 1, sql).await.expect(sql);
        assert!(f.registrar.take_events().is_empty(), "{sql}");
    }
    prepare(&xa, 1, "SELECT * FROM stock WHERE product = 2 FOR UPDATE")
        .await
        .expect("prepared");
    assert_eq!(prepared(&f).await, 1);
    roll_back(&f, 1).await.expect("rolled back");
    // Outside of any global transaction it is a plain one.
    f.registrar.take_events();
    let mut tx = xa.begin_beside_at().await.expect("begins");
    sqlx::query(TAKE).execute(&mut tx).await.expect("taken");
    tx.commit().await.expect("committed");
    assert!(f.registrar.take_events().is_empty());
    assert_eq!(stock(&f).await, TAKEN);
}
