//! XA: prepared, then ended by orders.

mod beside_at;
mod interrupted;
mod open;

use std::time::Duration;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

use super::{
    super::{XaPool, xa::XaName},
    AtPool, AtPoolBuilder, BranchKey, Fixture, PhaseTwoError, UndoPolicy, inside, phase_two, proxy,
    registrar::{Answer, Event},
    xid,
};
use crate::{Error, RefusalCode, global_lock, store::finish::Ledger};

const CLUSTER: [u8; 16] = [0xab; 16];

const STOCK: &str = "
CREATE TABLE stock (product BIGINT PRIMARY KEY, count BIGINT NOT NULL);
INSERT INTO stock VALUES (1, 10), (2, 20);
CREATE TABLE heap (note TEXT);";

const TAKE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";

async fn fixture() -> (Fixture, XaPool) {
    fixture_with(|builder| builder).await
}

async fn fixture_with(configure: impl FnOnce(AtPoolBuilder) -> AtPoolBuilder) -> (Fixture, XaPool) {
    let f = Fixture::with(STOCK, configure).await;
    phase_two::claim_cluster(f.pool.phase_two(), CLUSTER)
        .await
        .expect("tied");
    let xa = f.pool.xa();
    (f, xa)
}

fn key(number: u64) -> BranchKey {
    BranchKey {
        xid: xid(number),
        branch: 1,
    }
}

fn payload(f: &Fixture, number: u64) -> Bytes {
    match f.registrar.payload(xid(number), 1) {
        none if none.is_empty() => Bytes::from_static(&[0; 8]),
        payload => payload,
    }
}

async fn name(f: &Fixture, number: u64) -> XaName {
    let names = f.pool.xa_known().names(&f.pool).await.expect("tied");
    let token = payload(f, number)[..].try_into().expect("eight bytes");
    names.of(xid(number), u64::from_be_bytes(token))
}

async fn prepare(xa: &XaPool, number: u64, sql: &str) -> Result<(), sqlx::Error> {
    let mut tx = xa.begin_in(xid(number)).await?;
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(&mut tx)
        .await?;
    tx.commit().await
}

/// How many prepared transactions this database has.
async fn prepared(f: &Fixture) -> u64 {
    let found = phase_two::prepared(&f.pool, Duration::ZERO, 100).await;
    found.expect("reads").ours
}

/// Products and what is left of them.
async fn stock(f: &Fixture) -> Vec<(i64, i64)> {
    sqlx::query_as("SELECT product, count FROM stock ORDER BY product")
        .fetch_all(f.pool.plain())
        .await
        .expect("reads")
}

const BEFORE: [(i64, i64); 2] = [(1, 10), (2, 20)];
const TAKEN: [(i64, i64); 2] = [(1, 9), (2, 20)];

async fn fences(f: &Fixture) -> Vec<i16> {
    sqlx::query_scalar("SELECT status FROM accede_fence ORDER BY xid, branch_id")
        .fetch_all(f.pool.plain())
        .await
        .expect("reads")
}

async fn commit_by(f: &Fixture, pool: &AtPool, number: u64) -> Result<(), PhaseTwoError> {
    phase_two::commit_prepared(pool, key(number), &payload(f, number)).await
}

async fn commit(f: &Fixture, number: u64) -> Result<(), PhaseTwoError> {
    commit_by(f, &f.pool, number).await
}

async fn roll_back_by(
    f: &Fixture,
    pool: &AtPool,
    number: u64,
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    phase_two::roll_back_prepared(pool, key(number), &payload(f, number), policy).await
}

async fn roll_back(f: &Fixture, number: u64) -> Result<(), PhaseTwoError> {
    roll_back_by(f, &f.pool, number, UndoPolicy::Check).await
}

/// Another agent's pool on the same database.
fn another(f: &Fixture, url: &str) -> AtPool {
    AtPool::builder(url)
        .resource("test-db")
        .build(f.registrar.clone())
        .expect("a pool")
}

fn stuck(result: Result<(), PhaseTwoError>) -> String {
    match result {
        Err(PhaseTwoError::Stuck { reason, .. }) => reason,
        other => panic!("expected stuck, got {other:?}"),
    }
}

fn own(error: &sqlx::Error) -> &Error {
    Error::from_sqlx(error).unwrap_or_else(|| panic!("an error of this crate, not {error}"))
}

