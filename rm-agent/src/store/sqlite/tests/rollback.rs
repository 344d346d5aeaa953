//! What a rollback meets.

use super::{BranchKey, Fixture, PhaseTwoError, UndoPolicy, phase_two, xid};
use crate::store::finish::Ledger;
use crate::store::finish::LeftoverKind;

const STOCK: &str = "
CREATE TABLE stock (product INTEGER PRIMARY KEY, count INT NOT NULL, code TEXT UNIQUE);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE child (id INTEGER PRIMARY KEY, p INT REFERENCES parent (id) ON DELETE CASCADE);";

fn stuck(result: Result<(), PhaseTwoError>) -> (String, String, String) {
    match result {
        Err(PhaseTwoError::Stuck {
            reason,
            difference,
            repair_statement,
        }) => (reason, difference, repair_statement),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_branch_is_undone_once() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.branch(
        xid(1),
        &[
            "UPDATE stock SET count = count - 1 WHERE product < 3",
            "DELETE FROM stock WHERE product = 2",
            "INSERT INTO stock VALUES (9, 9, 'b')",
            "UPDATE stock SET code = 'z' WHERE product = 1",
            "INSERT INTO stock VALUES (2, 1, 'a')",
        ],
    )
    .await
    .expect("commit");
    assert_ne!(f.dump("stock").await, before);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
    f.execute("UPDATE stock SET count = 99").await;
    let now = f.dump("stock").await;
    f.roll_back(xid(1), 1)
        .await
        .expect("the marker says that it was done");
    assert_eq!(f.dump("stock").await, now);
    assert_eq!(f.undo_rows().await, 1);
}

#[tokio::test]
async fn commits_delete_the_records() {
    let f = Fixture::new(STOCK).await;
    for number in 1..=3 {
        f.registrar.release();
        f.branch(xid(number), &["UPDATE stock SET count = count + 1"])
            .await
            .expect("commit");
    }
    let keys: Vec<BranchKey> = (1..=3)
        .map(|n| BranchKey {
            xid: xid(n),
            branch: 1,
        })
        .collect();
    phase_two::delete_undo(&f.pool, &keys)
        .await
        .expect("deleted");
    assert_eq!(f.undo_rows().await, 0);
    phase_two::delete_undo(&f.pool, &keys)
        .await
        .expect("a repeat does nothing");
}

#[tokio::test]
async fn foreign_writers_are_found_and_never_overwritten() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.branch(
        xid(1),
        &["UPDATE stock SET count = 0, code = 'it''s' WHERE product <= 2"],
    )
    .await
    .expect_err("two rows cannot have one code");
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product <= 2"])
        .await
        .expect("commit");
    f.execute("UPDATE stock SET count = 5, code = 'foreign' WHERE product = 1")
        .await;
    let (reason, difference, repair) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("takes no row locks"), "{reason}");
    assert!(
        difference.contains("count: before 10, after the branch 0, now 5")
            && difference.contains("product=1"),
        "{difference}"
    );
    let code: String = sqlx::query_scalar("SELECT code FROM stock WHERE product = 1")
        .fetch_one(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(code, "foreign");
    // The prepared statement does what it says.
    f.execute(&repair).await;
    assert_eq!(f.dump("stock").await, before);
    f.roll_back(xid(1), 1).await.expect("they are as before");
}

#[tokio::test]
async fn an_operator_may_force_or_accept() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.branch(xid(1), &["DELETE FROM stock WHERE product = 3"])
        .await
        .expect("commit");
    f.execute("INSERT INTO stock VALUES (3, 1, 'new')").await;
    stuck(f.roll_back(xid(1), 1).await);
    f.roll_back_by(xid(1), 1, UndoPolicy::Forced)
        .await
        .expect("forced");
    assert_eq!(f.dump("stock").await, before);

    f.registrar.release();
    f.branch(xid(2), &["UPDATE stock SET count = 1 WHERE product = 3"])
        .await
        .expect("commit");
    f.execute("UPDATE stock SET count = 2 WHERE product = 3")
        .await;
    let now = f.dump("stock").await;
    f.roll_back_by(xid(2), 1, UndoPolicy::AcceptCurrent)
        .await
        .expect("accepted");
    assert_eq!(f.dump("stock").await, now);
}

