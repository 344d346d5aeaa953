//! Undo records that hold only what the branch changed, and what that means for changes of others.

use super::{Fixture, xid};
use crate::store::finish::{PhaseTwoError, UndoPolicy};

const STOCK: &str = "
CREATE TABLE stock (product int PRIMARY KEY, code text UNIQUE, count int, price numeric, note text,
  about text GENERATED ALWAYS AS (coalesce(note, '') || '=' || count) STORED);
INSERT INTO stock VALUES (1, 'a', 10, 1.50, 'one'), (2, 'b', 20, 2.5, 'two'), (3, 'c', 30, 3, NULL);";

fn stuck(result: Result<(), PhaseTwoError>) -> (String, String, String) {
    match result {
        Err(PhaseTwoError::Stuck {
            reason,
            difference,
            repair_statement,
        }) => (reason, difference, repair_statement),
        other => panic!("not stuck: {other:?}"),
    }
}

#[tokio::test]
async fn what_others_wrote_beside_it_stays() {
    let f = Fixture::new(STOCK).await;
    f.branch(
        xid(1),
        &[
            "UPDATE stock SET count = count - 1 WHERE product < 3",
            "UPDATE stock SET price = price + 1 WHERE product = 2",
            "UPDATE stock SET count = count - 1 WHERE product = 2",
        ],
    )
    .await
    .expect("commit");
    // Of row 1 the branch did not change the price, but of another in the same table.
    f.execute("UPDATE stock SET note = 'theirs'").await;
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(
        f.dump("stock").await,
        [
            "(1,a,10,1.50,theirs,theirs=10)",
            "(2,b,20,2.5,theirs,theirs=20)",
            "(3,c,30,3,theirs,theirs=30)",
        ]
    );
}

#[tokio::test]
async fn what_others_wrote_over_it_is_stuck() {
    for column in ["count = 5", "code = 'z'"] {
        let f = Fixture::new(STOCK).await;
        f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
            .await
            .expect("commit");
        f.execute(&format!(
            "UPDATE stock SET note = 'n', {column} WHERE product = 1"
        ))
        .await;
        let dirty = f.dump("stock").await;
        let (_, difference, repair) = stuck(f.roll_back(xid(1), 1).await);
        assert!(difference.contains("now "), "{difference}");
        assert!(!difference.contains("note"), "{difference}");
        assert_eq!(f.dump("stock").await, dirty);
        f.execute(&format!("BEGIN; {repair} COMMIT")).await;
        assert_eq!(f.dump("stock").await[0], "(1,a,10,1.50,n,n=10)");
        f.roll_back(xid(1), 1).await.expect("as before");
    }
}

/// As before there were narrow records.
#[tokio::test]
async fn whole_images_find_every_change_of_others() {
    let f = Fixture::with(STOCK, |builder| builder.full_images()).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    let before = "(1,a,10,1.50,one,one=10)";
    f.execute("UPDATE stock SET note = 'theirs' WHERE product = 1")
        .await;
    let (_, difference, _) = stuck(f.roll_back(xid(1), 1).await);
    assert!(
        difference.contains("after the branch one, now theirs"),
        "{difference}"
    );
    f.execute("DELETE FROM stock WHERE product = 1").await;
    let (_, _, repair) = stuck(f.roll_back(xid(1), 1).await);
    f.execute(&format!("BEGIN; {repair} COMMIT")).await;
    assert_eq!(f.dump("stock").await[0], before, "the whole row is known");
}

#[tokio::test]
async fn a_row_that_others_deleted_is_not_made_up() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.execute("DELETE FROM stock WHERE product = 1").await;
    let (_, difference, repair) = stuck(f.roll_back(xid(1), 1).await);
    assert!(difference.contains("are lost with the row"), "{difference}");
    assert_eq!(repair, "", "no statement could restore them");
    let (reason, ..) = stuck(f.roll_back_by(xid(1), 1, UndoPolicy::Forced).await);
    assert!(reason.contains("only some of its columns"), "{reason}");
    f.roll_back_by(xid(1), 1, UndoPolicy::AcceptCurrent)
        .await
        .expect("accepted");
    assert_eq!(f.dump("stock").await.len(), 2);
}

