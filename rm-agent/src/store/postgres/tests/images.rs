//! Images: every type byte for byte, right under concurrency, any mix of statements.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};
use sqlx::Row as _;

use super::{Fixture, xid};
use crate::is_retryable;

const TYPES: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE types (
  id numeric, part uuid, PRIMARY KEY (id, part),
  a bigint, b jsonb, c json, d numeric, e uuid, f timestamptz, g date, h time, i interval,
  j int[], k text[][], l mood, m mood[], n positive, o pair, p bytea, q inet, r int4range, s xml,
  t bit(5), u macaddr, v point, w tsvector, x money, y float8, z boolean, aa char(5), ab name,
  ac oid, ad pg_lsn, ae int4multirange, af int4multirange[], ag float4, ah \"char\",
  \"Odd \"\"name\" int GENERATED ALWAYS AS (length(p) + 1) STORED,
  ident int GENERATED ALWAYS AS IDENTITY, deflt int DEFAULT 7);
INSERT INTO types VALUES (1.50, '00000000-0000-0000-0000-000000000001',
  -9223372036854775808, '{\"a\": [1, 2.50]}', '{\"b\":  1}', 123456789.987654321000, gen_random_uuid(),
  '2026-01-01 00:00:00.123456+03', 'infinity', '23:59:59.999999', '1 mon -2 days 03:04:05.000001',
  '{1,NULL,3}', '{{a,b},{\"c,d\",NULL}}', 'sad', '{ok,sad}', 0.000000000000000000001,
  '(1,\"x\\\"y\")', '\\x00ff', '10.0.0.1/8', '[1,5)', '<a>&amp;</a>', B'10101', '08:00:2b:01:02:03',
  '(0.1,-2)', '''fat'':1A ''cat'':2', 12.34, 'NaN', true, 'ab', 'some_name', 4294967295, '16/B374D848',
  '{[1,3),[5,7)}', '{\"{[1,2)}\",\"{}\"}', 16777.217, 'q');
INSERT INTO types (id, part) VALUES (-2, '00000000-0000-0000-0000-000000000002');";

#[tokio::test]
async fn every_type_comes_back_byte_for_byte() {
    every_type_comes_back(false).await;
}

#[tokio::test]
async fn every_type_comes_back_from_whole_images() {
    every_type_comes_back(true).await;
}

async fn every_type_comes_back(whole: bool) {
    let f = Fixture::with(TYPES, |builder| match whole {
        true => builder.full_images(),
        false => builder,
    })
    .await;
    let before = f.dump("types").await;
    let all = "SELECT md5(string_agg(encode(record_send(whole), 'hex'), '' ORDER BY id)) FROM types whole";
    let digest = || async {
        sqlx::query_scalar::<_, String>(all)
            .fetch_one(f.pool.plain())
            .await
            .expect("readable")
    };
    let bytes = digest().await;
    let branches: [&[&str]; 3] = [
        &["DELETE FROM types"],
        &["UPDATE types SET a = 5, b = NULL, d = 1, f = now(), i = NULL, j = NULL, l = 'ok', o = NULL,
           s = NULL, v = NULL, y = -0.0, ae = '{}', af = NULL, ag = 1, deflt = NULL"],
        &["UPDATE types SET y = 1 WHERE id = 1.5", "DELETE FROM types WHERE id = 1.5",
          "INSERT INTO types (id, part) SELECT id + 10, part FROM types"],
    ];
    for (number, statements) in (1..).zip(branches) {
        f.registrar.release();
        f.branch(xid(number), statements).await.expect("commit");
        assert_ne!(f.dump("types").await, before);
        f.roll_back(xid(number), 1).await.expect("undone");
        assert_eq!(f.dump("types").await, before);
        assert_eq!(digest().await, bytes, "{statements:?}");
    }
    // The report can show every type, and its statement can write it.
    f.registrar.release();
    f.branch(
        xid(9),
        &[
            "UPDATE types SET a = 0, l = NULL",
            "DELETE FROM types WHERE id < 0",
        ],
    )
    .await
    .expect("commit");
    // What the branch left alone stays as others made it, unless it was recorded too.
    f.execute("UPDATE types SET a = 1").await;
    if whole {
        f.execute("UPDATE types SET b = NULL, n = NULL, o = NULL, x = NULL, ae = NULL")
            .await;
    }
    let repair_statement = match f.roll_back(xid(9), 1).await {
        Err(super::PhaseTwoError::Stuck {
            repair_statement, ..
        }) => repair_statement,
        other => panic!("not stuck: {other:?}"),
    };
    f.execute(&repair_statement).await;
    assert_eq!(digest().await, bytes);
}

/// Rows move between groups while twelve branches update by group. Every
/// committed before image must be the after image of the branch before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_right_on_hot_rows() {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 30;
    let f = Fixture::new(
        "CREATE TABLE hot (id int PRIMARY KEY, grp int NOT NULL, v bigint NOT NULL);
         INSERT INTO hot SELECT i, i % 2, 0 FROM generate_series(1, 6) i;",
    )
    .await;
    let start = hot_rows(&f).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let pool = f.pool.clone();
        let registrar = f.registrar.clone();
        writers.spawn(async move {
            for round in 0..ROUNDS {
                loop {
                    // The test wants no row locks, only the images.
                    registrar.release();
                    let mut tx = pool
                        .begin_in(xid(writer * 1_000 + round + 1))
                        .await
                        .expect("begin");
                    let grp = ((writer + round) % 2) as i32;
                    let done = sqlx::query(
                        "UPDATE hot SET v = v + 1, grp = 1 - grp WHERE grp = $1 AND v >= 0",
                    )
                    .bind(grp)
                    .execute(&mut tx)
                    .await;
                    let done = match done {
                        Ok(_) => tx.commit().await,
                        Err(error) => Err(error),
                    };
                    match done {
                        Ok(()) => break,
                        Err(error)
                            if is_retryable(&error)
                                || crate::Error::from_sqlx(&error).is_some() => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result.expect("no writer panics");
    }
    // Chain: per row, each version once as before and once as after image.
    let mut chain: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let records: Vec<Vec<u8>> = sqlx::query_scalar("SELECT rollback_info FROM undo_log")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    for record in records {
        let record = crate::at::codec::UndoRecord::decode(&record).expect("a record");
        for row in &record.tables[0].rows {
            let (before, after) = (
                row.before.as_ref().expect("update"),
                row.after.as_ref().expect("update"),
            );
            let flat = |image: &crate::at::image::RowImage| -> Vec<u8> {
                image
                    .values
                    .iter()
                    .flatten()
                    .flat_map(|v| v.to_vec())
                    .collect()
            };
            let id = before.values[0].as_ref().expect("a key").to_vec();
            let twice = chain.insert((id, flat(before)), flat(after));
            assert!(twice.is_none(), "two branches saw the same version");
        }
    }
    let end = hot_rows(&f).await;
    for (id, first) in start {
        let mut version = first;
        while let Some(next) = chain.remove(&(id.clone(), version.clone())) {
            version = next;
        }
        assert_eq!(version, end[&id], "the chain of images ends at the row");
    }
    assert!(chain.is_empty(), "no image is outside the chains");
}

async fn hot_rows(f: &Fixture) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let rows = sqlx::query("SELECT id, grp, v FROM hot")
        .fetch_all(f.pool.plain())
        .await
        .expect("rows");
    rows.iter()
        .map(|row| {
            let bytes = |i: usize| {
                row.try_get_raw(i)
                    .expect("there")
                    .as_bytes()
                    .expect("no NULL")
                    .to_vec()
            };
            (bytes(0), [bytes(0), bytes(1), bytes(2)].concat())
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Op {
    Insert(i32, Option<i32>, String),
    InsertSelect(i32),
    Update(i32, i32),
    UpdateAll(i32),
    Rename(i32, String),
    Delete(i32),
    DeleteRange(i32, i32),
}

impl Op {
    fn sql(&self) -> String {
        match self {
            Op::Insert(id, Some(v), s) => {
                format!(
                    "INSERT INTO t (k1, k2, v, s) VALUES ({id}, 'x', {v}, '{s}') ON CONFLICT DO NOTHING"
                )
            }
            Op::Insert(id, None, s) => {
                format!(
                    "INSERT INTO t (k1, k2, s) VALUES ({id}, 'x', '{s}'), ({id}, 'y', NULL) ON CONFLICT DO NOTHING"
                )
            }
            Op::InsertSelect(by) => format!(
                "INSERT INTO t AS z (k1, k2, v) SELECT k1 + {by}, k2 || 'z', v FROM t ON CONFLICT DO NOTHING RETURNING k1"
            ),
            Op::Update(id, v) => format!("UPDATE t SET v = v + {v} WHERE k1 = {id} RETURNING *"),
            Op::UpdateAll(v) => format!(
                "UPDATE t AS me SET v = (SELECT count(*) + {v} FROM t o WHERE o.k1 < me.k1), f = random()"
            ),
            Op::Rename(id, s) => format!(
                "UPDATE t SET s = '{s}' WHERE (k1, k2) IN (SELECT k1, k2 FROM t WHERE k1 = {id} LIMIT 1) AND NOT EXISTS (SELECT FROM t WHERE s = '{s}')"
            ),
            Op::Delete(id) => {
                format!("WITH d AS (SELECT {id} AS n) DELETE FROM t USING d WHERE k1 = d.n")
            }
            Op::DeleteRange(a, b) => {
                format!("DELETE FROM t WHERE k1 BETWEEN {a} AND {b} RETURNING *, v")
            }
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let id = 0..8_i32;
    prop_oneof![
        (id.clone(), proptest::option::of(0..9_i32), "[a-c]{1,2}")
            .prop_map(|(i, v, s)| Op::Insert(i, v, s)),
        (1..4_i32).prop_map(Op::InsertSelect),
        (id.clone(), -3..4_i32).prop_map(|(i, v)| Op::Update(i, v)),
        (0..5_i32).prop_map(Op::UpdateAll),
        (id.clone(), "[a-c]{1,2}").prop_map(|(i, s)| Op::Rename(i, s)),
        id.clone().prop_map(Op::Delete),
        (id.clone(), id).prop_map(|(a, b)| Op::DeleteRange(a, b)),
    ]
}

#[test]
fn any_mix_of_statements_is_undone() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let f = runtime.block_on(Fixture::new(
        "CREATE TABLE t (k1 int, k2 varchar(9), v bigint DEFAULT 5, s text, f float8,
           twice bigint GENERATED ALWAYS AS (v * 2) STORED, n serial, PRIMARY KEY (k2, k1));
         CREATE UNIQUE INDEX ON t (lower(s)) WHERE s <> 'cc';",
    ));
    let numbers = std::sync::atomic::AtomicU64::new(1);
    let config = proptest::test_runner::Config {
        cases: 60,
        failure_persistence: None,
        ..Default::default()
    };
    let strategy = (
        proptest::collection::vec(any_op(), 0..6),
        proptest::collection::vec(any_op(), 1..7),
    );
    let outcome = TestRunner::new(config).run(&strategy, |(setup, ops)| {
        let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        runtime.block_on(async {
            f.registrar.release();
            f.execute("TRUNCATE t").await;
            for op in &setup {
                // Some violate the unique index; they leave no rows then.
                let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(op.sql()))
                    .execute(f.pool.plain())
                    .await;
            }
            let before = f.dump("t").await;
            let sql: Vec<String> = ops.iter().map(Op::sql).collect();
            let sql: Vec<&str> = sql.iter().map(String::as_str).collect();
            match f.branch(xid(number), &sql).await {
                Ok(()) => {
                    let undo = f.dump("undo_log").await;
                    if !undo.is_empty() {
                        f.roll_back(xid(number), 1)
                            .await
                            .map_err(|e| TestCaseError::fail(e.to_string()))?;
                    }
                }
                Err(error) if error.as_database_error().is_some() => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
            f.execute("TRUNCATE undo_log").await;
            prop_assert_eq!(f.dump("t").await, before);
            Ok(())
        })
    });
    outcome.expect("every branch is undone");
}

/// The rewritten statement finds its rows by the index, twice: to lock and to update.
#[tokio::test]
async fn the_images_cost_no_scan() {
    let f = Fixture::new(
        "CREATE TABLE stock (product bigint PRIMARY KEY, count bigint);
         INSERT INTO stock SELECT i, i FROM generate_series(1, 10000) i; ANALYZE stock;",
    )
    .await;
    let mut connection = f.pool.plain().acquire().await.expect("connect");
    for sql in [
        "UPDATE stock SET count = count - 1 WHERE product = 7 AND count >= 1 RETURNING count",
        "UPDATE stock SET count = 0 WHERE product IN (1, 2, 3)",
        "DELETE FROM stock WHERE product = 7",
        "SELECT * FROM stock WHERE product = 7 FOR UPDATE",
    ] {
        let plan = f
            .pool
            .planner()
            .plan(sql, &mut connection)
            .await
            .expect("planned");
        let sql = match &*plan {
            super::super::plan::Plan::Write(plan) => &plan.sql,
            super::super::plan::Plan::Locking { sql, .. } => sql,
            super::super::plan::Plan::Read => panic!("{sql} is no read"),
        };
        let lines: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN (COSTS OFF) {sql}")))
                .fetch_all(&mut *connection)
                .await
                .expect("explained");
        let explained = lines.join("\n");
        assert!(!explained.contains("Seq Scan"), "{sql}\n{explained}");
    }
}
