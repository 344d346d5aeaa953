//! Images under real concurrent clients, at every isolation level.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnectOptions;

use super::{Fixture, dump, xid};
use crate::{
    AtPool, Error,
    at::{codec::UndoRecord, image::RowImage},
    is_retryable,
};

const WRITERS: u64 = 8;
const ROUNDS: u64 = 24;

/// Every version of a row has a `v` of its own.
const HOT: &str = "
CREATE SEQUENCE versions;
CREATE TABLE hot (id int PRIMARY KEY, grp int NOT NULL, v bigint NOT NULL DEFAULT nextval('versions'));
INSERT INTO hot SELECT i, i % 2 FROM generate_series(1, 6) i;
CREATE TABLE other (grp int PRIMARY KEY, step int);
INSERT INTO other VALUES (0, 1), (1, 1);";

const STATEMENTS: &[&str] = &[
    "INSERT INTO hot (id, grp) VALUES ($1, 0) \
     ON CONFLICT (id) DO UPDATE SET v = nextval('versions') RETURNING v",
    "INSERT INTO hot (id, grp) SELECT i, 1 FROM generate_series($1::int, $1 + 2) i \
     ON CONFLICT (id) DO UPDATE SET v = nextval('versions'), grp = 1 - hot.grp WHERE hot.v > 0",
    "DELETE FROM hot WHERE id = $1",
    "UPDATE hot SET v = nextval('versions'), grp = 1 - hot.grp FROM other \
     WHERE other.grp = hot.grp AND hot.grp = $1 % 2",
    "UPDATE hot SET v = nextval('versions') WHERE grp = $1 % 2",
    "UPDATE hot SET id = CASE WHEN id > 10 THEN id - 10 ELSE id + 10 END, v = nextval('versions') \
     WHERE id % 10 = $1",
];

/// All images that the branches recorded: what each consumed and what it made.
async fn recorded(f: &Fixture) -> Vec<(Option<RowImage>, Option<RowImage>)> {
    let records: Vec<Vec<u8>> = sqlx::query_scalar("SELECT rollback_info FROM undo_log")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    let records = records
        .iter()
        .map(|record| UndoRecord::decode(record).expect("a record"));
    records
        .flat_map(|record| record.tables)
        .flat_map(|table| table.rows)
        .map(|row| (row.before, row.after))
        .collect()
}

fn version(image: &RowImage) -> i64 {
    let bytes = image.values[2].as_ref().expect("never NULL");
    i64::from_be_bytes(bytes[..].try_into().expect("a bigint"))
}

async fn write(pool: &AtPool, f: &Fixture, number: u64, sql: &'static str, id: i32) {
    loop {
        // The test wants no row locks, only the images.
        f.registrar.release();
        let mut tx = pool.begin_in(xid(number)).await.expect("begin");
        let done = sqlx::query(sql).bind(id).execute(&mut tx).await;
        let done = match done {
            Ok(_) => tx.commit().await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => return,
            Err(error) if is_retryable(&error) || Error::from_sqlx(&error).is_some() => {}
            // A changed key met another row.
            Err(error) if crate::error::sql_state(&error).as_deref() == Some("23505") => return,
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

async fn images_hold_at(level: &str) {
    let f = std::sync::Arc::new(Fixture::new(HOT).await);
    let options: PgConnectOptions = f.url.parse().expect("a URL");
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .connect_options(options.options([("default_transaction_isolation", level)]))
        .max_connections(WRITERS as u32)
        // The test looks at columns that not every statement changes.
        .full_images()
        .build(f.registrar.clone())
        .expect("a pool");
    let start = versions(&f).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (pool, f) = (pool.clone(), f.clone());
        writers.spawn(async move {
            for round in 0..ROUNDS {
                let turn = (writer * 5 + round * 7) as usize;
                let id = ((writer + round * 3) % 6) as i32 + 1;
                let number = writer * 1_000 + round + 1;
                write(&pool, &f, number, STATEMENTS[turn % STATEMENTS.len()], id).await;
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result.expect("no writer panics");
    }
    let mut made = start;
    let mut consumed = BTreeSet::new();
    for (before, after) in recorded(&f).await {
        if let Some(after) = after {
            assert!(made.insert(version(&after)), "{level}: made twice");
        }
        if let Some(before) = before {
            assert!(
                consumed.insert(version(&before)),
                "{level}: two branches saw one version"
            );
        }
    }
    assert!(consumed.len() > 20, "{level}: something happened");
    assert!(consumed.is_subset(&made), "{level}: a version from nowhere");
    let left: BTreeSet<i64> = made.difference(&consumed).copied().collect();
    assert_eq!(
        left,
        versions(&f).await,
        "{level}: what was not consumed is there"
    );
}

async fn versions(f: &Fixture) -> BTreeSet<i64> {
    let rows = dump(f.pool.plain(), "(SELECT v FROM hot)").await;
    rows.iter()
        .map(|row| row.trim_matches(['(', ')']).parse().expect("a number"))
        .collect()
}

/// A trigger that keeps DO UPDATE from updating leaves the old row's image to nobody.
#[tokio::test]
async fn an_image_that_was_put_aside_in_vain_is_nobodys() {
    let f = Fixture::new(
        "CREATE TABLE t (id int PRIMARY KEY, v int);
         INSERT INTO t VALUES (1, 1), (3, 3);
         CREATE TRIGGER same BEFORE UPDATE ON t FOR EACH ROW
           EXECUTE FUNCTION suppress_redundant_updates_trigger();",
    )
    .await;
    let before = f.dump("t").await;
    let upsert =
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 4) ON CONFLICT (id) DO UPDATE SET v = excluded.v";
    f.branch(xid(1), &[upsert, "DELETE FROM t WHERE id = 1", upsert])
        .await
        .expect("commit");
    assert_eq!(f.dump("t").await, ["(1,1)", "(2,2)", "(3,4)"]);
    let rows = recorded(&f).await;
    assert_eq!(
        rows.len(),
        2,
        "row 1 went and came back, row 2 came, row 3 changed"
    );
    f.roll_back(xid(1), 1).await.expect("undone");
    assert_eq!(f.dump("t").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_at_read_committed() {
    images_hold_at("read committed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_at_repeatable_read() {
    images_hold_at("repeatable read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_at_serializable() {
    images_hold_at("serializable").await;
}
