//! Undo records that hold only what the branch changed, and what that means for changes of others.

use super::{Fixture, xid};
use crate::{
    at::codec::UndoRecord,
    store::finish::{PhaseTwoError, UndoPolicy},
};

const STOCK: &str = "
CREATE TABLE stock (product INT PRIMARY KEY, code VARCHAR(9) UNIQUE, count INT, price DECIMAL(8, 2),
  note VARCHAR(20), about VARCHAR(60) AS (CONCAT(COALESCE(note, ''), '=', count)) STORED);
INSERT INTO stock (product, code, count, price, note)
  VALUES (1, 'a', 10, 1.50, 'one'), (2, 'b', 20, 2.5, 'two'), (3, 'c', 30, 3, NULL);";

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

impl Fixture {
    /// What a query shows in its only column, as texts.
    async fn texts(&self, sql: &'static str) -> Vec<String> {
        sqlx::query_scalar(sql)
            .fetch_all(self.pool.plain())
            .await
            .expect("readable")
    }

    async fn stock(&self) -> Vec<String> {
        self.texts(
            "SELECT CONCAT_WS(',', product, code, count, price, COALESCE(note, ''), about)
             FROM stock ORDER BY product",
        )
        .await
    }

    /// The names of the columns of each part of the only record, and its bytes: plain and stored.
    async fn record(&self) -> (Vec<String>, usize, usize) {
        let stored: Vec<u8> = sqlx::query_scalar("SELECT rollback_info FROM undo_log")
            .fetch_one(self.pool.plain())
            .await
            .expect("one record");
        let record = UndoRecord::decode(&stored).expect("its own");
        let names = record.tables.iter().map(|table| {
            let names = table.columns.iter().map(|column| column.name.to_string());
            names.collect::<Vec<_>>().join(" ")
        });
        (names.collect(), record.encode().len(), stored.len())
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
    assert_eq!(f.record().await.0, ["product code count price"]);
    f.execute("UPDATE stock SET note = 'theirs'").await;
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(
        f.stock().await,
        [
            "1,a,10,1.50,theirs,theirs=10",
            "2,b,20,2.50,theirs,theirs=20",
            "3,c,30,3.00,theirs,theirs=30",
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
        f.execute(&repair).await;
        assert_eq!(f.stock().await[0], "1,a,10,1.50,n,n=10");
        f.roll_back(xid(1), 1).await.expect("as before");
    }
}

#[tokio::test]
async fn whole_images_find_every_change_of_others() {
    let f = Fixture::with(STOCK, |builder| builder.full_images()).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.execute("UPDATE stock SET note = 'theirs' WHERE product = 1")
        .await;
    let (_, difference, _) = stuck(f.roll_back(xid(1), 1).await);
    assert!(
        difference.contains("after the branch one, now theirs"),
        "{difference}"
    );
    f.execute("DELETE FROM stock WHERE product = 1").await;
    let (_, _, repair) = stuck(f.roll_back(xid(1), 1).await);
    f.execute(&repair).await;
    assert_eq!(f.stock().await[0], "1,a,10,1.50,one,one=10");
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
    assert_eq!(f.stock().await.len(), 2);
}

/// They leave for a moment so that the others can pass, and come back with all that they held.
#[tokio::test]
async fn rows_that_exchanged_unique_values_keep_the_rest() {
    let f = Fixture::new(
        "CREATE TABLE seats (id INT PRIMARY KEY, seat INT UNIQUE, note TEXT, raw BLOB, ratio DOUBLE,
           bits BIT(9), at TIMESTAMP(6) NULL ON UPDATE CURRENT_TIMESTAMP(6), point GEOMETRY);
         INSERT INTO seats SELECT seq, seq, CONCAT('note ', seq), UNHEX('00ff27'), 1 / 3, b'101',
           '2026-01-01 00:00:00.5', ST_GeomFromText('POINT(1 2)') FROM seq_1_to_3;",
    )
    .await;
    let before = f.dump("seats").await;
    f.branch(
        xid(1),
        &[
            "UPDATE seats SET seat = -seat, at = at",
            "UPDATE seats SET seat = (id % 3) + 1, at = at",
        ],
    )
    .await
    .expect("commit");
    assert_eq!(f.record().await.0, ["id seat at"]);
    f.execute("ALTER TABLE seats ADD COLUMN later TEXT").await;
    f.execute("UPDATE seats SET later = CONCAT('l', id), at = at")
        .await;
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(
        f.texts("SELECT later FROM seats ORDER BY id").await,
        ["l1", "l2", "l3"]
    );
    f.execute("ALTER TABLE seats DROP COLUMN later").await;
    assert_eq!(f.dump("seats").await, before);
}

const TOUCHED: &str = "
CREATE TABLE t (id INT PRIMARY KEY, v INT, w INT,
  touched TIMESTAMP(6) NULL DEFAULT '2026-01-01' ON UPDATE CURRENT_TIMESTAMP(6),
  again DATETIME DEFAULT '2026-01-02' ON UPDATE NOW());
INSERT INTO t (id, v, w) VALUES (1, 1, 1), (2, 2, 2);";

#[tokio::test]
async fn what_an_update_sets_by_itself_comes_back_too() {
    let f = Fixture::new(TOUCHED).await;
    let before = f.dump("t").await;
    f.branch(xid(1), &["UPDATE t SET v = v + 1"])
        .await
        .expect("commit");
    assert_eq!(f.record().await.0, ["id v touched again"]);
    assert_ne!(f.dump("t").await, before);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("t").await, before);
    // The branch itself left them as they were.
    f.registrar.release();
    f.branch(
        xid(2),
        &["UPDATE t SET v = v + 1, touched = touched, again = again"],
    )
    .await
    .expect("commit");
    f.execute("UPDATE t SET w = 9, touched = touched, again = again WHERE id = 1")
        .await;
    f.roll_back(xid(2), 1).await.expect("undone");
    f.execute("UPDATE t SET w = 1, touched = touched, again = again WHERE id = 1")
        .await;
    assert_eq!(f.dump("t").await, before);
}

