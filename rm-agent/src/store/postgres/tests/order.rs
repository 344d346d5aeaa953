//! Undo in whatever order the constraints allow.

use super::{Fixture, xid};
use crate::store::postgres::phase_two::PhaseTwoError;

async fn is_undone(setup: &str, tables: &[&str], statements: &[&str]) {
    let f = Fixture::new(setup).await;
    let mut before = Vec::new();
    for table in tables {
        before.push(f.dump(table).await);
    }
    f.branch(xid(1), statements).await.expect("commit");
    f.roll_back(xid(1), 1)
        .await
        .unwrap_or_else(|error| panic!("{statements:?}: {error:?}"));
    for (table, before) in tables.iter().zip(before) {
        assert_eq!(f.dump(table).await, before, "{statements:?}");
    }
}

const CODES: &str = "
CREATE TABLE codes (id int PRIMARY KEY, code int UNIQUE, v int);
INSERT INTO codes SELECT i, i FROM generate_series(1, 5) i;";

#[tokio::test]
async fn unique_values_may_have_changed_places() {
    let cases: [&[&str]; 4] = [
        // Two rows exchange theirs.
        &[
            "UPDATE codes SET code = 9 WHERE id = 1",
            "UPDATE codes SET code = 1 WHERE id = 2",
            "UPDATE codes SET code = 2 WHERE id = 1",
        ],
        // All of them turn round.
        &[
            "UPDATE codes SET code = code + 10",
            "UPDATE codes SET code = 1 + (code - 10) % 5",
        ],
        // A value comes from a row that is gone, and goes to a new one.
        &[
            "DELETE FROM codes WHERE id = 1",
            "INSERT INTO codes VALUES (6, 1)",
            "UPDATE codes SET v = 1",
            "UPDATE codes SET code = 7 WHERE id = 6",
            "UPDATE codes SET code = 1 WHERE id = 2",
        ],
        // Keys move on, each to the place of the next.
        &[
            "UPDATE codes SET id = id + 100",
            "UPDATE codes SET id = id - 99",
            "UPDATE codes SET id = -id, code = -code WHERE id = 3",
        ],
    ];
    for statements in cases {
        is_undone(CODES, &["codes"], statements).await;
    }
}

const FAMILY: &str = "
CREATE TABLE parent (id int PRIMARY KEY, v int);
CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent, v int);
INSERT INTO parent VALUES (1, 0), (2, 0);
INSERT INTO child VALUES (1, 1, 0), (2, 2, 0);";

#[tokio::test]
async fn foreign_keys_hold_all_the_way() {
    let cases: [&[&str]; 4] = [
        // The parent changed after its child came.
        &[
            "INSERT INTO parent VALUES (3, 0)",
            "INSERT INTO child VALUES (3, 3, 0)",
            "UPDATE parent SET v = 1 WHERE id = 3",
        ],
        // The child changed once more after its old parent had gone.
        &[
            "UPDATE child SET p = 1 WHERE id = 2",
            "DELETE FROM parent WHERE id = 2",
            "UPDATE child SET v = 7",
        ],
        &[
            "DELETE FROM child WHERE id = 1",
            "DELETE FROM parent WHERE id = 1",
            "INSERT INTO parent VALUES (1, 5)",
            "INSERT INTO child VALUES (1, 1, 5)",
        ],
        // The parent's key changes between two children.
        &[
            "DELETE FROM child WHERE id = 2",
            "UPDATE parent SET id = 5 WHERE id = 2",
            "INSERT INTO child VALUES (2, 5, 0)",
        ],
    ];
    for statements in cases {
        is_undone(FAMILY, &["parent", "child"], statements).await;
    }
}

/// 5 and 5.0 are one key to the database, which foreign keys hold on to.
#[tokio::test]
async fn a_key_may_be_written_differently() {
    let setup = "CREATE TABLE parent (id numeric PRIMARY KEY, v int);
                 CREATE TABLE child (p numeric REFERENCES parent);
                 INSERT INTO parent VALUES (5.0, 1), (7.00, 2);
                 INSERT INTO child VALUES (5), (7);";
    let cases: [&[&str]; 3] = [
        &["UPDATE parent SET id = 5, v = 3 WHERE id = 5"],
        &[
            "UPDATE parent SET id = trim_scale(id)",
            "UPDATE parent SET v = v + 1",
        ],
        &[
            "UPDATE parent SET id = 5.000 WHERE v = 1",
            "UPDATE parent SET id = 5.0, v = 9 WHERE v = 1",
        ],
    ];
    for statements in cases {
        is_undone(setup, &["parent", "child"], statements).await;
    }
}

/// Values that changed places among rows that are referenced cannot be parked.
#[tokio::test]
async fn what_cannot_be_put_in_order_is_stuck() {
    let f = Fixture::new(CODES).await;
    f.execute("CREATE TABLE uses (c int REFERENCES codes); INSERT INTO uses SELECT id FROM codes")
        .await;
    let before = f.dump("codes").await;
    f.branch(
        xid(1),
        &[
            "UPDATE codes SET code = 9 WHERE id = 1",
            "UPDATE codes SET code = 1 WHERE id = 2",
            "UPDATE codes SET code = 2 WHERE id = 1",
        ],
    )
    .await
    .expect("commit");
    let after = f.dump("codes").await;
    match f.roll_back(xid(1), 1).await {
        Err(PhaseTwoError::Stuck { reason, .. }) => {
            assert!(reason.contains("refuses to undo"), "{reason}");
        }
        other => panic!("not stuck: {other:?}"),
    }
    assert_eq!(f.dump("codes").await, after, "nothing was undone");
    f.execute("TRUNCATE uses").await;
    f.roll_back(xid(1), 1).await.expect("free to move");
    assert_eq!(f.dump("codes").await, before);
}
