//! Statements, registration, commit.

use sqlx::Row as _;

use super::{
    Fixture, inside, proxy,
    registrar::{Answer, Event},
    xid,
};
use crate::{AtPool, Error, RefusalCode};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL, name text UNIQUE);
INSERT INTO stock VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL);";

#[tokio::test]
async fn an_update_is_registered_and_undone() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let xid = xid(1);
    inside(xid, async {
        let mut tx = f.pool.begin().await.expect("begin");
        assert_eq!(tx.xid(), Some(xid));
        let left: i64 = sqlx::query_scalar(
            "UPDATE stock SET count = count - $1 WHERE product = $2 AND count >= $1 RETURNING count",
        )
        .bind(3_i64)
        .bind(1_i64)
        .fetch_one(&mut tx)
        .await
        .expect("update");
        assert_eq!(left, 7);
        let done = sqlx::query("UPDATE stock SET count = 0 WHERE product > 1")
            .execute(&mut tx)
            .await
            .expect("update");
        assert_eq!(done.rows_affected(), 2);
        tx.commit().await.expect("commit");
    })
    .await;
    assert_eq!(
        f.registrar.events(),
        [Event::Registered(xid, 1, 3), Event::Done(xid, 1)]
    );
    assert_ne!(f.dump("stock").await, before);
    f.roll_back(xid, 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
    f.roll_back(xid, 1).await.expect("a repeat does nothing");
}

#[tokio::test]
async fn inserts_and_deletes_are_undone() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    let xid = xid(2);
    let mut tx = f.pool.begin_in(xid).await.expect("begin");
    let rows = sqlx::query(
        "INSERT INTO stock AS s (product, count, name) VALUES ($1, 1, 'x'), (5, 5, NULL) \
         RETURNING *, s.count + 1 AS more -- the end",
    )
    .bind(4_i64)
    .fetch_all(&mut tx)
    .await
    .expect("insert");
    assert_eq!(
        rows.iter()
            .map(|r| r.get::<i64, _>("product"))
            .collect::<Vec<_>>(),
        [4, 5]
    );
    assert_eq!(rows[0].get::<i64, _>("more"), 2);
    let gone = sqlx::query("DELETE FROM stock WHERE product IN (SELECT 2 UNION SELECT 4)")
        .execute(&mut tx)
        .await
        .expect("delete");
    assert_eq!(gone.rows_affected(), 2);
    tx.commit().await.expect("commit");
    // Rows 2, 4, 5 and the names b and x.
    assert_eq!(f.registrar.events()[0], Event::Registered(xid, 1, 5));
    f.roll_back(xid, 1).await.expect("undone");
    assert_eq!(f.dump("stock").await, before);
}

