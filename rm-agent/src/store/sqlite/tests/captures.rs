//! What branches notice, and what of it must be locked and undone.

use std::time::Duration;

use super::{Fixture, PhaseTwoError, xid};
use crate::{Error, describe_row_lock};

fn own(error: &sqlx::Error) -> &Error {
    Error::from_sqlx(error).unwrap_or_else(|| panic!("{error}"))
}

/// The row locks of the newest registration, as people read them.
fn locks(f: &Fixture) -> Vec<String> {
    let last = f.registrar.last().expect("a branch has registered");
    last.row_locks
        .iter()
        .map(|key| describe_row_lock(key))
        .collect()
}

/// Runs the statements in a branch, rolls it back and compares the tables.
async fn is_undone(f: &Fixture, number: u64, tables: &[&str], statements: &[&str]) {
    let mut before = Vec::new();
    for table in tables {
        before.push(f.dump(table).await);
    }
    f.registrar.release();
    f.branch(xid(number), statements).await.expect("commits");
    let mut changed = false;
    for (table, before) in tables.iter().zip(&before) {
        changed |= f.dump(table).await != *before;
    }
    assert!(changed, "{statements:?} changed nothing");
    f.roll_back(xid(number), 1)
        .await
        .unwrap_or_else(|error| panic!("{statements:?}: {error:?}"));
    for (table, before) in tables.iter().zip(&before) {
        assert_eq!(f.dump(table).await, *before, "{table} after {statements:?}");
    }
}

#[tokio::test]
async fn locks_are_row_numbers_keys_and_unique_values() {
    let f = Fixture::new(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, code TEXT UNIQUE COLLATE NOCASE, v);
         INSERT INTO a VALUES (1, 'Ann', 1), (2, NULL, 1);
         CREATE TABLE b (name TEXT PRIMARY KEY COLLATE RTRIM, v REAL UNIQUE) WITHOUT ROWID;
         INSERT INTO b VALUES ('x  ', 5), ('y', 0.5);
         CREATE TABLE c (name TEXT PRIMARY KEY, state);
         CREATE UNIQUE INDEX c_open ON c (name) WHERE state = 'open';
         INSERT INTO c VALUES ('p', 'open'), (NULL, 'open');
         CREATE TABLE d (v);
         INSERT INTO d VALUES (1);",
    )
    .await;
    for (sql, expected) in [
        ("UPDATE a SET v = 2", vec!["main.a (1)", "main.a (2)"]),
        (
            "UPDATE a SET code = 'bob' WHERE id = 1",
            vec![
                "main.a (1)",
                "main.a sqlite_autoindex_a_1 ('ann')",
                "main.a sqlite_autoindex_a_1 ('bob')",
            ],
        ),
        (
            "DELETE FROM b",
            vec![
                "main.b ('x')",
                "main.b ('y')",
                "main.b sqlite_autoindex_b_2 (5)",
                "main.b sqlite_autoindex_b_2 (0.5)",
            ],
        ),
        // The row leaves the partial index with the same name.
        (
            "UPDATE c SET state = 'shut'",
            vec![
                "main.c (1)",
                "main.c (2)",
                "main.c c_open ('p')",
                "main.c sqlite_autoindex_c_1 ('p')",
            ],
        ),
        ("DELETE FROM d", vec!["main.d (1)"]),
    ] {
        f.registrar.release();
        let before = f.dump("b").await;
        f.branch(xid(1), &[sql]).await.expect("commits");
        let mut found = locks(&f);
        found.sort();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(found, expected, "{sql}");
        let branch = f.registrar.done_branches(xid(1)).len();
        f.roll_back(xid(1), u32::try_from(branch).expect("few"))
            .await
            .expect("undone");
        assert_eq!(f.dump("b").await, before);
    }
}

/// Two values that an index holds for equal are one lock.
#[tokio::test]
async fn equal_keys_meet_in_one_lock() {
    let f = Fixture::new(
        "CREATE TABLE users (name TEXT PRIMARY KEY COLLATE NOCASE) WITHOUT ROWID;
         CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE);",
    )
    .await;
    for (one, other) in [
        (
            "INSERT INTO users VALUES ('ann')",
            "INSERT INTO users VALUES ('ANN')",
        ),
        (
            "INSERT INTO t (v) VALUES (5)",
            "INSERT INTO t (v) VALUES (5.0)",
        ),
    ] {
        f.branch(xid(1), &[one]).await.expect("commits");
        f.execute("DELETE FROM users; DELETE FROM t").await;
        let error = f.branch(xid(2), &[other]).await.expect_err("held");
        assert!(matches!(own(&error), Error::Refused(_)), "{error}");
    }
}