#[tokio::test]
async fn a_repair_leaves_what_an_update_sets_by_itself() {
    let f = Fixture::new(TOUCHED).await;
    let before = f.dump("t").await;
    f.branch(
        xid(1),
        &["UPDATE t SET v = 7, touched = touched, again = again WHERE id = 1"],
    )
    .await
    .expect("commit");
    f.execute("UPDATE t SET v = 8, touched = touched, again = again WHERE id = 1")
        .await;
    let (_, _, repair) = stuck(f.roll_back(xid(1), 1).await);
    f.execute(&repair).await;
    assert_eq!(f.dump("t").await, before);
}

/// The record does not know it.
#[tokio::test]
async fn an_undo_sets_no_column_that_came_later() {
    let f =
        Fixture::new("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1);")
            .await;
    f.branch(xid(1), &["UPDATE t SET v = 2"])
        .await
        .expect("commit");
    f.execute(
        "ALTER TABLE t ADD COLUMN touched TIMESTAMP(6) NULL DEFAULT '2026-01-01'
           ON UPDATE CURRENT_TIMESTAMP(6)",
    )
    .await;
    f.roll_back(xid(1), 1).await.expect("undone");
    let rows = f.texts("SELECT CONCAT(v, ' ', touched) FROM t").await;
    assert_eq!(rows, ["1 2026-01-01 00:00:00.000000"]);
}

const TRIGGER: &str = "CREATE TRIGGER touch BEFORE UPDATE ON stock FOR EACH ROW
  SET NEW.note = 'touched'";

#[tokio::test]
async fn what_a_trigger_changed_is_recorded_too() {
    let f = Fixture::with(STOCK, |builder| builder.allow_trigger("stock", "touch")).await;
    f.execute(TRIGGER).await;
    let before = f.dump("stock").await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    assert_eq!(f.record().await.0, ["product code count note"]);
    f.execute("DROP TRIGGER touch").await;
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

/// In MariaDB they need no unique index.
#[tokio::test]
async fn what_foreign_keys_reference_is_recorded() {
    let f = Fixture::new(
        "CREATE TABLE parent (id INT PRIMARY KEY, code INT UNIQUE, grp INT, note INT, KEY (grp));
         CREATE TABLE child (id INT PRIMARY KEY, grp INT,
           FOREIGN KEY (grp) REFERENCES parent (grp) ON DELETE CASCADE);
         INSERT INTO parent VALUES (1, 1, 1, 1), (2, 2, 2, 2);
         INSERT INTO child VALUES (7, 1), (8, 2);",
    )
    .await;
    f.branch(
        xid(1),
        &[
            "UPDATE parent SET code = -code",
            "UPDATE parent SET code = 3 - id",
        ],
    )
    .await
    .expect("commit");
    assert_eq!(f.record().await.0, ["id code grp"]);
    // Neither can leave for the other: its child would go with it.
    let dirty = f.dump("parent").await;
    let (reason, ..) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("Duplicate entry"), "{reason}");
    assert_eq!(f.dump("parent").await, dirty);
    assert_eq!(f.dump("child").await.len(), 2);
}

#[tokio::test]
async fn an_undo_changes_no_rows_that_came_to_reference_its_row() {
    let f = Fixture::new(
        "CREATE TABLE parent (id INT PRIMARY KEY, code INT UNIQUE); INSERT INTO parent VALUES (1, 1);",
    )
    .await;
    f.branch(xid(1), &["UPDATE parent SET code = 2"])
        .await
        .expect("commit");
    f.pool.planner().forget();
    f.execute(
        "CREATE TABLE child (id INT PRIMARY KEY, code INT,
           FOREIGN KEY (code) REFERENCES parent (code) ON UPDATE CASCADE);
         INSERT INTO child VALUES (7, 2);",
    )
    .await;
    let (reason, ..) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("when it is updated"), "{reason}");
    f.execute("DELETE FROM child").await;
    f.roll_back(xid(1), 1).await.expect("undone");
}

/// The numbers in docs/at.md.
#[tokio::test]
async fn a_wide_row_leaves_a_small_record() {
    let columns: Vec<String> = (0..40)
        .map(|i| format!("c{i} VARCHAR(100) DEFAULT REPEAT('x', 100)"))
        .collect();
    let setup = format!(
        "CREATE TABLE wide (id INT PRIMARY KEY, count INT DEFAULT 0, {});
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
        let (_, plain, stored) = f.record().await;
        // It holds the name of the database, too.
        bytes.push(plain - f.pool.database().len());
        assert_eq!(stored < plain, full, "only the whole one is compressed");
        f.roll_back(xid(1), 1).await.expect("undone");
    }
    assert_eq!(bytes, [6_090, 60], "full, narrow");
}