/// Waits until all connections are back in the pool.
async fn settled(pool: &AtPool) {
    while pool.plain().num_idle() < pool.plain().size() as usize {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn costs_three_trips_and_one_registration() {
    let f = Fixture::new(STOCK).await;
    let (url, trips) = proxy::start(&f.url).await;
    let pool = AtPool::builder(&url)
        .resource("test-db")
        .max_connections(1)
        .build(f.registrar.clone())
        .expect("a pool");
    let update = "UPDATE stock SET count = count - 1 WHERE product = $1";
    let run = |number| {
        let pool = &pool;
        async move {
            let mut tx = pool.begin_in(xid(number)).await.expect("begin");
            sqlx::query(update)
                .bind(1_i64)
                .execute(&mut tx)
                .await
                .expect("update");
            tx.commit().await.expect("commit");
        }
    };
    // The first run prepares the statement and reads the catalog.
    run(10).await;
    f.registrar.release();
    f.registrar.take_events();
    settled(&pool).await;
    trips.take();
    run(11).await;
    // sqlx tests a connection when it comes back: here once nobody has used it for a while.
    let release = 1;
    settled(&pool).await;
    assert_eq!(trips.take(), 3 + release);
    assert_eq!(f.registrar.take_events().len(), 2, "registered and done");

    // Outside a global transaction: what sqlx itself does.
    let plain = |number: i64| {
        let pool = &pool;
        async move {
            let mut tx = pool.begin().await.expect("begin");
            sqlx::query(update)
                .bind(number)
                .execute(&mut tx)
                .await
                .expect("update");
            tx.commit().await.expect("commit");
        }
    };
    plain(1).await;
    settled(&pool).await;
    trips.take();
    plain(1).await;
    settled(&pool).await;
    assert_eq!(trips.take(), 3 + release);
    sqlx::query(update)
        .bind(1_i64)
        .execute(&pool)
        .await
        .expect("lone");
    settled(&pool).await;
    assert_eq!(trips.take(), 1 + release);
    assert!(f.registrar.take_events().is_empty());

    // A lone statement is its own branch at the same price.
    f.registrar.release();
    inside(xid(12), async {
        sqlx::query(update)
            .bind(1_i64)
            .execute(&pool)
            .await
            .expect("lone");
    })
    .await;
    settled(&pool).await;
    assert_eq!(trips.take(), 3 + release);
    assert_eq!(f.registrar.take_events().len(), 2);
}

#[tokio::test]
async fn what_changes_nothing_registers_nothing() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(20), &[]).await.expect("empty");
    f.branch(
        xid(20),
        &[
            "SELECT * FROM stock",
            "UPDATE stock SET count = 1 WHERE product = 99",
            "UPDATE stock SET count = count",
            "INSERT INTO stock VALUES (1, 1, 'z') ON CONFLICT DO NOTHING",
        ],
    )
    .await
    .expect("nothing changed");
    assert!(f.registrar.events().is_empty());
}

#[tokio::test]
async fn passing_refusals_are_repeated_others_are_not() {
    let f = Fixture::new(STOCK).await;
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderRollingBack));
    inside(xid(30), async {
        sqlx::query("DELETE FROM stock WHERE product = 1")
            .execute(&f.pool)
            .await
            .expect("again");
    })
    .await;
    assert_eq!(f.registrar.take_events().len(), 2);

    f.registrar.answer(Answer::Refuse(RefusalCode::Overloaded));
    let mut runs = 0;
    inside(
        xid(31),
        f.pool.run(|tx| {
            runs += 1;
            Box::pin(async move {
                sqlx::query("DELETE FROM stock WHERE product = 2")
                    .execute(tx)
                    .await
            })
        }),
    )
    .await
    .expect("again");
    assert_eq!(runs, 2);

    f.registrar
        .answer(Answer::Refuse(RefusalCode::AlreadyDecided));
    let error = f
        .branch(xid(32), &["DELETE FROM stock"])
        .await
        .expect_err("refused");
    assert!(matches!(
        Error::from_sqlx(&error),
        Some(Error::Refused(refused)) if refused.code == RefusalCode::AlreadyDecided
    ));
    assert_eq!(f.dump("stock").await.len(), 1, "rolled back locally");
}

#[tokio::test]
async fn for_update_asks_for_the_locks_while_it_holds_the_rows() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(40), &["UPDATE stock SET count = 5 WHERE product = 1"])
        .await
        .expect("commit");
    let read = |number, sql: &'static str| {
        let f = &f;
        async move {
            let mut tx = f.pool.begin_in(xid(number)).await?;
            match sqlx::query(sql).fetch_one(&mut tx).await {
                Ok(row) => tx.commit().await.map(|()| row.get::<i64, _>(0)),
                Err(error) => {
                    tx.rollback().await?;
                    Err(error)
                }
            }
        }
    };
    let plain = read(41, "SELECT count FROM stock WHERE product = 1")
        .await
        .expect("dirty read");
    assert_eq!(plain, 5);
    for sql in [
        "SELECT count FROM stock WHERE product = 1 FOR UPDATE",
        "SELECT s.count, s.* FROM stock s JOIN stock t USING (product) WHERE product = 1 FOR NO KEY UPDATE OF s",
        "SELECT count FROM stock WHERE product = 1 FOR SHARE NOWAIT",
    ] {
        let error = read(42, sql).await.expect_err("held");
        assert!(
            matches!(Error::from_sqlx(&error), Some(Error::Refused(_))),
            "{error}"
        );
    }
    f.registrar.take_events();
    let free = read(43, "SELECT count FROM stock WHERE product = 2 FOR UPDATE").await;
    assert_eq!(free.expect("free"), 20);
    assert_eq!(f.registrar.events(), [Event::Checked(xid(43), 1)]);
}