#[tokio::test]
async fn a_branch_is_prepared_then_committed_however_often() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, TAKE).await.expect("prepared");
    assert_eq!(
        f.registrar.take_events(),
        [Event::Registered(xid(1), 1, 0), Event::Done(xid(1), 1)]
    );
    assert_eq!(prepared(&f).await, 1);
    assert_eq!(stock(&f).await, BEFORE, "unseen");
    assert!(fences(&f).await.is_empty(), "its fence is unseen, too");
    for _ in 0..3 {
        commit(&f, 1).await.expect("committed");
        assert_eq!(stock(&f).await, TAKEN);
        assert_eq!(fences(&f).await, [1]);
        assert_eq!(prepared(&f).await, 0);
    }
    // Nothing reverses it.
    let reason = stuck(roll_back(&f, 1).await);
    assert!(reason.contains("was committed here"), "{reason}");
    stuck(roll_back_by(&f, &f.pool, 1, UndoPolicy::Forced).await);
    roll_back_by(&f, &f.pool, 1, UndoPolicy::AcceptCurrent)
        .await
        .expect("an operator accepted it");
    assert_eq!(stock(&f).await, TAKEN);
}

#[tokio::test]
async fn a_branch_is_prepared_then_rolled_back_however_often() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, TAKE).await.expect("prepared");
    for _ in 0..3 {
        roll_back(&f, 1).await.expect("rolled back");
        assert_eq!(stock(&f).await, BEFORE);
        assert_eq!(prepared(&f).await, 0);
    }
    let reason = stuck(commit(&f, 1).await);
    assert!(reason.contains("it was rolled back here"), "{reason}");
    // Somebody rolled back by hand, and nothing tells of it.
    let reason = stuck(commit(&f, 7).await);
    assert!(
        reason.contains("neither a prepared transaction"),
        "{reason}"
    );
    let name = name(&f, 7).await.to_string();
    assert!(reason.contains(&name), "{reason}");
    // An order of another agent's kind.
    let odd = phase_two::commit_prepared(&f.pool, key(8), b"odd").await;
    assert!(stuck(odd).contains("3 bytes"), "names what is wrong");
}

