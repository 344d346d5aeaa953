//! Phase two: undo, dirty checks, markers, leftovers, the cluster claim.

use crate::store::finish::Ledger;
use std::time::Duration;

use sqlx::Connection as _;

use super::{Fixture, phase_two, registrar::Event, xid};
use crate::{
    Error,
    store::finish::{BranchKey, LeftoverKind, PhaseTwoError, UndoPolicy},
};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL, name text UNIQUE);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);";

fn key(number: u64, branch: u32) -> BranchKey {
    BranchKey {
        xid: xid(number),
        branch,
    }
}

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
async fn a_changed_row_is_reported_with_its_repair() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.branch(
        xid(1),
        &[
            "UPDATE stock SET count = 1, name = 'it''s' WHERE product = 1",
            "DELETE FROM stock WHERE product = 2",
            "INSERT INTO stock VALUES (4, 4, 'd')",
        ],
    )
    .await
    .expect("commit");
    f.execute("UPDATE stock SET count = 99 WHERE product = 1")
        .await;
    let dirty = f.dump("stock").await;
    let (reason, difference, repair) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("1 of the branch's rows"), "{reason}");
    assert!(
        difference.contains("count: before 10, after the branch 1, now 99"),
        "{difference}"
    );
    assert_eq!(f.dump("stock").await, dirty, "nothing was undone");
    // The prepared statement does what the undo would have done.
    f.execute(&format!("BEGIN; {repair} COMMIT")).await;
    assert_eq!(f.dump("stock").await, before);
    f.roll_back(xid(1), 1)
        .await
        .expect("all rows are as before");
}

#[tokio::test]
async fn an_operator_may_force_or_accept() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    for (number, policy) in [(1, UndoPolicy::Forced), (2, UndoPolicy::AcceptCurrent)] {
        f.registrar.release();
        f.branch(
            xid(number),
            &[
                "UPDATE stock SET count = 1 WHERE product = 1",
                "DELETE FROM stock WHERE product = 2",
            ],
        )
        .await
        .expect("commit");
        f.execute("UPDATE stock SET count = 99 WHERE product = 1")
            .await;
        let current = f.dump("stock").await;
        f.roll_back_by(xid(number), 1, policy)
            .await
            .expect("as ordered");
        let expected = if policy == UndoPolicy::Forced {
            &before
        } else {
            &current
        };
        assert_eq!(&f.dump("stock").await, expected);
        f.roll_back(xid(number), 1)
            .await
            .expect("the marker is there");
    }
}

#[tokio::test]
async fn a_lost_undo_record_is_stuck() {
    let f = Fixture::new(STOCK).await;
    let (reason, ..) = stuck(f.roll_back(xid(1), 1).await);
    assert!(reason.contains("undo record is gone"), "{reason}");
    assert_eq!(f.dump("undo_log").await.len(), 0, "no marker hides it");
    f.roll_back_by(xid(1), 1, UndoPolicy::AcceptCurrent)
        .await
        .expect("accepted");

    f.branch(xid(2), &["DELETE FROM stock"])
        .await
        .expect("commit");
    f.execute("UPDATE undo_log SET rollback_info = '\\x0900' WHERE log_status = 0")
        .await;
    let (reason, ..) = stuck(f.roll_back(xid(2), 1).await);
    assert!(reason.contains("damaged or of a newer version"), "{reason}");
}

#[tokio::test]
async fn a_locked_row_is_tried_again_later() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["UPDATE stock SET count = 1"])
        .await
        .expect("commit");
    let mut other = sqlx::PgConnection::connect(&f.url).await.expect("connect");
    sqlx::raw_sql("BEGIN; SELECT * FROM stock WHERE product = 2 FOR UPDATE")
        .execute(&mut other)
        .await
        .expect("lock");
    let error = f.roll_back(xid(1), 1).await.expect_err("locked");
    assert!(
        matches!(&error, PhaseTwoError::Failed { reason } if reason.contains("tried again")),
        "{error}"
    );
    other.close().await.expect("close");
    f.roll_back(xid(1), 1).await.expect("free");
}

#[tokio::test]
async fn two_agents_undo_once() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.execute("CREATE TABLE log (n serial)").await;
    f.branch(xid(1), &["UPDATE stock SET count = count + 1"])
        .await
        .expect("commit");
    f.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN INSERT INTO log DEFAULT VALUES; RETURN NEW; END';
         CREATE TRIGGER note AFTER UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    let (a, b) = tokio::join!(f.roll_back(xid(1), 1), f.roll_back(xid(1), 1));
    a.and(b).expect("both are told that it is done");
    assert_eq!(f.dump("stock").await, before);
    assert_eq!(f.dump("log").await.len(), 3, "each row was undone once");
}

