//! The ways in which sqlx users send statements.

use futures_util::TryStreamExt as _;
use sqlx::{
    Column as _, Connection as _, Either, Executor as _, Row as _, SqlSafeStr as _, Statement as _,
};

use super::{Fixture, inside, xid};
use crate::{AtPool, error::Error};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
INSERT INTO stock VALUES (1, 10), (2, 20), (3, 30);";

#[tokio::test]
async fn every_way_to_send_a_statement_is_undone() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let mut tx = f.pool.begin_in(xid(1)).await.expect("begin");
    // Without parameters sqlx would use the protocol whose values are texts.
    let done = tx
        .execute("UPDATE stock SET count = 1 WHERE product = 1;")
        .await
        .expect("text");
    assert_eq!(done.rows_affected(), 1);
    let done = sqlx::raw_sql("DELETE FROM stock WHERE product = 2")
        .execute(&mut tx)
        .await;
    assert_eq!(done.expect("raw").rows_affected(), 1);
    let (product, count): (i64, i64) =
        sqlx::query_as("INSERT INTO stock VALUES ($1, 5) RETURNING *")
            .bind(5_i64)
            .fetch_one(&mut tx)
            .await
            .expect("a tuple");
    assert_eq!((product, count), (5, 5));
    let none = sqlx::query("UPDATE stock SET count = 2 WHERE product = 3")
        .fetch_optional(&mut tx)
        .await;
    assert!(
        none.expect("no RETURNING").is_none(),
        "images are not the user's rows"
    );
    let rows: Vec<_> = sqlx::query("UPDATE stock AS s SET count = 7 RETURNING *, s.count AS again")
        .fetch(&mut tx)
        .try_collect()
        .await
        .expect("a stream");
    assert_eq!(rows.len(), 3);
    let names: Vec<_> = rows[0]
        .columns()
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    assert_eq!(
        names,
        ["product", "count", "again", "accede_before", "accede_after"]
    );
    assert_eq!(rows[0].get::<i64, _>("count"), 7);
    let statement = (&mut tx)
        .prepare("UPDATE stock SET count = count + 1 WHERE product = $1".into_sql_str())
        .await
        .expect("prepared");
    assert_eq!(statement.sql().as_str().len(), 53);
    statement
        .query()
        .bind(1_i64)
        .execute(&mut tx)
        .await
        .expect("a prepared statement");
    let description = (&mut tx)
        .describe("SELECT count FROM stock".into_sql_str())
        .await;
    assert_eq!(description.expect("described").columns().len(), 1);
    let read = tx.fetch_many("SELECT count FROM stock ORDER BY product");
    let steps: Vec<_> = read.try_collect().await.expect("a read");
    let rows = steps.iter().filter(|step| matches!(step, Either::Right(_)));
    assert_eq!(rows.count(), 3);
    tx.commit().await.expect("commit");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

#[tokio::test]
async fn a_lone_statement_is_a_branch_of_its_own() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    inside(xid(1), async {
        let left: Option<i64> =
            sqlx::query_scalar("UPDATE stock SET count = 0 WHERE product = 1 RETURNING count")
                .fetch_optional(&f.pool)
                .await
                .expect("a branch");
        assert_eq!(left, Some(0));
        sqlx::query("DELETE FROM stock WHERE product = 2")
            .execute(&f.pool)
            .await
            .expect("another");
        let rows = sqlx::query("SELECT * FROM stock")
            .fetch_all(&f.pool)
            .await
            .expect("a read");
        assert_eq!(rows.len(), 2);
        let locked = sqlx::query("SELECT * FROM stock FOR UPDATE")
            .fetch_all(&f.pool)
            .await;
        assert_eq!(locked.expect("checked").len(), 2);
        let error = sqlx::query("TRUNCATE stock")
            .execute(&f.pool)
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("TRUNCATE"), "{error}");
    })
    .await;
    assert_eq!(f.dump("undo_log").await.len(), 2);
    f.roll_back(xid(1), 2).await.expect("undone");
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced() {
    let f = Fixture::with(STOCK, |builder| builder.max_connections(1)).await;
    let mut admin = sqlx::PgConnection::connect(&f.url).await.expect("connect");
    for number in 1..4 {
        f.registrar.release();
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut admin)
        .await
        .expect("killed");
        if number == 2 {
            let mut tx = f.pool.begin().await.expect("begin");
            sqlx::query("SELECT 1")
                .execute(&mut tx)
                .await
                .expect("a new connection");
        } else {
            f.branch(xid(number), &["UPDATE stock SET count = count + 1"])
                .await
                .expect("a new connection");
        }
    }
}

#[tokio::test]
async fn a_plain_transaction_is_sqlx_s_own() {
    let f = Fixture::new(STOCK).await;
    let mut tx = f.pool.begin().await.expect("begin");
    assert_eq!(tx.xid(), None);
    sqlx::raw_sql("SAVEPOINT a; UPDATE stock SET count = 0; ROLLBACK TO a; DELETE FROM stock WHERE product = 1")
        .execute(&mut tx)
        .await
        .expect("untouched");
    tx.commit().await.expect("commit");
    let mut tx = f.pool.begin().await.expect("begin");
    sqlx::query("DELETE FROM stock")
        .execute(&mut tx)
        .await
        .expect("untouched");
    drop(tx);
    let mut tx = f.pool.begin().await.expect("begin");
    sqlx::query("DELETE FROM stock")
        .execute(&mut tx)
        .await
        .expect("untouched");
    tx.rollback().await.expect("rollback");
    assert_eq!(f.dump("stock").await, ["(2,20)", "(3,30)"]);
    assert!(f.registrar.events().is_empty() && f.dump("undo_log").await.is_empty());
}

#[tokio::test]
async fn no_connection_says_why() {
    let f = Fixture::new(STOCK).await;
    let patience = std::time::Duration::from_millis(200);
    let small = AtPool::builder(&f.url)
        .resource("test-db")
        .max_connections(1)
        .acquire_timeout(patience)
        .build(f.registrar.clone())
        .expect("a pool");
    let mut held = small.begin_plain().await.expect("the only one");
    held.execute("SELECT 1").await.expect("alive");
    let refused = small.begin().await.expect_err("none is free");
    let text = refused.to_string();
    assert!(text.contains("all 1 are in use"), "{text}");
    assert!(text.contains("test-db within 200ms"), "{text}");

    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let down = AtPool::builder(&format!("postgres://nobody@127.0.0.1:{port}/none"))
        .resource("test-db")
        .acquire_timeout(patience)
        .build(f.registrar.clone())
        .expect("a pool");
    for refused in [
        down.begin().await.expect_err("down"),
        inside(xid(1), (&down).execute("DELETE FROM stock"))
            .await
            .expect_err("down"),
    ] {
        let found = Error::from_sqlx(&refused);
        assert!(
            matches!(found, Some(Error::NoConnection { .. })),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("refused"), "{refused}");
    }
}