#[tokio::test]
async fn any_agent_and_any_user_ends_it_once_its_session_lets_go() {
    let (f, xa) = fixture().await;
    let database = f.url.rsplit('/').next().expect("a name").to_owned();
    f.execute(&format!(
        "CREATE USER '{database}'@'127.0.0.1';
         GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO '{database}'@'127.0.0.1'"
    ))
    .await;
    let url = f.url.replace("root@", &format!("{database}@"));
    let other = another(&f, &url);
    for (number, commits) in [(1, true), (2, false)] {
        prepare(&xa, number, TAKE).await.expect("prepared");
        // The session that prepared it keeps it from others, which neither takes it for lost nor
        // bars it.
        let early = match commits {
            true => commit_by(&f, &other, number).await,
            false => roll_back_by(&f, &other, number, UndoPolicy::Check).await,
        };
        assert!(
            matches!(&early, Err(PhaseTwoError::Failed { reason }) if reason.contains("still holds")),
            "{early:?}"
        );
        // It is closed after a while.
        tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let late = match commits {
                    true => commit_by(&f, &other, number).await,
                    false => roll_back_by(&f, &other, number, UndoPolicy::Check).await,
                };
                match late {
                    Ok(()) => break,
                    Err(PhaseTwoError::Failed { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
        .expect("handed over");
        assert_eq!(stock(&f).await, TAKEN);
        assert_eq!(prepared(&f).await, 0);
    }
    assert_eq!(fences(&f).await, [1], "the prepared one was rolled back");
}

#[tokio::test]
async fn the_server_ends_a_silent_session_that_holds_one() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, TAKE).await.expect("prepared");
    // As if the agent hung: nothing closes the connection.
    let silent = f.pool.parked().take(key(1)).expect("parked");
    let other = another(&f, &f.url);
    tokio::time::timeout(Duration::from_secs(60), async {
        while let Err(error) = commit_by(&f, &other, 1).await {
            assert!(matches!(error, PhaseTwoError::Failed { .. }), "{error}");
        }
    })
    .await
    .expect("handed over");
    assert_eq!(stock(&f).await, TAKEN);
    drop(silent);
}

#[tokio::test]
async fn what_only_read_is_no_branch() {
    let (f, xa) = fixture().await;
    f.execute(
        "CREATE FUNCTION note() RETURNS INT MODIFIES SQL DATA
         BEGIN INSERT INTO heap VALUES ('x'); RETURN 1; END",
    )
    .await;
    for sql in [
        "SELECT count FROM stock",
        // What found no row to change.
        "UPDATE stock SET count = 0 WHERE product = 77",
        "DELETE FROM stock WHERE product = 77",
    ] {
        prepare(&xa, 1, sql).await.expect("nothing");
        assert!(f.registrar.take_events().is_empty(), "{sql}");
        assert_eq!(prepared(&f).await, 0);
    }
    // Nor is what sent nothing.
    let tx = xa.begin_in(xid(1)).await.expect("begins");
    tx.commit().await.expect("nothing");
    assert!(f.registrar.take_events().is_empty());
    // A function that writes, and locks that must last.
    for (number, sql) in [
        (2, "SELECT note()"),
        (3, "SELECT * FROM stock WHERE product = 2 FOR UPDATE"),
        (4, "UPDATE stock SET count = note() WHERE product = 1"),
        (
            5,
            "UPDATE stock SET count = 0 WHERE product = 1 AND note() = 0",
        ),
    ] {
        prepare(&xa, number, sql).await.expect("prepared");
        assert_eq!(f.registrar.take_events().len(), 2, "{sql}");
        assert_eq!(prepared(&f).await, 1, "{sql}");
        commit(&f, number).await.expect("committed");
    }
    assert_eq!(f.dump("heap").await.len(), 3);
}

#[tokio::test]
async fn statements_run_untouched_and_control_is_refused() {
    let (f, xa) = fixture().await;
    f.execute("CREATE TABLE loose (note INT) ENGINE = MyISAM")
        .await;
    let mut tx = xa.begin_in(xid(1)).await.expect("begins");
    for sql in [
        "INSERT INTO heap VALUES ('a')",
        "SAVEPOINT here",
        "DELETE FROM stock",
        "ROLLBACK TO here",
        "UPDATE stock, (SELECT 5 AS five) a SET count = a.five WHERE product = 2",
    ] {
        sqlx::raw_sql(sql).execute(&mut tx).await.expect(sql);
    }
    for (sql, command) in [
        ("COMMIT", "COMMIT"),
        ("rollback", "ROLLBACK"),
        ("XA END 'mine'", "XA"),
        ("SELECT 1; BEGIN", "BEGIN"),
    ] {
        let error = sqlx::raw_sql(sql)
            .execute(&mut tx)
            .await
            .expect_err("refused");
        assert!(
            matches!(own(&error), Error::TransactionControl { command: said } if said == command),
            "{sql}: {error}"
        );
    }
    // What would stay whatever becomes of the transaction.
    let error = sqlx::query("INSERT INTO `Loose` VALUES (1)")
        .execute(&mut tx)
        .await
        .expect_err("refused");
    assert!(
        matches!(own(&error), Error::Table { table, .. } if table == "loose"),
        "{error}"
    );
    sqlx::query("SELECT * FROM loose")
        .fetch_all(&mut tx)
        .await
        .expect("reading is fine");
    // Statements that the database refuses are nothing to the others.
    for sql in [
        "CREATE TABLE made (id INT)",
        "TRUNCATE heap",
        "INSERT INTO stock VALUES (1, 1)",
    ] {
        sqlx::query(sql)
            .execute(&mut tx)
            .await
            .expect_err("refused");
    }
    let row = sqlx::query("SELECT CAST(? + 1 AS SIGNED), count FROM stock WHERE product = 2")
        .bind(41)
        .fetch_one(&mut tx)
        .await
        .expect("reads its own writes");
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (42, 5));
    assert_eq!(row.len(), 2, "no column of ours");
    tx.commit().await.expect("prepared");
    commit(&f, 1).await.expect("committed");
    assert_eq!(stock(&f).await, [(1, 10), (2, 5)]);
    // Outside of a global transaction, the table is the application's business.
    let mut tx = xa.begin().await.expect("begins");
    sqlx::query("INSERT INTO loose VALUES (1)")
        .execute(&mut tx)
        .await
        .expect("plain");
    tx.rollback().await.expect("rolls back");
}