/// What the application's triggers do, and how they stop, hides nothing.
#[tokio::test]
async fn triggers_hide_nothing() {
    let f = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
         INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);
         CREATE TABLE log (what);
         CREATE TRIGGER stop AFTER UPDATE ON t WHEN NEW.v = 7 BEGIN
           INSERT INTO log VALUES ('stop'); SELECT RAISE(IGNORE); INSERT INTO log VALUES ('never'); END;
         CREATE TRIGGER chain AFTER INSERT ON t WHEN NEW.v = 'a' BEGIN
           INSERT INTO t VALUES (NEW.id + 1, 'chained'); END;
         CREATE TRIGGER gone AFTER DELETE ON t BEGIN
           UPDATE t SET v = v || 'x' WHERE id = OLD.id + 1; INSERT INTO log VALUES (OLD.v); END;
         CREATE VIEW shown AS SELECT id, v FROM t;
         CREATE TRIGGER put INSTEAD OF INSERT ON shown BEGIN
           INSERT INTO t VALUES (NEW.id, NEW.v); DELETE FROM t WHERE id = NEW.id - 1; END;",
    )
    .await;
    let tables = ["t", "log"];
    is_undone(&f, 1, &tables, &["UPDATE t SET v = 7"]).await;
    is_undone(&f, 2, &tables, &["INSERT INTO t VALUES (5, 'a')"]).await;
    is_undone(&f, 3, &tables, &["DELETE FROM t WHERE id > 1"]).await;
    is_undone(&f, 4, &tables, &["INSERT INTO shown VALUES (4, 'seen')"]).await;
    is_undone(
        &f,
        5,
        &tables,
        &[
            "DELETE FROM t WHERE id = 2",
            "INSERT INTO t VALUES (2, 'again')",
            "UPDATE t SET id = id + 100",
            "DELETE FROM log",
        ],
    )
    .await;
}

#[tokio::test]
async fn what_fails_half_way_leaves_the_branch_a_rollback() {
    let f = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE);
         INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);",
    )
    .await;
    let before = f.dump("t").await;
    for sql in [
        "UPDATE t SET v = 3 WHERE id > 1",
        "UPDATE OR FAIL t SET v = v + 1",
        "UPDATE OR ROLLBACK t SET v = v + 1",
        "INSERT OR ROLLBACK INTO t VALUES (4, 4), (5, 1)",
        "INSERT INTO t VALUES (4, 4), (5, 1)",
    ] {
        f.registrar.release();
        let mut tx = f.pool.begin_in(xid(1)).await.expect("begins");
        sqlx::query("INSERT INTO t VALUES (9, 9)")
            .execute(&mut tx)
            .await
            .expect("inserts");
        sqlx::query(sql).execute(&mut tx).await.expect_err(sql);
        // Whatever is left of the transaction: nothing more runs.
        let error = sqlx::query("DELETE FROM t")
            .execute(&mut tx)
            .await
            .expect_err(sql);
        assert!(matches!(own(&error), Error::Broken { .. }), "{error}");
        tx.commit().await.expect_err(sql);
        assert_eq!(f.dump("t").await, before, "{sql}");
        assert!(f.registrar.take_events().is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn savepoints_take_notes_back() {
    let f = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2);
         CREATE TABLE u (v); INSERT INTO u VALUES (1);",
    )
    .await;
    is_undone(
        &f,
        1,
        &["t", "u"],
        &[
            "SAVEPOINT a",
            "UPDATE t SET v = v + 10",
            "SAVEPOINT b",
            "DELETE FROM u",
            "REPLACE INTO t VALUES (3, 11)",
            "ROLLBACK TO b",
            "INSERT INTO u VALUES (2)",
            "RELEASE a",
            "UPDATE u SET v = v + 1",
        ],
    )
    .await;
    // All is taken back: there is no branch.
    f.registrar.release();
    f.registrar.take_events();
    f.branch(
        xid(2),
        &[
            "SAVEPOINT a",
            "DELETE FROM t",
            "DELETE FROM u",
            "ROLLBACK TO a",
        ],
    )
    .await
    .expect("commits");
    assert!(f.registrar.take_events().is_empty());
    // It mends what a failed statement broke, unless that ended the transaction.
    for (fails, mends) in [
        ("INSERT INTO t VALUES (5, 1)", true),
        ("INSERT OR ROLLBACK INTO t VALUES (5, 9)", false),
    ] {
        let before = f.dump("t").await;
        let mut tx = f.pool.begin_in(xid(3)).await.expect("begins");
        let run = async |tx: &mut crate::sqlite::AtTransaction, sql: &'static str| {
            sqlx::query(sql).execute(tx).await
        };
        run(&mut tx, "SAVEPOINT a").await.expect("runs");
        run(&mut tx, "UPDATE t SET v = 8 WHERE id = 2")
            .await
            .expect("runs");
        run(&mut tx, fails).await.expect_err("not unique");
        assert_eq!(
            run(&mut tx, "ROLLBACK TO a").await.is_ok(),
            mends,
            "{fails}"
        );
        assert_eq!(
            run(&mut tx, "UPDATE t SET v = 9 WHERE id = 1")
                .await
                .is_ok(),
            mends
        );
        assert_eq!(tx.commit().await.is_ok(), mends);
        assert_eq!(f.dump("t").await != before, mends);
    }
    f.roll_back(xid(3), 1).await.expect("undone");
    assert_eq!(f.scalar("SELECT SUM(v) FROM t").await, 3);
}

