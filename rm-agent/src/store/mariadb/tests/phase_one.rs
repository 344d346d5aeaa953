//! What a branch does until its local commit.

use sqlx::Row as _;

use super::{
    Fixture, inside,
    registrar::{Answer, Event},
    xid,
};
use crate::{Error, RefusalCode};

const STOCK: &str = "
CREATE TABLE stock (product BIGINT PRIMARY KEY, count INT NOT NULL, code VARCHAR(20) UNIQUE,
  changed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6));
INSERT INTO stock (product, count, code) VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);
CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(50));
INSERT INTO orders (note) VALUES ('old');";

#[tokio::test]
async fn without_a_global_transaction_nothing_differs() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin().await.expect("begin");
    sqlx::query("UPDATE stock SET count = count - ? WHERE product = ?")
        .bind(3)
        .bind(1)
        .execute(&mut tx)
        .await
        .expect("update");
    sqlx::query("REPLACE INTO stock (product, count) VALUES (2, 5)")
        .execute(&mut tx)
        .await
        .expect("anything may run");
    tx.commit().await.expect("commit");
    assert!(f.registrar.events().is_empty());
    assert_eq!(f.undo_rows().await, 0);
}

#[tokio::test]
async fn a_branch_registers_writes_its_undo_record_and_is_done() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let done = sqlx::query("UPDATE stock SET count = count - ? WHERE product = ? OR code = ?")
        .bind(3)
        .bind(1)
        .bind("B")
        .execute(&mut tx)
        .await
        .expect("update");
    assert_eq!(done.rows_affected(), 2);
    let done = sqlx::query("INSERT INTO orders (note) VALUES (?), (?)")
        .bind("new")
        .bind("newer")
        .execute(&mut tx)
        .await
        .expect("insert");
    assert_eq!((done.rows_affected(), done.last_insert_id()), (2, 2));
    let done = sqlx::query("DELETE FROM stock WHERE product = ?")
        .bind(3)
        .execute(&mut tx)
        .await
        .expect("delete");
    assert_eq!(done.rows_affected(), 1);
    let none = sqlx::query("UPDATE stock SET count = 0 WHERE product = 99")
        .execute(&mut tx)
        .await
        .expect("update");
    assert_eq!(none.rows_affected(), 0);
    tx.commit().await.expect("commit");
    // Two rows updated, two inserted, one deleted.
    assert_eq!(
        f.registrar.take_events(),
        [Event::Registered(xid(1), 1, 5), Event::Done(xid(1), 1)]
    );
    assert_eq!(f.undo_rows().await, 1);
}

#[tokio::test]
async fn the_users_returning_list_comes_first() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let row = sqlx::query("INSERT INTO orders (note) VALUES (?) RETURNING id, UPPER(note) AS loud")
        .bind("x")
        .fetch_one(&mut tx)
        .await
        .expect("insert");
    assert_eq!(
        (row.get::<i32, _>("id"), row.get::<&str, _>("loud")),
        (2, "X")
    );
    let rows =
        sqlx::query("DELETE FROM stock WHERE count > ? ORDER BY product LIMIT ? RETURNING code")
            .bind(5)
            .bind(2_u32)
            .fetch_all(&mut tx)
            .await
            .expect("delete");
    assert_eq!(rows.len(), 2);
    tx.commit().await.expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await.len(), 3);
    assert_eq!(f.dump("orders").await.len(), 1);
}

#[tokio::test]
async fn a_refused_branch_is_rolled_back() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.registrar.answer(Answer::Refuse(RefusalCode::Deadlock));
    let error = f
        .branch(xid(1), &["UPDATE stock SET count = 0"])
        .await
        .expect_err("refused");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Refused(_))),
        "{error}"
    );
    assert_eq!(f.dump("stock").await, before);
    assert_eq!(f.undo_rows().await, 0);
}