#[tokio::test]
async fn foreign_prepared_transactions_are_nobodys_business() {
    let (f, xa) = fixture().await;
    let database = f.url.rsplit('/').next().expect("a name").to_owned();
    prepare(&xa, 1, TAKE).await.expect("prepared");
    let ours = name(&f, 1).await.to_string();
    let names = f.pool.xa_known().names(&f.pool).await.expect("tied");
    let foreign = [
        format!("'mine','{database}'"),
        ours.replace(&"ab".repeat(16), &"00".repeat(16)),
        format!("{},7", names.of(xid(1), 77)),
        format!("X'ff','{database}'"),
    ];
    for name in &foreign {
        let mut other = MySqlConnection::connect(&f.url).await.expect("connects");
        sqlx::raw_sql(AssertSqlSafe(format!(
            "XA START {name}; INSERT INTO heap VALUES ('x'); XA END {name}; XA PREPARE {name}"
        )))
        .execute(&mut other)
        .await
        .expect("prepared");
        other.close().await.expect("closes");
    }
    let found = phase_two::prepared(&f.pool, Duration::ZERO, 10)
        .await
        .expect("reads");
    assert_eq!((found.ours, found.most), (1, 0));
    assert!(found.used >= 5);
    assert_eq!(found.old.len(), 1);
    assert_eq!((found.old[0].xid, &found.old[0].name), (xid(1), &ours));
    let young = phase_two::prepared(&f.pool, Duration::from_secs(3600), 10)
        .await
        .expect("reads");
    assert_eq!((young.ours, young.old.len()), (1, 0));
    roll_back(&f, 1).await.expect("rolled back");
    for name in foreign {
        // Still there. The server lets go of it when its session has ended.
        let roll_back = format!("XA ROLLBACK {name}");
        tokio::time::timeout(Duration::from_secs(10), async {
            while sqlx::raw_sql(AssertSqlSafe(roll_back.clone()))
                .execute(f.pool.plain())
                .await
                .is_err()
            {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("untouched");
    }
}

#[tokio::test]
async fn costs_three_trips_and_one_in_phase_two() {
    let (f, _) = fixture().await;
    let (url, trips) = proxy::start(&f.url).await;
    let pool = another(&f, &url);
    let xa = pool.xa();
    let (mut least, mut least_after) = (usize::MAX, usize::MAX);
    for number in 1..8 {
        trips.take();
        prepare(&xa, number, TAKE).await.expect("prepared");
        least = least.min(trips.take());
        commit_by(&f, &pool, number).await.expect("committed");
        least_after = least_after.min(trips.take());
    }
    assert_eq!(least, 3, "XA START, UPDATE, XA PREPARE");
    assert_eq!(least_after, 1, "XA COMMIT");
    let mut reading = usize::MAX;
    for number in 10..14 {
        trips.take();
        prepare(&xa, number, "SELECT 1").await.expect("read");
        reading = reading.min(trips.take());
    }
    assert_eq!(reading, 3, "XA START, SELECT, XA COMMIT ONE PHASE");
}

#[tokio::test]
async fn outside_of_a_global_transaction_it_is_a_plain_one() {
    let (f, xa) = fixture().await;
    let mut tx = xa.begin().await.expect("begins");
    assert_eq!(tx.xid(), None);
    sqlx::query(TAKE).execute(&mut tx).await.expect("updates");
    let error = sqlx::raw_sql("COMMIT").execute(&mut tx).await;
    assert!(error.is_err(), "ended by its methods only");
    tx.commit().await.expect("commits");
    assert_eq!(stock(&f).await, TAKEN);
    let tx = xa.begin().await.expect("begins");
    tx.rollback().await.expect("rolls back");
    // A scope that promises to check row locks.
    let error = global_lock(async { xa.begin().await.expect_err("refused") }).await;
    assert!(error.to_string().contains("use the AT pool"), "{error}");
    assert!(f.registrar.take_events().is_empty());
    // The task's own transaction.
    let of_task = inside(xid(9), async { xa.begin().await.expect("begins").xid() }).await;
    assert_eq!(of_task, Some(xid(9)));
}

#[tokio::test]
async fn run_repeats_what_failed_for_a_passing_reason() {
    let (f, xa) = fixture().await;
    f.registrar
        .answer(Answer::Refuse(RefusalCode::HolderRollingBack));
    let mut runs = 0;
    inside(xid(1), async {
        xa.run(|tx| {
            runs += 1;
            Box::pin(async move {
                sqlx::query(TAKE).execute(tx).await?;
                Ok::<_, sqlx::Error>(())
            })
        })
        .await
    })
    .await
    .expect("prepared");
    assert_eq!(runs, 2);
    commit(&f, 1).await.expect("committed");
    assert_eq!(stock(&f).await, TAKEN);
}

#[tokio::test]
async fn a_database_without_cluster_or_fences_is_refused() {
    let f = Fixture::new(STOCK).await;
    let error = prepare(&f.pool.xa(), 1, TAKE).await.expect_err("no name");
    assert!(
        error.to_string().contains("not tied to a cluster"),
        "{error}"
    );
    assert!(f.registrar.take_events().is_empty());
    let f = Fixture::new("DROP TABLE accede_fence").await;
    let error = f.pool.xa().begin_in(xid(1)).await.expect_err("no fences");
    assert!(error.to_string().contains("accede_fence"), "{error}");
    assert!(
        error.to_string().contains("accede schema create"),
        "{error}"
    );
    let age = Duration::ZERO;
    let found = phase_two::leftovers(f.pool.phase_two(), Ledger::FENCES, age, None, 9);
    assert!(found.await.expect("none").is_empty());
}

#[tokio::test]
async fn a_session_that_reads_otherwise_is_refused() {
    for mode in ["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"] {
        let options = sqlx::mysql::MySqlPoolOptions::new().after_connect(move |connection, _| {
            Box::pin(async move {
                let set = format!("SET SESSION sql_mode = '{mode}'");
                sqlx::raw_sql(AssertSqlSafe(set))
                    .execute(connection)
                    .await
                    .map(drop)
            })
        });
        let (_f, xa) = fixture_with(|builder| builder.pool_options(options)).await;
        let error = prepare(&xa, 1, TAKE).await.expect_err("refused");
        assert!(error.to_string().contains(mode), "{error}");
    }
}

/// Branches that cross with the rollbacks of their neighbours never wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fences_of_neighbours_do_not_meet() {
    let (f, xa) = fixture_with(|builder| builder.max_connections(8)).await;
    let setup = (100..160).map(|id| format!("({id}, 1)"));
    let setup: Vec<String> = setup.collect();
    f.execute(&format!("INSERT INTO stock VALUES {}", setup.join(", ")))
        .await;
    let mut work = tokio::task::JoinSet::new();
    for number in 100..160 {
        let (xa, pool) = (xa.clone(), f.pool.clone());
        work.spawn(async move {
            let sql = format!("UPDATE stock SET count = 0 WHERE product = {number}");
            prepare(&xa, number, &sql).await.map_err(|e| e.to_string())
        });
        // The order for another one, of which there is no trace.
        work.spawn(async move {
            let key = BranchKey {
                xid: xid(number),
                branch: 2,
            };
            phase_two::roll_back_prepared(&pool, key, &[0; 8], UndoPolicy::Check)
                .await
                .map_err(|e| e.to_string())
        });
    }
    while let Some(done) = work.join_next().await {
        done.expect("ran").expect("nothing meets");
    }
    for number in 100..160 {
        commit(&f, number).await.expect("committed");
    }
    assert_eq!(fences(&f).await.len(), 120);
}

#[tokio::test]
async fn parked_connections_make_room_for_others() {
    let (f, xa) = fixture_with(|builder| builder.max_connections(2)).await;
    // Each of them keeps its connection, and the pool has two.
    for number in 1..6 {
        let sql = format!("INSERT INTO stock VALUES ({number} + 10, 1)");
        prepare(&xa, number, &sql).await.expect("prepared");
    }
    for number in 1..6 {
        commit(&f, number).await.expect("committed");
    }
    assert_eq!(stock(&f).await.len(), 7);
}

#[tokio::test]
async fn fences_of_ended_transactions_go() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, TAKE).await.expect("prepared");
    commit(&f, 1).await.expect("committed");
    roll_back(&f, 2).await.expect("barred");
    assert_eq!(fences(&f).await, [1, 3]);
    phase_two::purge_markers(f.pool.phase_two(), Ledger::FENCES, &[key(1)])
        .await
        .expect("deleted");
    assert_eq!(fences(&f).await, [3]);
}
