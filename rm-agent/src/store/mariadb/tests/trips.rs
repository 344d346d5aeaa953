//! Round trips to the database, counted by a proxy.

use super::{AtPool, Fixture, proxy, xid};

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
async fn a_branch_needs_at_most_two_round_trips_more() {
    let f = Fixture::new("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT);").await;
    let setup = "TRUNCATE t; INSERT INTO t VALUES (7, 1), (8, 2)";
    for (sql, plain, branch) in [
        ("UPDATE t SET v = v + 1 WHERE id = ?", 3, 5),
        ("DELETE FROM t WHERE id = ?", 3, 4),
        ("INSERT INTO t (v) VALUES (?)", 3, 4),
        ("INSERT INTO t (v) VALUES (?) RETURNING id", 3, 3),
        ("SELECT v FROM t WHERE id = ? FOR UPDATE", 3, 3),
    ] {
        assert_eq!(trips(&f, setup, sql).await, (plain, branch), "{sql}");
    }
}