#[tokio::test]
async fn a_deferred_foreign_key_fails_at_the_commit() {
    let f = Fixture::new(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id INTEGER PRIMARY KEY,
           p INT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);",
    )
    .await;
    f.branch(xid(1), &["INSERT INTO child VALUES (1, 7)"])
        .await
        .expect_err("there is no parent");
    assert_eq!(
        f.registrar.take_events().last(),
        Some(&super::registrar::Event::Withdrawn(xid(1), 1))
    );
    is_undone(
        &f,
        2,
        &["child", "parent"],
        &[
            "INSERT INTO child VALUES (1, 7)",
            "INSERT INTO parent VALUES (7)",
        ],
    )
    .await;
}

/// A foreign key of a table to itself changes a row again while it is being changed.
#[tokio::test]
async fn rows_that_reference_themselves_are_undone() {
    let f = Fixture::new(
        "CREATE TABLE codes (id INTEGER PRIMARY KEY, code INT UNIQUE,
           like INT REFERENCES codes (code) ON UPDATE CASCADE ON DELETE SET NULL);
         INSERT INTO codes VALUES (1, 10, 10), (2, 20, 10), (3, 30, NULL);
         CREATE TABLE names (name TEXT COLLATE NOCASE PRIMARY KEY,
           boss TEXT COLLATE NOCASE REFERENCES names (name) ON UPDATE CASCADE) WITHOUT ROWID;
         INSERT INTO names VALUES ('ann', 'ann'), ('bob', 'ann');",
    )
    .await;
    for (number, (table, sql)) in [
        ("codes", "UPDATE codes SET code = code + 1 WHERE id = 1"),
        ("codes", "DELETE FROM codes WHERE id < 3"),
        ("names", "UPDATE names SET name = 'eve' WHERE name = 'ann'"),
        ("names", "REPLACE INTO names VALUES ('BOB', NULL)"),
    ]
    .into_iter()
    .enumerate()
    {
        is_undone(&f, number as u64 + 1, &[table], &[sql]).await;
    }
}

#[tokio::test]
async fn trees_are_undone() {
    let f = Fixture::new(
        "CREATE TABLE tree (id INTEGER PRIMARY KEY,
           up INT REFERENCES tree (id) ON DELETE CASCADE ON UPDATE CASCADE);
         INSERT INTO tree VALUES (1, 1), (2, 1), (3, 2), (4, NULL);",
    )
    .await;
    for (number, sql) in [
        "DELETE FROM tree WHERE id = 1",
        "UPDATE tree SET id = id + 10 WHERE id < 3",
        "INSERT INTO tree VALUES (7, 7), (8, 7), (9, 8)",
        "UPDATE tree SET up = 4",
    ]
    .into_iter()
    .enumerate()
    {
        is_undone(&f, number as u64 + 1, &["tree"], &[sql]).await;
    }
}

/// Connections keep their notes from branch to branch; after a change of the schema they
/// are of no use.
#[tokio::test]
async fn the_schema_may_change_between_branches() {
    let f = Fixture::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1);",
        |builder| builder.max_connections(1),
    )
    .await;
    is_undone(&f, 1, &["t"], &["UPDATE t SET v = 2"]).await;
    f.execute("ALTER TABLE t ADD COLUMN w DEFAULT 'w'").await;
    is_undone(&f, 2, &["t"], &["UPDATE t SET w = 2"]).await;
    f.execute("DROP TABLE t; CREATE TABLE t (v, id TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (1, 2)")
        .await;
    is_undone(&f, 3, &["t"], &["UPDATE t SET id = 'new'"]).await;
    // Between the phases: what the images do not have stays as it is.
    f.registrar.release();
    f.branch(xid(4), &["UPDATE t SET v = 5"])
        .await
        .expect("commits");
    f.execute("ALTER TABLE t ADD COLUMN w DEFAULT 'w'").await;
    f.roll_back(xid(4), 1).await.expect("undone");
    assert_eq!(f.scalar("SELECT v FROM t WHERE w = 'w'").await, 1);
    // A new row with it would be lost.
    f.registrar.release();
    f.branch(xid(5), &["INSERT INTO t (v, id) VALUES (1, 'mine')"])
        .await
        .expect("commits");
    f.execute("ALTER TABLE t ADD COLUMN x; UPDATE t SET x = 1")
        .await;
    let result = f.roll_back(xid(5), 1).await;
    assert!(
        matches!(result, Err(PhaseTwoError::Stuck { .. })),
        "{result:?}"
    );
}