#[tokio::test]
async fn an_undone_insert_never_cascades() {
    let f = Fixture::new(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
         CREATE TABLE strict (id int PRIMARY KEY, parent int REFERENCES parent);",
    )
    .await;
    // Children of the same branch go first.
    f.branch(
        xid(1),
        &[
            "INSERT INTO parent VALUES (1)",
            "INSERT INTO child VALUES (1, 1)",
            "INSERT INTO strict VALUES (1, 1)",
        ],
    )
    .await
    .expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(
        f.dump("parent").await.len() + f.dump("child").await.len(),
        0
    );

    f.registrar.release();
    f.branch(xid(2), &["INSERT INTO parent VALUES (2)"])
        .await
        .expect("commit");
    f.execute("INSERT INTO child VALUES (2, 2)").await;
    let (reason, ..) = stuck(f.roll_back(xid(2), 1).await);
    assert!(
        reason.contains("child") && reason.contains("reference"),
        "{reason}"
    );
    f.execute("UPDATE child SET parent = NULL; INSERT INTO strict VALUES (2, 2)")
        .await;
    let (reason, ..) = stuck(f.roll_back(xid(2), 1).await);
    assert!(reason.contains("refuses to undo"), "{reason}");
    f.execute("DELETE FROM strict").await;
    f.roll_back(xid(2), 1).await.expect("nothing references it");
    assert_eq!(f.dump("child").await, ["(2,)"]);
}

#[tokio::test]
async fn schema_changes_meanwhile_lose_nothing() {
    let f = Fixture::new(STOCK).await;
    let names = "SELECT product, count, name FROM stock";
    f.branch(
        xid(1),
        &[
            "UPDATE stock SET count = 0",
            "INSERT INTO stock VALUES (4, 4, 'd')",
        ],
    )
    .await
    .expect("commit");
    f.execute("ALTER TABLE stock ADD note text, ADD origin text DEFAULT 'old'")
        .await;
    f.execute("UPDATE stock SET note = 'kept' WHERE product = 4")
        .await;
    let (_, difference, _) = stuck(f.roll_back(xid(1), 1).await);
    assert!(
        difference.contains("columns added since then"),
        "{difference}"
    );
    f.execute("UPDATE stock SET note = NULL WHERE product = 4")
        .await;
    f.roll_back(xid(1), 1)
        .await
        .expect("only defaults would go");
    assert_eq!(
        f.dump(&format!("({names})")).await,
        ["(1,10,a)", "(2,20,b)", "(3,30,)"]
    );

    // Phase one notices the new columns by itself, and images have them.
    f.registrar.release();
    let mut result = f
        .branch(xid(2), &["DELETE FROM stock WHERE product = 1"])
        .await;
    if let Err(error) = &result {
        assert!(crate::is_retryable(error), "{error}");
        result = f
            .branch(xid(2), &["DELETE FROM stock WHERE product = 1"])
            .await;
    }
    result.expect("planned anew");
    f.execute("ALTER TABLE stock ALTER count TYPE numeric")
        .await;
    let (reason, ..) = stuck(f.roll_back(xid(2), 1).await);
    assert!(reason.contains("count changed its type"), "{reason}");
    f.execute("ALTER TABLE stock ALTER count TYPE bigint").await;
    f.roll_back(xid(2), 1).await.expect("as it was");
    assert_eq!(f.dump("stock").await[0], "(1,10,a,,old)");
    f.registrar.release();
    f.branch(xid(3), &["DELETE FROM stock WHERE product = 3"])
        .await
        .expect("commit");
    f.execute("ALTER TABLE stock RENAME name TO title").await;
    let (reason, ..) = stuck(f.roll_back(xid(3), 1).await);
    assert!(reason.contains("dropped or renamed"), "{reason}");
}

