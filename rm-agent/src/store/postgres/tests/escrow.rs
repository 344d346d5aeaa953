//! Numbers that several transactions add to at the same time.

use super::{Fixture, xid};
use crate::{ColumnDelta, Error, store::postgres::phase_two::PhaseTwoError};

const STOCK: &str = "
CREATE TABLE stock (product int PRIMARY KEY, count int NOT NULL, sold bigint DEFAULT 0, note text);
INSERT INTO stock VALUES (1, 10), (2, 20);";

async fn fixture() -> Fixture {
    Fixture::with(STOCK, |builder| {
        builder
            .escrow_column("stock", "count", 0..=100)
            .escrow_column("public.stock", "sold", 0..=i64::MAX)
    })
    .await
}

const TAKE: &str =
    "UPDATE stock SET count = count - 3, sold = sold + 3 WHERE product = 1 AND count >= 3";
const ROWS: &str = "(SELECT product, count, sold, note FROM stock)";

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
    assert_eq!(f.dump(ROWS).await, ["(1,8,3,)", "(2,20,0,)"]);
    f.roll_back(xid(1), 1).await.expect("done before");
    f.roll_back(xid(3), 1).await.expect("undone");
    f.roll_back(xid(2), 1).await.expect("undone");
    assert_eq!(f.dump(ROWS).await, ["(1,10,0,)", "(2,20,0,)"]);
}

#[tokio::test]
async fn a_row_that_looks_undone_is_undone_all_the_same() {
    let f = fixture().await;
    f.branch(
        xid(1),
        &["UPDATE stock SET count = count - 3 WHERE product = 1"],
    )
    .await
    .expect("commit");
    f.branch(
        xid(2),
        &["UPDATE stock SET count = count + 3 WHERE product = 1"],
    )
    .await
    .expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump(ROWS).await[0], "(1,13,0,)");
}

#[tokio::test]
async fn any_other_write_takes_the_row_for_itself() {
    for statements in [
        &["UPDATE stock SET count = 5 WHERE product = 1"][..],
        &["UPDATE stock SET count = count - 1, note = 'x' WHERE product = 1"],
        &["UPDATE stock SET count = count - 1 WHERE product = 1 AND count = 10"],
        &[TAKE, "UPDATE stock SET note = 'x' WHERE product = 1"],
        &["UPDATE stock SET note = 'x' WHERE product = 1", TAKE],
        &[TAKE, "DELETE FROM stock WHERE product = 1"],
    ] {
        let f = fixture().await;
        f.branch(xid(1), statements).await.expect("commit");
        let asked = f.registrar.last().expect("registered");
        let locks = (asked.row_locks.len(), asked.escrow_locks.len());
        assert_eq!(locks, (1, 0), "{statements:?}");
        f.roll_back(xid(1), 1).await.expect("undone");
        assert_eq!(f.dump(ROWS).await[0], "(1,10,0,)", "{statements:?}");
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
    assert_eq!(f.dump(ROWS).await, ["(1,10,0,)", "(2,20,0,)"]);
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
    assert_eq!(
        error.to_string(),
        "public.stock.count would become 101, but may only be 0 to 100"
    );
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
    for (foreign, part) in [
        ("DELETE FROM stock WHERE product = 1", "now (no row)"),
        (
            "UPDATE stock SET count = 2147483647 WHERE product = 1",
            "now 2147483647",
        ),
    ] {
        let f = fixture().await;
        f.branch(xid(1), &[TAKE]).await.expect("commit");
        f.execute(foreign).await;
        let before = f.dump(ROWS).await;
        match f.roll_back(xid(1), 1).await {
            Err(PhaseTwoError::Stuck { difference, .. }) => {
                assert!(difference.contains(part), "{difference}");
            }
            other => panic!("expected stuck, got {other:?}"),
        }
        assert_eq!(f.dump(ROWS).await, before);
    }
}

#[tokio::test]
async fn a_column_that_is_not_fit_is_refused() {
    for (table, part) in [
        ("c text", "is no smallint, integer or bigint"),
        ("c int UNIQUE", "is part of a key or a unique index"),
        (
            "c int, d int GENERATED ALWAYS AS (c + 1) STORED",
            "beside a generated column",
        ),
    ] {
        let sql = format!("CREATE TABLE t (id int PRIMARY KEY, {table}); INSERT INTO t VALUES (1)");
        let f = Fixture::with(&sql, |builder| builder.escrow_column("t", "c", 0..=9)).await;
        let error = f
            .branch(xid(1), &["UPDATE t SET c = NULL"])
            .await
            .expect_err("refused");
        assert!(error.to_string().contains(part), "{error}");
    }
}
