//! Round trips of an undo, counted by a proxy.

use std::sync::Arc;

use super::{AtPool, BranchKey, Fixture, UndoPolicy, phase_two::roll_back, proxy, xid};

/// A pool for finishing branches whose round trips are counted.
pub(super) struct Counted {
    pub(super) pool: AtPool,
    trips: Arc<proxy::Trips>,
}

impl Counted {
    pub(super) async fn new(f: &Fixture) -> Self {
        let (url, trips) = proxy::start(&f.url).await;
        let pool = AtPool::builder(&url)
            .resource("test-db")
            .build(f.registrar.clone())
            .expect("a pool");
        Self { pool, trips }
    }

    /// Trips since it was asked last, without the driver's look at a connection that comes back.
    pub(super) async fn take(&self) -> usize {
        let pool = self.pool.phase_two();
        while pool.num_idle() < pool.size() as usize {
            tokio::task::yield_now().await;
        }
        let release = 1;
        self.trips.take().saturating_sub(release)
    }

    pub(super) async fn close(self) {
        self.pool.phase_two().close().await;
    }
}

/// What the undo of a branch of this one statement costs.
async fn trips_of_rollback(f: &Fixture, setup: &str, sql: &'static str) -> usize {
    let counted = Counted::new(f).await;
    let mut count = 0;
    // The first round prepares the statements.
    for round in 0..2 {
        f.execute(setup).await;
        f.registrar.release();
        f.branch(xid(round + 1), &[sql]).await.expect("commit");
        counted.take().await;
        let xid = xid(round + 1);
        let branch = f.registrar.done_branches(xid).pop().expect("committed");
        roll_back(
            counted.pool.phase_two(),
            BranchKey { xid, branch },
            true,
            UndoPolicy::Check,
        )
        .await
        .expect("undone");
        count = counted.take().await;
    }
    counted.close().await;
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
