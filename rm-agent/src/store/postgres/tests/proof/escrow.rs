//! The proof for columns in escrow: many transactions add to the same rows before any of them is
//! decided, some roll back, in any order; the tables equal a shadow copy in which only those that
//! committed ever ran.

use std::fmt::Write as _;

use accede_proto::Xid;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{
    super::{AtPool, BranchKey, Fixture, UndoPolicy, phase_two, xid},
    kinds::{self, KINDS, Kind},
    random::Random,
    setting,
};

/// Statements of an ordinary test run.
const STATEMENTS: u64 = 200;
/// Rows that everybody adds to have ids below this; above, each transaction has a range of its own.
const SHARED: usize = 100;
/// What a column may hold: no sum of the generated changes leaves it.
const BOUNDS: std::ops::RangeInclusive<i64> = -30_000..=30_000;
const NAMES: [&str; 3] = ["count", "\"Mixed\"", "\"a b\""];
const UNQUOTED: [&str; 3] = ["count", "Mixed", "a b"];

/// A table with numbers that many add to, and others.
struct Pot {
    name: String,
    /// How many of `NAMES` it has.
    numbers: usize,
    other: &'static Kind,
}

impl Pot {
    fn new(random: &mut Random, number: usize) -> Self {
        Self {
            name: format!("pot{number}"),
            numbers: 1 + random.below(NAMES.len()),
            other: loop {
                let kind = random.pick(KINDS);
                if !kind.is_xml() {
                    break kind;
                }
            },
        }
    }

    fn create(&self, random: &mut Random) -> String {
        let mut sql = format!("CREATE TABLE {} (id int PRIMARY KEY", self.name);
        for name in &NAMES[..self.numbers] {
            let kind = random.pick(&["smallint", "int", "bigint"]);
            let _ = write!(sql, ", {name} {kind}");
        }
        let _ = write!(
            sql,
            ", other {}, note text DEFAULT 'as it was', code int UNIQUE);",
            self.other.sql
        );
        for id in 1..=5 {
            let _ = write!(sql, "INSERT INTO {} VALUES ({id}", self.name);
            for _ in 0..self.numbers {
                match random.once_in(8) {
                    true => sql.push_str(", NULL"),
                    false => drop(write!(sql, ", {}", random.below(100))),
                }
            }
            let _ = write!(sql, ", {});", self.other.literal(random.below(9)));
        }
        sql
    }

    /// Adds to shared rows.
    fn add(&self, random: &mut Random) -> String {
        let mut changes: Vec<String> = Vec::new();
        for name in &NAMES[..self.numbers] {
            if changes.is_empty() || random.once_in(2) {
                let sign = random.pick(&["+", "-"]);
                changes.push(format!("{name} = {name} {sign} {}", random.below(60)));
            }
        }
        let which = match random.below(4) {
            0 => format!("id < {SHARED}"),
            1 => format!("id IN ({}, {})", 1 + random.below(5), 1 + random.below(5)),
            _ => format!("id = {}", 1 + random.below(5)),
        };
        let returning = if random.once_in(3) {
            " RETURNING id, note"
        } else {
            ""
        };
        format!(
            "UPDATE {} SET {} WHERE {which}{returning}",
            self.name,
            changes.join(", ")
        )
    }

    /// Does something to rows that no other transaction knows.
    fn work(&self, random: &mut Random, owner: usize) -> String {
        let from = SHARED * owner;
        let id = from + random.below(4);
        let name = &self.name;
        let value = self.other.literal(random.below(9));
        match random.below(5) {
            0 | 1 => format!(
                "INSERT INTO {name} (id, count, other) VALUES ({id}, {}, {value}) \
                 ON CONFLICT (id) DO UPDATE SET count = 7",
                random.below(50)
            ),
            2 => format!(
                "UPDATE {name} SET note = 'mine', other = {value} WHERE id / {SHARED} = {owner}"
            ),
            3 => format!("UPDATE {name} SET count = count + 3 WHERE id = {id}"),
            _ => format!("DELETE FROM {name} WHERE id = {id}"),
        }
    }
}

/// A global transaction: its branches, and the statements that ran in them.
struct Open {
    xid: Xid,
    branches: Vec<u32>,
    ran: Vec<String>,
}

struct Play<'a> {
    f: &'a Fixture,
    pool: AtPool,
    live: PgConnection,
    shadow: PgConnection,
    pots: Vec<Pot>,
}

impl<'a> Play<'a> {
    async fn new(f: &'a Fixture, random: &mut Random) -> Self {
        let pots: Vec<Pot> = (0..1 + random.below(2))
            .map(|n| Pot::new(random, n))
            .collect();
        let create: String = pots.iter().map(|pot| pot.create(random)).collect();
        f.execute(
            "DROP SCHEMA IF EXISTS live, shadow CASCADE; CREATE SCHEMA live; CREATE SCHEMA shadow",
        )
        .await;
        let options = |path: &str| -> PgConnectOptions {
            let options: PgConnectOptions = f.url.parse().expect("a URL");
            options.options([("search_path", path)])
        };
        let mut connections = Vec::new();
        for path in ["live,public", "shadow,public"] {
            let connected = PgConnection::connect_with(&options(path)).await;
            let mut connection = connected.expect("connect");
            run(&mut connection, &create).await;
            connections.push(connection);
        }
        let mut builder = AtPool::builder(&f.url)
            .resource("proof")
            .connect_options(options("live,public"))
            .max_connections(2);
        for pot in &pots {
            for name in &UNQUOTED[..pot.numbers] {
                builder = builder.escrow_column(&pot.name, name, BOUNDS);
            }
        }
        let shadow = connections.pop().expect("two");
        Self {
            f,
            pool: builder.build(f.registrar.clone()).expect("a pool"),
            live: connections.pop().expect("two"),
            shadow,
            pots,
        }
    }

