//! Numbers that several transactions add to at the same time, and columns that others change.

use super::{Fixture, phase_two, xid};
use crate::{ColumnDelta, Error, store::finish::PhaseTwoError};

const STOCK: &str = "
CREATE TABLE stock (product INT PRIMARY KEY, count INT NOT NULL, sold BIGINT UNSIGNED DEFAULT 0,
  note VARCHAR(9) UNIQUE);
INSERT INTO stock VALUES (1, 10, 0, NULL), (2, 20, 0, NULL);";

async fn fixture() -> Fixture {
    Fixture::with(STOCK, |builder| {
        builder
            .escrow_column("stock", "count", 0..=100)
            .escrow_column("stock", "sold", 0..=i64::MAX)
    })
    .await
}

const TAKE: &str =
    "UPDATE stock SET Count = count - 3, sold = sold + 3 WHERE product = 1 AND count >= 3";

async fn rows(f: &Fixture) -> Vec<(i32, i32, u64)> {
    sqlx::query_as("SELECT product, count, sold FROM stock ORDER BY product")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable")
}

fn delta(column: &str, delta: i64, value: i64, upper: i64) -> ColumnDelta {
    ColumnDelta {
        column: column.into(),
        delta,
        value,
        lower: 0,
        upper,
    }
}

#[tokio::test]
async fn what_others_added_meanwhile_stays() {
    let f = fixture().await;
    f.branch(xid(1), &[TAKE]).await.expect("commit");
    let asked = f.registrar.last().expect("registered");
    assert!(asked.row_locks.is_empty(), "{asked:?}");
    let changed = [delta("count", -3, 7, 100), delta("sold", 3, 3, i64::MAX)];
    assert_eq!(asked.escrow_locks[0].columns, changed);
    // The coordinator lets others in; to this one here it is as if it were free.
    f.branch(xid(2), &[TAKE]).await.expect("commit");
    f.branch(
        xid(3),
        &["UPDATE stock SET count = count + 1 WHERE product = 1"],
    )
    .await
    .expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(rows(&f).await, [(1, 8, 3), (2, 20, 0)]);
    f.roll_back(xid(1), 1).await.expect("done before");
    f.roll_back(xid(3), 1).await.expect("undone");
    f.roll_back(xid(2), 1).await.expect("undone");
    assert_eq!(rows(&f).await, [(1, 10, 0), (2, 20, 0)]);
    // Back at the value it had before: it is undone all the same.
    f.registrar.release();
    f.branch(xid(4), &[TAKE]).await.expect("commit");
    f.execute("UPDATE stock SET count = count + 3, sold = sold - 3 WHERE product = 1")
        .await;
    f.execute("UPDATE stock SET sold = 5 WHERE product = 1")
        .await;
    f.roll_back(xid(4), 1).await.expect("undone");
    assert_eq!(rows(&f).await[0], (1, 13, 2));
}

/// `count - ?` and `count >= ?` mean the same only if both parameters are equal.
#[tokio::test]
async fn parameters_are_compared() {
    let f = fixture().await;
    let take = "UPDATE stock SET count = count - ? WHERE product = ? AND count >= ?";
    for (number, least, exclusive) in [(1, 3, 0), (2, 4, 1)] {
        let mut tx = f.pool.begin_in(xid(number)).await.expect("begin");
        let query = sqlx::query(take).bind(3).bind(1).bind(least);
        query.execute(&mut tx).await.expect("update");
        tx.commit().await.expect("commit");
        let asked = f.registrar.last().expect("registered");
        let locks = (asked.row_locks.len(), asked.escrow_locks.len());
        assert_eq!(locks, (exclusive, 1 - exclusive), "{least}");
    }
    assert_eq!(rows(&f).await[0], (1, 4, 0));
}

#[tokio::test]
async fn any_other_write_takes_the_row_for_itself() {
    for statements in [
        &["UPDATE stock SET count = 5 WHERE product = 1"][..],
        &["UPDATE stock SET count = count - 1 WHERE product = 1 AND count = 10"],
        &["UPDATE stock SET count = count - 1 ORDER BY count LIMIT 1"],
        &["UPDATE stock SET count = count - 1 WHERE product = 1 AND count >= 2"],
        &[TAKE, "UPDATE stock SET count = 5 WHERE product = 1"],
        &["UPDATE stock SET count = 5 WHERE product = 1", TAKE],
        &[TAKE, "DELETE FROM stock WHERE product = 1"],
    ] {
        let f = fixture().await;
        f.branch(xid(1), statements).await.expect("commit");
        let asked = f.registrar.last().expect("registered");
        let locks = (asked.row_locks.len(), asked.escrow_locks.len());
        assert_eq!(locks, (1, 0), "{statements:?}");
        f.roll_back(xid(1), 1).await.expect("undone");
        assert_eq!(rows(&f).await[0], (1, 10, 0), "{statements:?}");
    }
}