#[tokio::test]
async fn a_commit_after_the_give_up_time_is_refused_by_the_database() {
    let f = Fixture::new(STOCK).await;
    f.registrar
        .answer(Answer::GiveUp(std::time::Duration::ZERO));
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 0")
        .execute(&mut tx)
        .await
        .expect("update");
    let error = tx.commit().await.expect_err("too late");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::GaveUp { .. })),
        "{error}"
    );
    assert_eq!(
        f.registrar.events().last(),
        Some(&Event::Withdrawn(xid(1), 1))
    );
}

#[tokio::test]
async fn a_branch_that_was_rolled_back_before_cannot_commit() {
    let f = Fixture::new(STOCK).await;
    super::phase_two::roll_back(
        &f.pool,
        super::BranchKey {
            xid: xid(1),
            branch: 1,
        },
        false,
        super::UndoPolicy::Check,
    )
    .await
    .expect("a defence row");
    let error = f
        .branch(xid(1), &["UPDATE stock SET count = 0"])
        .await
        .expect_err("too late");
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::RolledBackMeanwhile { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    let f = Fixture::with(STOCK, |builder| builder.max_connections(1)).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("UPDATE stock SET count = 0")
        .execute(&mut tx)
        .await
        .expect("update");
    drop(tx);
    assert_eq!(f.dump("stock").await, before);
    // A future that is dropped half-way leaves a transaction that can only roll back.
    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    let slow = sqlx::query("SELECT SLEEP(0), product FROM stock").execute(&mut tx);
    drop(slow);
    tx.rollback().await.expect("rollback");
}

#[tokio::test]
async fn a_lone_statement_is_a_branch() {
    let f = Fixture::new(STOCK).await;
    inside(xid(1), async {
        sqlx::query("UPDATE stock SET count = 1 WHERE product = 1")
            .execute(&f.pool)
            .await
            .expect("update");
        let count: i32 = sqlx::query_scalar("SELECT count FROM stock WHERE product = 1")
            .fetch_one(&f.pool)
            .await
            .expect("select");
        assert_eq!(count, 1);
    })
    .await;
    assert_eq!(f.registrar.done_branches(xid(1)), [1]);
}

#[tokio::test]
async fn locking_reads_ask_the_coordinator() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["UPDATE stock SET count = 1 WHERE product = 2"])
        .await
        .expect("commit");
    let mut tx = f.pool.begin_in(xid(2)).await.expect("begin");
    let free = sqlx::query("SELECT product FROM stock ORDER BY product FOR UPDATE SKIP LOCKED")
        .fetch_all(&mut tx)
        .await
        .expect("skipped");
    assert_eq!(free.len(), 2);
    let row = sqlx::query("SELECT count FROM stock WHERE product = ? LOCK IN SHARE MODE")
        .bind(1)
        .fetch_one(&mut tx)
        .await
        .expect("free");
    assert_eq!(row.get::<i32, _>(0), 10);
    let error = sqlx::query("SELECT * FROM stock AS s WHERE s.product = 2 FOR UPDATE NOWAIT")
        .fetch_all(&mut tx)
        .await
        .expect_err("held");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Refused(_))),
        "{error}"
    );
    tx.rollback().await.expect("rollback");
}

#[tokio::test]
async fn parameters_stand_before_and_behind_a_new_key() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    let done = sqlx::query(
        "UPDATE stock SET count = ?, product = product + ?, code = ? WHERE product > ? ORDER BY product DESC LIMIT ?",
    )
    .bind(7)
    .bind(100)
    .bind("new")
    .bind(1)
    .bind(1)
    .execute(&mut tx)
    .await
    .expect("update");
    assert_eq!(done.rows_affected(), 1);
    tx.commit().await.expect("commit");
    let keys: Vec<i64> = sqlx::query_scalar("SELECT product FROM stock ORDER BY product")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(keys, [1, 2, 103]);
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