    /// Runs a branch, which commits locally and stays undecided.
    async fn branch(&self, random: &mut Random, owner: usize, open: &mut Open) -> u64 {
        let mut tx = self.pool.begin_in(open.xid).await.expect("begin");
        let mut ran = Vec::new();
        let mut mark = None;
        for _ in 0..1 + random.below(4) {
            if random.once_in(6) && mark.is_none() {
                mark = Some(ran.len());
                sqlx::query("SAVEPOINT one")
                    .execute(&mut tx)
                    .await
                    .expect("savepoint");
            }
            let pot = random.pick(&self.pots);
            let sql = match random.once_in(3) {
                true => pot.work(random, owner),
                false => pot.add(random),
            };
            let done = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .execute(&mut tx)
                .await;
            done.unwrap_or_else(|error| panic!("{sql}: {error}"));
            ran.push(sql);
            if let (Some(at), true) = (mark, random.once_in(3)) {
                sqlx::query("ROLLBACK TO one")
                    .execute(&mut tx)
                    .await
                    .expect("back");
                ran.truncate(at);
            }
        }
        let before = self.f.registrar.done_branches(open.xid).len();
        tx.commit()
            .await
            .unwrap_or_else(|error| panic!("{ran:?}: {error}"));
        let done = self.f.registrar.done_branches(open.xid);
        open.branches.extend(&done[before..]);
        let count = ran.len() as u64;
        open.ran.extend(ran);
        count
    }

    async fn end(&mut self, open: Open, commit: bool) {
        let keys = open.branches.iter().rev();
        let keys: Vec<BranchKey> = keys
            .map(|&branch| BranchKey {
                xid: open.xid,
                branch,
            })
            .collect();
        if commit {
            run(&mut self.shadow, "BEGIN").await;
            for sql in &open.ran {
                run(&mut self.shadow, sql).await;
            }
            run(&mut self.shadow, "COMMIT").await;
            let deleted = phase_two::delete_undo(self.pool.phase_two(), &keys).await;
            deleted.expect("undo records are deleted");
        } else {
            for key in keys {
                phase_two::roll_back(self.pool.phase_two(), key, true, UndoPolicy::Check)
                    .await
                    .unwrap_or_else(|error| panic!("{:?}: {error:?}", open.ran));
            }
        }
        self.f.registrar.finish(open.xid);
    }

    async fn compare(&mut self, what: &str) {
        for pot in &self.pots {
            let sql = format!(
                "SELECT concat_ws('|', encode(record_send(w), 'hex'), w::text) FROM {} w ORDER BY 1",
                pot.name
            );
            let mut tables: Vec<Vec<String>> = Vec::new();
            for connection in [&mut self.live, &mut self.shadow] {
                let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()));
                tables.push(rows.fetch_all(connection).await.expect("readable"));
            }
            assert_eq!(tables[0], tables[1], "{what}: {}", pot.name);
        }
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn what_many_added_is_taken_back_exactly() {
    let f = Fixture::new(kinds::USER_TYPES).await;
    let wanted = setting("ACCEDE_TEST_STATEMENTS", STATEMENTS);
    let (mut statements, mut together, mut ends) = (0, 0, [0_u64; 2]);
    for seed in setting("ACCEDE_TEST_SEED", 1).. {
        let mut random = Random::new(seed);
        let mut play = Play::new(&f, &mut random).await;
        let mut open: Vec<(usize, Open)> = Vec::new();
        let mut next = 1;
        for _ in 0..12 {
            match random.below(4) {
                // Another branch of one that is open.
                0 if !open.is_empty() => {
                    let at = random.below(open.len());
                    let (owner, of) = &mut open[at];
                    statements += play.branch(&mut random, *owner, of).await;
                }
                1 if !open.is_empty() => {
                    let (_, of) = open.remove(random.below(open.len()));
                    let commit = random.once_in(2);
                    ends[usize::from(commit)] += 1;
                    play.end(of, commit).await;
                }
                _ => {
                    let mut of = Open {
                        xid: xid(next as u64),
                        branches: Vec::new(),
                        ran: Vec::new(),
                    };
                    statements += play.branch(&mut random, next, &mut of).await;
                    open.push((next, of));
                    next += 1;
                }
            }
            together = together.max(open.len());
        }
        while !open.is_empty() {
            let (_, of) = open.remove(random.below(open.len()));
            let commit = random.once_in(2);
            ends[usize::from(commit)] += 1;
            play.end(of, commit).await;
        }
        play.compare(&format!("ACCEDE_TEST_SEED={seed}")).await;
        let left = "SELECT count(*) FROM public.undo_log WHERE log_status = 0";
        let left: i64 = sqlx::query_scalar(left)
            .fetch_one(&mut play.live)
            .await
            .expect("readable");
        assert_eq!((left, f.registrar.held_locks()), (0, 0), "seed {seed}");
        f.execute("DELETE FROM undo_log").await;
        play.pool.plain().close().await;
        play.pool.phase_two().close().await;
        if statements >= wanted {
            break;
        }
    }
    println!("{statements} statements, {together} open at once, [rolled back, committed] {ends:?}");
    assert!(
        together > 3 && ends.iter().all(|&ends| ends > 5),
        "{together} {ends:?}"
    );
}