#[tokio::test]
async fn a_lost_record_and_a_changed_table_are_stuck() {
    let f = Fixture::new(STOCK).await;
    let (reason, ..) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("its undo record is gone"), "{reason}");
    assert_eq!(f.undo_rows().await, 0);
    f.branch(xid(2), &["UPDATE stock SET count = 1 WHERE product = 1"])
        .await
        .expect("commit");
    f.execute("ALTER TABLE stock RENAME count TO number").await;
    let (reason, ..) = stuck(f.roll_back(xid(2), 1).await);
    assert!(reason.contains("dropped or renamed"), "{reason}");
}

#[tokio::test]
async fn rows_that_others_attached_are_not_cascaded_away() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["INSERT INTO parent VALUES (1)"])
        .await
        .expect("commit");
    f.execute("INSERT INTO child VALUES (7, 1)").await;
    let (reason, ..) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("reference a row"), "{reason}");
    assert_eq!(f.dump("child").await.len(), 1);
    f.execute("DELETE FROM child").await;
    f.roll_back(xid(1), 1).await.expect("undone");
    assert!(f.dump("parent").await.is_empty());
}

#[tokio::test]
async fn listed_columns_keep_what_others_wrote() {
    let f = Fixture::with(STOCK, |builder| builder.merge_column("stock", "code")).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.execute("UPDATE stock SET code = 'theirs' WHERE product = 1")
        .await;
    f.roll_back(xid(1), 1).await.expect("merged");
    let row: (i32, String) = sqlx::query_as("SELECT count, code FROM stock WHERE product = 1")
        .fetch_one(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(row, (10, "theirs".to_owned()));
}

#[tokio::test]
async fn two_rollbacks_at_once_and_many_branches_do_not_deadlock() {
    let f = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INT);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
         INSERT INTO t SELECT i, 0 FROM n;",
    )
    .await;
    let before = f.dump("t").await;
    for number in 1..=40_u64 {
        let sql = format!("UPDATE t SET v = 1 WHERE id = {number}");
        f.branch(xid(number), &[&sql]).await.expect("commit");
    }
    let all = (1..=40).flat_map(|number| [number, number]).map(|number| {
        let f = &f;
        async move { f.roll_back(xid(number), 1).await }
    });
    for result in futures_util::future::join_all(all).await {
        result.expect("undone, or done by the other one");
    }
    assert_eq!(f.dump("t").await, before);
}

#[tokio::test]
async fn leftovers_are_listed_and_markers_purged() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.branch(xid(2), &["UPDATE stock SET count = 0 WHERE product = 2"])
        .await
        .expect("commit");
    f.roll_back(xid(2), 1).await.expect("undone");
    let list = |after| {
        phase_two::leftovers(
            f.pool.phase_two(),
            Ledger::UNDO,
            std::time::Duration::ZERO,
            after,
            10,
        )
    };
    let found = list(None).await.expect("listed");
    let kinds: Vec<_> = found.iter().map(|l| (l.key.xid, l.kind)).collect();
    assert_eq!(
        kinds,
        [(xid(1), LeftoverKind::Undo), (xid(2), LeftoverKind::Marker)]
    );
    assert_eq!(list(Some(found[0].key)).await.expect("listed").len(), 1);
    let keys: Vec<BranchKey> = found.iter().map(|l| l.key).collect();
    phase_two::purge_markers(&f.pool, Ledger::UNDO, &keys)
        .await
        .expect("purged");
    assert_eq!(
        f.undo_rows().await,
        1,
        "the record that can be undone stays"
    );
}

#[tokio::test]
async fn a_database_belongs_to_one_cluster() {
    let f = Fixture::new("").await;
    let pool = f.pool.phase_two();
    assert_eq!(
        phase_two::read_meta(pool).await.expect("meta").cluster_id,
        None
    );
    phase_two::claim_cluster(pool, [7; 16])
        .await
        .expect("claimed");
    phase_two::claim_cluster(pool, [7; 16])
        .await
        .expect("a repeat");
    let error = phase_two::claim_cluster(pool, [8; 16])
        .await
        .expect_err("another");
    assert!(
        matches!(error, crate::Error::OtherCluster { .. }),
        "{error}"
    );
}
