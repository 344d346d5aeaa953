//! Undo of rows that others changed meanwhile.

use super::{Fixture, xid};
use crate::store::postgres::phase_two::PhaseTwoError;

const STOCK: &str = "
CREATE TABLE stock (product int PRIMARY KEY, count int, note text, seen int DEFAULT 0,
  about text GENERATED ALWAYS AS (coalesce(note, '') || count) STORED);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c');
CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN NEW.seen = OLD.seen + 1; RETURN NEW; END';
CREATE TRIGGER seen BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION seen();";

async fn fixture() -> Fixture {
    Fixture::with(STOCK, |builder| {
        builder
            .allow_trigger("stock", "seen")
            .merge_column("public.stock", "note")
            .merge_column("stock", "seen")
    })
    .await
}

const ROWS: &str = "(SELECT product, count, note FROM stock)";

#[tokio::test]
async fn listed_columns_stay_as_others_left_them() {
    let f = fixture().await;
    f.branch(xid(1), &["UPDATE stock SET count = count - 1"])
        .await
        .expect("commit");
    f.execute("UPDATE stock SET note = 'new' WHERE product = 1")
        .await;
    f.execute("UPDATE stock SET note = NULL WHERE product = 2")
        .await;
    f.roll_back(xid(1), 1).await.expect("merged");
    assert_eq!(f.dump(ROWS).await, ["(1,10,new)", "(2,20,)", "(3,30,c)"]);
    // What the branch wrote there went with their change.
    f.registrar.release();
    f.branch(
        xid(2),
        &["UPDATE stock SET count = 0, note = 'mine' WHERE product = 1"],
    )
    .await
    .expect("commit");
    f.execute("UPDATE stock SET note = 'theirs' WHERE product = 1")
        .await;
    f.roll_back(xid(2), 1).await.expect("merged");
    assert_eq!(f.dump(ROWS).await[0], "(1,10,theirs)");
    f.execute("UPDATE stock SET note = 'new' WHERE product = 1")
        .await;
    let about = f.dump("(SELECT about FROM stock)").await;
    assert_eq!(about, ["(20)", "(c30)", "(new10)"]);
}

#[tokio::test]
async fn anything_else_is_stuck_and_never_overwritten() {
    let cases = [
        // A column that is not listed.
        (
            "UPDATE stock SET count = 1 WHERE product = 1",
            "UPDATE stock SET count = 5 WHERE product = 1",
            "count: before 10, after the branch 1, now 5",
        ),
        // A row that others deleted, or made where one was deleted.
        (
            "UPDATE stock SET count = 1 WHERE product = 1",
            "DELETE FROM stock WHERE product = 1",
            "now (no row)",
        ),
        (
            "DELETE FROM stock WHERE product = 1",
            "INSERT INTO stock VALUES (1, 10, 'z')",
            "note: before a, after the branch (no row), now z",
        ),
        // Deleting the row would lose what others wrote.
        (
            "INSERT INTO stock VALUES (4, 40, 'd')",
            "UPDATE stock SET note = 'kept' WHERE product = 4",
            "now kept",
        ),
        // Where the branch moved a row to.
        (
            "UPDATE stock SET product = 7 WHERE product = 1",
            "UPDATE stock SET note = 'moved' WHERE product = 7",
            "now moved",
        ),
    ];
    for (branch, others, shown) in cases {
        let f = fixture().await;
        f.branch(
            xid(1),
            &[branch, "UPDATE stock SET count = 0 WHERE product = 3"],
        )
        .await
        .expect("commit");
        f.execute(others).await;
        f.execute("UPDATE stock SET note = 'also' WHERE product = 3")
            .await;
        let dirty = f.dump("stock").await;
        match f.roll_back(xid(1), 1).await {
            Err(PhaseTwoError::Stuck {
                difference,
                repair_statement,
                ..
            }) => {
                assert!(difference.contains(shown), "{branch}: {difference}");
                assert!(!difference.contains("also"), "row 3 is fine: {difference}");
                assert_eq!(
                    f.dump("stock").await,
                    dirty,
                    "{branch}: nothing was touched"
                );
                // The prepared statement keeps what others may change.
                f.execute(&format!("BEGIN; {repair_statement} COMMIT"))
                    .await;
                assert!(f.dump(ROWS).await.contains(&"(3,30,also)".to_owned()));
            }
            other => panic!("{branch}: {other:?}"),
        }
    }
}