/// VACUUM may give rows without a key of their own other numbers: nothing of somebody
/// else's is touched then.
#[tokio::test]
async fn vacuum_between_the_phases_overwrites_nothing() {
    let f = Fixture::new(
        "CREATE TABLE t (v); INSERT INTO t VALUES ('a'), ('b'), ('c'), ('d');
         DELETE FROM t WHERE v = 'a';",
    )
    .await;
    f.branch(xid(1), &["UPDATE t SET v = 'changed' WHERE v = 'c'"])
        .await
        .expect("commits");
    f.execute("VACUUM").await;
    let now = f.dump("t").await;
    match f.roll_back(xid(1), 1).await {
        Ok(()) => assert_eq!(f.scalar("SELECT COUNT(*) FROM t WHERE v = 'c'").await, 1),
        Err(PhaseTwoError::Stuck { difference, .. }) => {
            assert!(difference.contains("rowid"), "{difference}");
            assert_eq!(f.dump("t").await, now);
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn triggers_that_run_before_are_found_when_they_write() {
    let f = Fixture::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1);
         CREATE TABLE log (what);
         CREATE TRIGGER checks BEFORE UPDATE ON t WHEN NEW.v < 0 BEGIN SELECT RAISE(ABORT, 'no'); END;
         CREATE TABLE u (id INTEGER PRIMARY KEY, v); INSERT INTO u VALUES (1, 1);
         CREATE TRIGGER writes BEFORE UPDATE ON u BEGIN INSERT INTO log VALUES (NEW.v); END;",
        |builder| builder.allow_trigger("t", "checks").allow_trigger("main.U", "writes"),
    )
    .await;
    is_undone(&f, 1, &["t"], &["UPDATE t SET v = 2"]).await;
    f.branch(xid(2), &["UPDATE u SET v = 2"])
        .await
        .expect("allowed");
    let now = (f.dump("u").await, f.dump("log").await);
    match f.roll_back(xid(2), 1).await {
        Err(PhaseTwoError::Stuck { reason, .. }) => {
            assert!(reason.contains("by a trigger"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((f.dump("u").await, f.dump("log").await), now);
    f.execute("DROP TRIGGER writes").await;
    f.roll_back(xid(2), 1).await.expect("undone");
    assert_eq!(f.dump("log").await.len(), 0);
}

#[tokio::test]
async fn ten_thousand_rows_are_one_branch_and_more_are_refused() {
    let f = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001)
         INSERT INTO t SELECT i, 'value ' || i FROM n;",
    )
    .await;
    is_undone(
        &f,
        1,
        &["t"],
        &["UPDATE t SET v = v || '!' WHERE id <= 10000"],
    )
    .await;
    let before = f.dump("t").await;
    for sql in [
        "UPDATE t SET v = v || '!'",
        "DELETE FROM t",
        "INSERT INTO t SELECT id + 20000, v FROM t",
    ] {
        let error = f.branch(xid(2), &[sql]).await.expect_err("too many");
        assert!(
            matches!(own(&error), Error::TooLarge { limit: 10_000, .. }),
            "{sql}: {error}"
        );
        assert_eq!(f.dump("t").await, before);
    }
    f.registrar.release();
    let error = f
        .branch(
            xid(3),
            &[
                "UPDATE t SET v = zeroblob(3000000) WHERE id < 4",
                "DELETE FROM t WHERE id < 4",
            ],
        )
        .await;
    error.expect("what came and went needs no room");
    f.registrar.release();
    let error = f
        .branch(
            xid(4),
            &["UPDATE t SET v = zeroblob(3000000) WHERE id BETWEEN 10 AND 13"],
        )
        .await
        .expect_err("too large");
    assert!(matches!(own(&error), Error::TooLarge { .. }), "{error}");
}

/// A rollback that meets a branch at work says so in time, and is repeated.
#[tokio::test]
async fn a_rollback_waits_for_the_writer_only_so_long() {
    let f =
        Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);").await;
    f.branch(xid(1), &["DELETE FROM t"]).await.expect("commits");
    let mut other = f.pool.begin_in(xid(2)).await.expect("begins");
    sqlx::query("SELECT * FROM t")
        .execute(&mut other)
        .await
        .expect("takes the write lock");
    let result = tokio::time::timeout(Duration::from_secs(20), f.roll_back(xid(1), 1)).await;
    match result.expect("in time") {
        Err(PhaseTwoError::Failed { reason }) => {
            assert!(reason.contains("write lock"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    other.rollback().await.expect("rolls back");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("t").await.len(), 1);
}