#[tokio::test]
async fn commits_delete_and_sweeps_find() {
    let f = Fixture::new(STOCK).await;
    let pool = f.pool.phase_two();
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    f.branch(xid(2), &["UPDATE stock SET count = 0 WHERE product = 2"])
        .await
        .expect("commit");
    f.branch(xid(3), &["UPDATE stock SET count = 0 WHERE product = 3"])
        .await
        .expect("commit");
    f.roll_back(xid(2), 1).await.expect("undone");
    let found = phase_two::leftovers(pool, Ledger::UNDO, Duration::ZERO, None, 10)
        .await
        .expect("readable");
    let kinds: Vec<_> = found.iter().map(|l| (l.key, l.kind)).collect();
    assert_eq!(
        kinds,
        [
            (key(1, 1), LeftoverKind::Undo),
            (key(2, 1), LeftoverKind::Marker),
            (key(3, 1), LeftoverKind::Undo)
        ]
    );
    let page = phase_two::leftovers(pool, Ledger::UNDO, Duration::ZERO, Some(key(1, 1)), 1)
        .await
        .expect("page");
    assert_eq!(page[0].key, key(2, 1));
    let old = phase_two::leftovers(pool, Ledger::UNDO, Duration::from_secs(60), None, 10)
        .await
        .expect("none");
    assert!(old.is_empty());
    let all = [key(1, 1), key(2, 1), key(3, 1), key(4, 1)];
    phase_two::delete_undo(pool, &all).await.expect("deleted");
    let left = phase_two::leftovers(pool, Ledger::UNDO, Duration::ZERO, None, 10)
        .await
        .expect("readable");
    assert_eq!(left.len(), 1, "the marker stays");
    // An older local transaction might still run into it.
    let mut other = sqlx::PgConnection::connect(&f.url).await.expect("connect");
    f.registrar.release();
    f.branch(xid(5), &["UPDATE stock SET count = 1 WHERE product = 2"])
        .await
        .expect("commit");
    sqlx::raw_sql("BEGIN; SELECT 1")
        .execute(&mut other)
        .await
        .expect("open");
    f.roll_back(xid(5), 1).await.expect("undone");
    phase_two::purge_markers(pool, Ledger::UNDO, &[key(2, 1), key(5, 1)])
        .await
        .expect("purged");
    assert_eq!(f.dump("undo_log").await.len(), 1);
    other.close().await.expect("close");
    // The server notices the closed connection a moment later.
    while !f.dump("undo_log").await.is_empty() {
        phase_two::purge_markers(pool, Ledger::UNDO, &[key(5, 1)])
            .await
            .expect("purged");
    }
}

#[tokio::test]
async fn a_database_belongs_to_one_cluster() {
    let f = Fixture::new("").await;
    let pool = f.pool.phase_two();
    let meta = phase_two::read_meta(pool).await.expect("readable");
    assert_eq!(meta.cluster_id, None);
    phase_two::claim_cluster(pool, [7; 16]).await.expect("free");
    phase_two::claim_cluster(pool, [7; 16])
        .await
        .expect("a repeat");
    let error = phase_two::claim_cluster(pool, [8; 16])
        .await
        .expect_err("taken");
    let text = error.to_string();
    assert!(matches!(error, Error::OtherCluster { .. }));
    assert!(
        text.contains("07070707-") && text.contains("08080808-"),
        "{text}"
    );
    let again = phase_two::read_meta(pool).await.expect("readable");
    assert_eq!(again.database_id, meta.database_id);
}

#[tokio::test]
async fn a_pool_of_one_connection_cannot_block_a_rollback() {
    let f = Fixture::with(STOCK, |builder| builder.max_connections(1)).await;
    f.branch(xid(1), &["UPDATE stock SET count = 0 WHERE product = 1"])
        .await
        .expect("commit");
    let mut tx = f.pool.begin_in(xid(2)).await.expect("the only connection");
    sqlx::query("UPDATE stock SET count = 5 WHERE product = 2")
        .execute(&mut tx)
        .await
        .expect("update");
    f.roll_back(xid(1), 1)
        .await
        .expect("it has connections of its own");
    tx.commit().await.expect("commit");
    assert!(f.registrar.events().contains(&Event::Done(xid(2), 1)));
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable() {
    let registrar = std::sync::Arc::new(super::TestRegistrar::default());
    let builder = crate::AtPool::builder("postgres://x@127.0.0.1:1/x")
        .resource("gone")
        .acquire_timeout(Duration::from_millis(100));
    let pool = builder
        .build(registrar)
        .expect("no connection is needed yet");
    let error = pool.check().await.expect_err("nobody listens");
    assert!(matches!(error, Error::Database { .. }), "{error}");
    let error = phase_two::delete_undo(pool.phase_two(), &[key(1, 1)])
        .await
        .expect_err("gone");
    assert!(
        matches!(error, PhaseTwoError::Unavailable { .. }),
        "{error}"
    );
}