/// They leave for a moment so that the others can pass, and come back with all that they held.
#[tokio::test]
async fn rows_that_exchanged_unique_values_keep_the_rest() {
    let f = Fixture::new(
        "CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE, span int4range, note text,
           spans int4multirange, body xml, EXCLUDE USING gist (span WITH &&));
         INSERT INTO seats SELECT i, i, int4range(i, i + 1), 'note ' || i, '{[1,3),[5,9)}',
           '<?xml version=\"1.0\"?><a/>' FROM generate_series(1, 3) i;",
    )
    .await;
    let before = f.dump("seats").await;
    f.branch(
        xid(1),
        &[
            "UPDATE seats SET seat = -seat, span = int4range(id + 100, id + 101)",
            "UPDATE seats SET seat = (id % 3) + 1, span = int4range(id % 3 + 1, id % 3 + 2)",
        ],
    )
    .await
    .expect("commit");
    f.execute("ALTER TABLE seats ADD COLUMN later text").await;
    f.execute("UPDATE seats SET later = 'l' || id, note = note || '!'")
        .await;
    f.roll_back(xid(1), 1).await.expect("undone");
    f.execute("UPDATE seats SET note = left(note, -1)").await;
    let later = f.dump("(SELECT later FROM seats)").await;
    assert_eq!(later, ["(l1)", "(l2)", "(l3)"]);
    f.execute("ALTER TABLE seats DROP COLUMN later").await;
    assert_eq!(f.dump("seats").await, before);
}

const TRIGGER: &str = "
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN NEW.note = ''touched''; RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION touch();";

#[tokio::test]
async fn what_a_trigger_changed_is_recorded_too() {
    let f = Fixture::with(&format!("{STOCK}{TRIGGER}"), |builder| {
        builder.allow_trigger("stock", "touch")
    })
    .await;
    let before = f.dump("stock").await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.execute("ALTER TABLE stock DISABLE TRIGGER touch").await;
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

/// It changes columns that the record does not hold.
#[tokio::test]
async fn a_trigger_that_meddles_with_the_undo_is_noticed() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.execute(TRIGGER).await;
    let dirty = f.dump("stock").await;
    let (reason, ..) = stuck(f.roll_back(xid(1), 1).await);
    assert!(
        reason.contains("a trigger or a generated column"),
        "{reason}"
    );
    assert_eq!(f.dump("stock").await, dirty);
}

/// The numbers in docs/at.md.
#[tokio::test]
async fn a_wide_row_leaves_a_small_record() {
    let columns: Vec<String> = (0..40)
        .map(|i| format!("c{i} text DEFAULT repeat('x', 100)"))
        .collect();
    let setup = format!(
        "CREATE TABLE wide (id int PRIMARY KEY, count int DEFAULT 0, {});
         INSERT INTO wide (id) VALUES (1);",
        columns.join(", ")
    );
    let mut bytes = Vec::new();
    for full in [true, false] {
        let f = Fixture::with(&setup, |builder| match full {
            true => builder.full_images(),
            false => builder,
        })
        .await;
        f.branch(xid(1), &["UPDATE wide SET count = count - 1 WHERE id = 1"])
            .await
            .expect("commit");
        // The whole one is compressed, and its columns are all alike.
        let stored: i32 = sqlx::query_scalar("SELECT octet_length(rollback_info) FROM undo_log")
            .fetch_one(f.pool.plain())
            .await
            .expect("one record");
        let record: Vec<u8> = sqlx::query_scalar("SELECT rollback_info FROM undo_log")
            .fetch_one(f.pool.plain())
            .await
            .expect("one record");
        let plain = crate::at::codec::UndoRecord::decode(&record)
            .expect("its own")
            .encode()
            .len();
        bytes.push((plain, stored));
        f.roll_back(xid(1), 1).await.expect("undone");
    }
    assert_eq!(
        bytes,
        [(4_320, 246), (50, 50)],
        "full, narrow: bytes, bytes stored"
    );
}