/// A comment ends with its line, not with what the agent puts there.
#[tokio::test]
async fn comments_may_stand_between_clauses() {
    let f = Fixture::new(STOCK).await;
    let before = (f.dump("stock").await, f.dump("orders").await);
    for (number, sql) in [
        "UPDATE stock -- all of it\n SET count = 1 # so much\n WHERE product = 1 -- one\n ORDER BY count -- first\n LIMIT 1 -- end",
        "DELETE FROM stock -- of\n WHERE product = 1 -- one\n RETURNING code -- end",
        "UPDATE stock AS s -- of\n JOIN orders -- and\n SET s.count = 1 -- so\n WHERE product = 1 -- one",
        "INSERT INTO orders (note) VALUES ('x') -- one\n RETURNING id -- end",
        "INSERT INTO stock (product, count) VALUES (1, 1) -- one\n ON DUPLICATE KEY UPDATE -- more\n count = 7 -- end",
        "REPLACE INTO stock (product, count) -- of\n VALUES (1, 1 -- x\n) -- end",
    ]
    .into_iter()
    .enumerate()
    {
        f.registrar.release();
        let xid = xid(number as u64 + 1);
        f.branch(xid, &[sql]).await.expect(sql);
        let after = (f.dump("stock").await, f.dump("orders").await);
        let changed = |before: &[String], after: &[String]| {
            before.iter().filter(|row| !after.contains(row)).count()
                + after.len().saturating_sub(before.len())
        };
        let changed = changed(&before.0, &after.0) + changed(&before.1, &after.1);
        assert_eq!(changed, 1, "{sql}");
        f.roll_back(xid, 1).await.expect(sql);
    }
    f.registrar.release();
    let mut tx = f.pool.begin_in(xid(99)).await.expect("begin");
    let rows = sqlx::query(
        "SELECT code -- it\n FROM stock -- of\n WHERE product = 1 -- one\n FOR UPDATE -- end",
    )
    .fetch_all(&mut tx)
    .await
    .expect("select");
    assert_eq!(rows.len(), 1);
}

/// A row that another transaction commits between the locking read and the UPDATE is not
/// reached by it, whatever the isolation level.
#[tokio::test]
async fn images_hold_among_concurrent_writers() {
    for level in ["REPEATABLE READ", "READ COMMITTED"] {
        let f = Fixture::new(
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT NOT NULL, w INT NOT NULL);
             INSERT INTO t (v, w) SELECT seq, 0 FROM seq_1_to_20;",
        )
        .await;
        let set = format!("SET SESSION tx_isolation = '{}'", level.replace(' ', "-"));
        let options = sqlx::mysql::MySqlPoolOptions::new()
            .max_connections(8)
            .after_connect(move |connection, _| {
                let set = set.clone();
                Box::pin(async move {
                    use sqlx::Executor as _;
                    let set = sqlx::raw_sql(sqlx::AssertSqlSafe(set));
                    connection.execute(set).await.map(drop)
                })
            });
        let pool = super::AtPool::builder(&f.url)
            .resource("test-db")
            .pool_options(options)
            .build(f.registrar.clone())
            .expect("a pool");
        let before = f.dump("t").await;
        let mut tasks = Vec::new();
        for number in 1..=4 {
            let pool = pool.clone();
            tasks.push(tokio::spawn(async move {
                for turn in 0..10_u64 {
                    let mut tx = pool
                        .begin_in(xid(number * 100 + turn))
                        .await
                        .expect("begin");
                    let change = if turn % 2 == 0 {
                        "UPDATE t SET v = v + 1, w = w + 1 WHERE v % 2 = 0 AND v < NOW()"
                    } else {
                        "INSERT INTO t (v, w) VALUES (2, 0), (4, 1)"
                    };
                    let ran = sqlx::query(change).execute(&mut tx).await;
                    if ran.is_ok() {
                        let _ = tx.commit().await;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        // Undone in the reverse order of their commits, all is as it was.
        let done: Vec<_> = f
            .registrar
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Done(xid, branch) => Some((xid, branch)),
                _ => None,
            })
            .collect();
        assert!(done.len() > 4, "{level}: {done:?}");
        for (xid, branch) in done.into_iter().rev() {
            f.roll_back(xid, branch)
                .await
                .unwrap_or_else(|error| panic!("{level}: {error:?}"));
        }
        assert_eq!(f.dump("t").await, before, "{level}");
    }
}
