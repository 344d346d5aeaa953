//! Round trips of an undo, counted by a proxy.

use super::{AtPool, BranchKey, Fixture, UndoPolicy, phase_two::roll_back, proxy, xid};

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
    // The first round prepares the statements.
    for round in 0..2 {
        f.execute(setup).await;
        f.registrar.release();
        f.branch(xid(round + 1), &[sql]).await.expect("commit");
        settled().await;
        counter.take();
        let xid = xid(round + 1);
        let branch = f.registrar.done_branches(xid).pop().expect("committed");
        roll_back(
            pool.phase_two(),
            BranchKey { xid, branch },
            true,
            UndoPolicy::Check,
        )
        .await
        .expect("undone");
        settled().await;
        count = counter.take() - release;
    }
    pool.phase_two().close().await;
    count
}

#[tokio::test]
async fn a_rollback_needs_seven_round_trips() {
    let f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let setup = "TRUNCATE t, undo_log; INSERT INTO t VALUES (7, 1), (8, 2)";
    for (sql, trips) in [
        // BEGIN; a marker, if there is no record; the record; the table; the row, locked; its
        // change; the end.
        ("UPDATE t SET v = v + 1 WHERE id = 7", 7),
        ("UPDATE t SET v = v + 1", 9),
        ("DELETE FROM t WHERE id = 7", 7),
        // Whether a foreign key would take others with it.
        ("INSERT INTO t VALUES (9, 3)", 8),
    ] {
        assert_eq!(trips_of_rollback(&f, setup, sql).await, trips, "{sql}");
    }
}
