//! Statements over many rows.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, mysql::MySqlPoolOptions};

use super::{Fixture, xid};

const MANY: &str = "
CREATE TABLE t (id BIGINT PRIMARY KEY, v INT, w INT DEFAULT 0);
INSERT INTO t (id, v) SELECT seq, seq FROM seq_1_to_1500;
DELETE FROM t WHERE id % 100 = 50;";

#[tokio::test]
async fn many_rows_with_gaps_are_changed_and_undone() {
    let f = Fixture::new(MANY).await;
    let before = f.dump("t").await;
    let statements = [
        "UPDATE t SET v = v + 1 WHERE id BETWEEN 200 AND 1300",
        "UPDATE t SET v = v + 1, w = 1 WHERE id % 7 = 0",
        "DELETE FROM t WHERE id BETWEEN 300 AND 500",
        "INSERT INTO t (id, v) SELECT id + 10000, v FROM t WHERE id < 700",
    ];
    f.branch(xid(1), &statements).await.expect("commit");
    let (count, sum): (i64, i64) =
        sqlx::query_as("SELECT COUNT(*), CAST(SUM(v - id % 10000) AS SIGNED) FROM t")
            .fetch_one(f.pool.plain())
            .await
            .expect("readable");
    let ids = |from: i64, to: i64| (from..=to).filter(|id| id % 100 != 50);
    let added = |id: &i64| i64::from((200..=1300).contains(id)) + i64::from(id % 7 == 0);
    let left = |id: &i64| !(300..=500).contains(id);
    let first: Vec<i64> = ids(1, 1500).filter(left).collect();
    let copies: Vec<i64> = ids(1, 699).filter(left).collect();
    assert_eq!(count as usize, first.len() + copies.len());
    assert_eq!(sum, first.iter().chain(&copies).map(added).sum::<i64>());
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("t").await, before);
}

/// Others may hold it, and wait for what this branch holds.
#[tokio::test]
async fn no_row_beside_those_of_a_batch_is_locked() {
    for level in ["READ-COMMITTED", "REPEATABLE-READ"] {
        let options = MySqlPoolOptions::new().after_connect(move |connection, _| {
            Box::pin(async move {
                let set = format!("SET SESSION tx_isolation = '{level}'");
                let set = sqlx::raw_sql(sqlx::AssertSqlSafe(set));
                connection.execute(set).await.map(drop)
            })
        });
        let f = Fixture::with(MANY, |builder| {
            builder
                .pool_options(options)
                .lock_wait(Duration::from_secs(4))
        })
        .await;
        let mut other = sqlx::MySqlConnection::connect(&f.url)
            .await
            .expect("connect");
        let lock = "BEGIN; UPDATE t SET v = 0 WHERE id IN (9, 40, 46)";
        sqlx::raw_sql(lock).execute(&mut other).await.expect(lock);
        let ids: Vec<String> = (10..40).chain(41..46).map(|id| id.to_string()).collect();
        let sql = format!("UPDATE t SET v = v + 1 WHERE id IN ({})", ids.join(", "));
        f.branch(xid(1), &[&sql])
            .await
            .expect("nobody is waited for");
        f.roll_back(xid(1), 1).await.expect("nor here");
        other.close().await.expect("closed");
    }
}