#[tokio::test]
async fn several_steps_are_one_change() {
    let f = fixture().await;
    let more = "UPDATE stock SET count = count + 1";
    f.branch(xid(1), &[TAKE, more, "SAVEPOINT s", TAKE, "ROLLBACK TO s"])
        .await
        .expect("commit");
    let asked = f.registrar.last().expect("registered");
    assert_eq!(asked.escrow_locks.len(), 2);
    let changed = [delta("count", -2, 8, 100), delta("sold", 3, 3, i64::MAX)];
    assert_eq!(asked.escrow_locks[0].columns, changed);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(rows(&f).await, [(1, 10, 0), (2, 20, 0)]);
}

#[tokio::test]
async fn the_bounds_hold() {
    let f = fixture().await;
    let error = f
        .branch(
            xid(1),
            &["UPDATE stock SET count = count + 91 WHERE product = 1"],
        )
        .await
        .expect_err("101");
    let error = Error::from_sqlx(&error).expect("ours");
    assert!(matches!(error, Error::OutOfBounds { value: 101, .. }));
    // What stands outside was not agreed on: the row is taken whole.
    f.execute("UPDATE stock SET count = 200 WHERE product = 1")
        .await;
    f.branch(
        xid(2),
        &["UPDATE stock SET count = count - 1 WHERE product = 1"],
    )
    .await
    .expect("commit");
    assert_eq!(f.registrar.last().expect("registered").row_locks.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_stuck() {
    for foreign in [
        "DELETE FROM stock WHERE product = 1",
        "UPDATE stock SET sold = 1 WHERE product = 1",
        "UPDATE stock SET count = 2147483647 WHERE product = 1",
    ] {
        let f = fixture().await;
        f.branch(xid(1), &[TAKE]).await.expect("commit");
        f.execute(foreign).await;
        let before = f.dump("stock").await;
        let result = f.roll_back(xid(1), 1).await;
        assert!(
            matches!(result, Err(PhaseTwoError::Stuck { .. })),
            "{foreign}: {result:?}"
        );
        assert_eq!(f.dump("stock").await, before, "{foreign}");
    }
}

#[tokio::test]
async fn a_column_that_is_not_fit_is_refused() {
    for (table, part) in [
        ("c VARCHAR(9)", "is no smallint, integer or bigint"),
        ("c INT ZEROFILL", "is filled up with zeros"),
        ("c INT UNIQUE", "is part of a key or a unique index"),
        (
            "c INT, d INT GENERATED ALWAYS AS (c + 1) STORED",
            "beside a generated column",
        ),
    ] {
        let sql =
            format!("CREATE TABLE t (id INT PRIMARY KEY, {table}); INSERT INTO t (id) VALUES (1)");
        let f = Fixture::with(&sql, |builder| builder.escrow_column("t", "c", 0..=9)).await;
        let error = f
            .branch(xid(1), &["UPDATE t SET c = NULL"])
            .await
            .expect_err("refused");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn columns_that_others_may_change_stay_as_they_are() {
    let f = Fixture::with(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, note VARCHAR(9), seen INT DEFAULT 0);
         INSERT INTO t VALUES (1, 10, 'a', 0), (2, 20, 'b', 0);
         CREATE TRIGGER seen BEFORE UPDATE ON t FOR EACH ROW SET NEW.seen = OLD.seen + 1;",
        |builder| {
            builder
                .allow_trigger("t", "seen")
                .merge_column("t", "note")
                .merge_column("t", "seen")
        },
    )
    .await;
    f.branch(xid(1), &["UPDATE t SET v = v - 1, note = 'mine'"])
        .await
        .expect("commit");
    f.execute("UPDATE t SET note = 'theirs' WHERE id = 1").await;
    f.roll_back(xid(1), 1).await.expect("merged");
    let found: Vec<(i32, String)> = sqlx::query_as("SELECT v, note FROM t ORDER BY id")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(found, [(10, "theirs".to_owned()), (20, "b".to_owned())]);
    // Any other column is somebody else's.
    f.registrar.release();
    f.branch(xid(2), &["UPDATE t SET v = 0 WHERE id = 1"])
        .await
        .expect("commit");
    f.execute("UPDATE t SET v = 7 WHERE id = 1").await;
    let key = super::BranchKey {
        xid: xid(2),
        branch: 1,
    };
    let result = phase_two::roll_back(&f.pool, key, true, super::UndoPolicy::Check).await;
    assert!(
        matches!(result, Err(PhaseTwoError::Stuck { .. })),
        "{result:?}"
    );
}