#[tokio::test]
async fn a_local_lock_is_waited_for_within_the_patience() {
    let f = Fixture::with(STOCK, |builder| {
        builder.lock_wait(std::time::Duration::from_millis(100))
    })
    .await;
    let mut holder = f.pool.begin_plain().await.expect("begin");
    sqlx::query("DELETE FROM stock WHERE product = 1")
        .execute(&mut holder)
        .await
        .expect("lock");
    let error = f
        .branch(xid(1), &["UPDATE stock SET count = 0"])
        .await
        .expect_err("locked");
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::LocalLockTimedOut { .. })
        ),
        "{error}"
    );
    holder.rollback().await.expect("rollback");
    assert!(f.registrar.events().is_empty());
}

#[tokio::test]
async fn durability_is_forced_where_the_session_has_it_off() {
    let f = Fixture::new(STOCK).await;
    let options: sqlx::postgres::PgConnectOptions = f.url.parse().expect("a URL");
    f.execute(
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NEW; END';
         CREATE TRIGGER see AFTER INSERT ON undo_log FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .connect_options(options.options([("synchronous_commit", "off")]))
        .build(f.registrar.clone())
        .expect("a pool");
    let mut tx = pool.begin_in(xid(1)).await.expect("begin");
    sqlx::query("DELETE FROM stock")
        .execute(&mut tx)
        .await
        .expect("delete");
    tx.commit().await.expect("commit");
    assert_eq!(f.dump("seen").await, ["(on)"]);
}

#[tokio::test]
async fn row_locks_of_unique_values_meet_across_rows() {
    let f = Fixture::new(STOCK).await;
    f.branch(xid(1), &["UPDATE stock SET name = 'z' WHERE product = 1"])
        .await
        .expect("commit");
    // The name that the first one gave up is still its to take back.
    let error = f
        .branch(xid(2), &["INSERT INTO stock VALUES (9, 9, 'a')"])
        .await;
    let error = error.expect_err("held");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::Refused(_))),
        "{error}"
    );
    f.roll_back(xid(1), 1).await.expect("the name is free");
}

#[tokio::test]
async fn a_late_commit_is_refused_by_the_database() {
    let f = Fixture::new(STOCK).await;
    let before = f.dump("stock").await;
    f.registrar
        .answer(Answer::GiveUp(std::time::Duration::ZERO));
    let error = f
        .branch(xid(50), &["DELETE FROM stock"])
        .await
        .expect_err("late");
    assert!(
        matches!(Error::from_sqlx(&error), Some(Error::GaveUp { .. })),
        "{error}"
    );
    assert_eq!(
        f.registrar.take_events(),
        [
            Event::Registered(xid(50), 1, 5),
            Event::Withdrawn(xid(50), 1)
        ]
    );
    f.registrar.release();
    // Rolled back before it committed: the defence row is in its way.
    super::phase_two::roll_back(
        f.pool.phase_two(),
        super::BranchKey {
            xid: xid(51),
            branch: 1,
        },
        false,
        super::UndoPolicy::Check,
    )
    .await
    .expect("nothing to undo");
    let error = f
        .branch(xid(51), &["DELETE FROM stock"])
        .await
        .expect_err("late");
    assert!(
        matches!(
            Error::from_sqlx(&error),
            Some(Error::RolledBackMeanwhile { .. })
        ),
        "{error}"
    );
    assert_eq!(f.dump("stock").await, before);
}
