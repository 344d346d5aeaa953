//! Images under real concurrent clients, at every isolation level.

use std::collections::BTreeSet;

use sqlx::mysql::MySqlPoolOptions;

use super::{super::error_number, AtPool, Fixture, xid};
use crate::{
    Error,
    at::{codec::UndoRecord, image::RowImage},
    is_retryable,
};

const WRITERS: u64 = 8;
const ROUNDS: u64 = 24;

/// Every version of a row has a `v` of its own.
const HOT: &str = "
CREATE TABLE hot (id INT PRIMARY KEY, grp INT NOT NULL, v BIGINT UNSIGNED NOT NULL DEFAULT UUID_SHORT(),
  code INT UNIQUE);
INSERT INTO hot (id, grp, code) SELECT seq, seq % 2, seq FROM seq_1_to_6;
CREATE TABLE other (grp INT PRIMARY KEY, step INT);
INSERT INTO other VALUES (0, 1), (1, 1);";

const STATEMENTS: &[&str] = &[
    "INSERT INTO hot (id, grp) VALUES (?, 0) ON DUPLICATE KEY UPDATE v = UUID_SHORT() RETURNING v",
    "INSERT INTO hot (id, grp) SELECT seq, 1 FROM seq_1_to_6 WHERE seq >= ? \
     ON DUPLICATE KEY UPDATE v = UUID_SHORT(), grp = 1 - hot.grp",
    "INSERT INTO hot (id, grp, code) VALUES (20, 0, ?), (1, 1, 20) \
     ON DUPLICATE KEY UPDATE v = UUID_SHORT()",
    "INSERT IGNORE INTO hot (id, grp) SELECT seq, 1 FROM seq_1_to_9 WHERE seq >= ?",
    "REPLACE INTO hot (id, grp, code) VALUES (?, 1, 3)",
    "DELETE FROM hot WHERE id = ?",
    "DELETE hot FROM hot JOIN other ON other.grp = hot.grp WHERE hot.id > 6 + ?",
    "UPDATE hot JOIN other ON other.grp = hot.grp SET hot.v = UUID_SHORT(), hot.grp = 1 - hot.grp \
     WHERE hot.grp = ? % 2",
    "UPDATE hot SET v = UUID_SHORT() WHERE grp = ? % 2",
    "UPDATE hot SET id = CASE WHEN id > 10 THEN id - 10 ELSE id + 10 END, v = UUID_SHORT() \
     WHERE id % 10 = ?",
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

fn version(image: &RowImage) -> u64 {
    let digits = image.values[2].as_ref().expect("never NULL");
    let digits = std::str::from_utf8(digits).expect("digits");
    digits.parse().expect("a number")
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
            Err(error) if error_number(&error) == Some(1062) => return,
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

async fn images_hold_at(level: &'static str) {
    let f = std::sync::Arc::new(Fixture::new(HOT).await);
    let options = MySqlPoolOptions::new()
        .max_connections(WRITERS as u32)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                use sqlx::Executor as _;
                let set = format!("SET SESSION tx_isolation = '{level}'");
                let set = sqlx::raw_sql(sqlx::AssertSqlSafe(set));
                connection.execute(set).await.map(drop)
            })
        });
    let pool = AtPool::builder(&f.url)
        .resource("test-db")
        .pool_options(options)
        // Every version of a row shall be found, also where it did not change.
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
    let left: BTreeSet<u64> = made.difference(&consumed).copied().collect();
    assert_eq!(
        left,
        versions(&f).await,
        "{level}: what was not consumed is there"
    );
}

async fn versions(f: &Fixture) -> BTreeSet<u64> {
    let versions: Vec<u64> = sqlx::query_scalar("SELECT v FROM hot")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    versions.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_at_read_committed() {
    images_hold_at("READ-COMMITTED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_at_repeatable_read() {
    images_hold_at("REPEATABLE-READ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_at_serializable() {
    images_hold_at("SERIALIZABLE").await;
}
