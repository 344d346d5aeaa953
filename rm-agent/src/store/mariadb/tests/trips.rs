//! Round trips to the database, counted by a proxy.

use super::{
    super::{catalog::read_table, phase_two::roll_back},
    AtPool, BranchKey, Fixture, UndoPolicy, proxy, xid,
};
use crate::at::statement::TableName;

/// What a transaction of this one statement costs: plainly, and as a branch.
async fn trips(f: &Fixture, setup: &str, sql: &'static str) -> (usize, usize) {
    let (url, counter) = proxy::start(&f.url).await;
    let pool = AtPool::builder(&url)
        .resource("test-db")
        // Without the question whether an idle connection is still there.
        .pool_options(
            sqlx::mysql::MySqlPoolOptions::new()
                .max_connections(1)
                .test_before_acquire(false),
        )
        .build(f.registrar.clone())
        .expect("a pool");
    let mut counts = [0; 2];
    // The first round prepares the statements.
    for round in 0..2 {
        for (kind, count) in counts.iter_mut().enumerate() {
            f.execute(setup).await;
            f.registrar.release();
            // The driver looks at a connection that comes back.
            while pool.plain().size() > 0 && pool.plain().num_idle() == 0 {
                tokio::task::yield_now().await;
            }
            counter.take();
            let mut tx = match kind {
                0 => pool.begin_plain().await.expect("begin"),
                _ => pool.begin_in(xid(round + 1)).await.expect("begin"),
            };
            sqlx::query(sql).bind(7).execute(&mut tx).await.expect(sql);
            tx.commit().await.expect("commit");
            *count = counter.take();
        }
    }
    pool.plain().close().await;
    (counts[0], counts[1])
}

#[tokio::test]
async fn a_branch_needs_two_round_trips_more_or_three_for_a_replace() {
    let f = Fixture::new("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT);").await;
    let setup = "TRUNCATE t; INSERT INTO t VALUES (7, 1), (8, 2)";
    for (sql, plain, branch) in [
        ("INSERT IGNORE INTO t (id) VALUES (9), (?)", 3, 4),
        ("INSERT INTO t (v) SELECT v FROM t WHERE id = ?", 3, 4),
        (
            "INSERT INTO t (id) VALUES (?) ON DUPLICATE KEY UPDATE v = v + 1",
            3,
            5,
        ),
        (
            "INSERT INTO t (id) VALUES (?) ON DUPLICATE KEY UPDATE v = v + 1 RETURNING v",
            3,
            3,
        ),
        (
            "INSERT INTO t (id) VALUES (? + 10) ON DUPLICATE KEY UPDATE v = v + 1",
            3,
            4,
        ),
        // One more for the rows that it deletes.
        ("REPLACE INTO t (id) VALUES (? + 10)", 3, 5),
        ("REPLACE INTO t (id) VALUES (?)", 3, 6),
        ("UPDATE t SET id = id + 10 WHERE id = ?", 3, 5),
        ("UPDATE t SET v = v + 1 WHERE id = ?", 3, 5),
        ("DELETE FROM t WHERE id = ?", 3, 4),
        ("INSERT INTO t (v) VALUES (?)", 3, 4),
        ("INSERT INTO t (v) VALUES (?) RETURNING id", 3, 3),
        ("SELECT v FROM t WHERE id = ? FOR UPDATE", 3, 3),
    ] {
        assert_eq!(trips(&f, setup, sql).await, (plain, branch), "{sql}");
    }
}

/// What the undo of a branch of this one statement costs.
async fn trips_of_rollback(f: &Fixture, setup: &str, sql: &'static str) -> usize {
    let (url, counter) = proxy::start(&f.url).await;
    let pool = AtPool::builder(&url)
        .resource("test-db")
        .build(f.registrar.clone())
        .expect("a pool");
    // The driver looks at a connection that comes back.
    let settled = async || {
        while pool.phase_two().num_idle() < pool.phase_two().size() as usize {
            tokio::task::yield_now().await;
        }
    };
    let release = 1;
    let mut count = 0;
    // The first round prepares the statements and learns who references the table.
    for round in 0..2 {
        f.execute(setup).await;
        f.registrar.release();
        f.branch(xid(round + 1), &[sql]).await.expect("commit");
        settled().await;
        counter.take();
        let xid = xid(round + 1);
        let branch = f.registrar.done_branches(xid).pop().expect("committed");
        let key = BranchKey { xid, branch };
        roll_back(&pool, key, true, UndoPolicy::Check)
            .await
            .expect("undone");
        settled().await;
        count = counter.take() - release;
    }
    pool.phase_two().close().await;
    count
}

#[tokio::test]
async fn a_rollback_needs_six_round_trips() {
    let f = Fixture::new("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT);").await;
    let setup = "TRUNCATE t; TRUNCATE undo_log; INSERT INTO t VALUES (7, 1), (8, 2)";
    for (sql, trips) in [
        // Its record; the columns; the rows, locked; each row changed; the rows once more; the end.
        ("UPDATE t SET v = v + 1 WHERE id = 7", 6),
        ("UPDATE t SET v = v + 1", 7),
        ("DELETE FROM t WHERE id = 7", 6),
        ("INSERT INTO t (v) VALUES (3)", 6),
    ] {
        assert_eq!(trips_of_rollback(&f, setup, sql).await, trips, "{sql}");
    }
}

/// Each pool reads descriptions again and again, so it must be cheap.
#[tokio::test]
async fn a_table_is_described_without_a_look_at_the_tables_of_the_system() {
    let f = Fixture::new(
        "CREATE TABLE parent (id INT PRIMARY KEY, code INT UNIQUE);
         CREATE TABLE child (id INT PRIMARY KEY, p INT, c INT,
           FOREIGN KEY (p) REFERENCES parent (id) ON DELETE SET NULL,
           FOREIGN KEY (c) REFERENCES parent (code) ON UPDATE CASCADE);",
    )
    .await;
    let mut connection = f.pool.plain().acquire().await.expect("one is free");
    let name = TableName {
        schema: None,
        name: "parent".to_owned(),
    };
    let mut used = Vec::new();
    for _ in 0..2 {
        let (_, made): (String, String) =
            sqlx::query_as("SHOW SESSION STATUS LIKE 'Created_tmp_tables'")
                .fetch_one(&mut *connection)
                .await
                .expect("it is counted");
        used.push(made.parse::<i64>().expect("a number"));
        let found = read_table(&mut connection, &name, 0)
            .await
            .expect("it can be read");
        assert_eq!(found.expect("it is there").table.incoming.len(), 2);
    }
    // Every view of the system that is opened makes some.
    let made = used[1] - used[0];
    assert!(made < 30, "{made} temporary tables");
}
