//! XA: prepared, then ended by orders.

mod beside_at;
mod interrupted;
mod open;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{
    BranchKey, Fixture, PhaseTwoError, UndoPolicy, inside, phase_two, proxy,
    registrar::{Answer, Event},
    xid,
};
use crate::{AtPool, Error, RefusalCode, XaPool, global_lock, store::finish::Ledger};

const STOCK: &str = "
CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL);
INSERT INTO stock VALUES (1, 10), (2, 20);
CREATE TABLE heap (note text);";

async fn fixture() -> (Fixture, XaPool) {
    fixture_with(|builder| builder).await
}

async fn fixture_with(
    configure: impl FnOnce(super::AtPoolBuilder) -> super::AtPoolBuilder,
) -> (Fixture, XaPool) {
    let f = Fixture::with(STOCK, configure).await;
    phase_two::claim_cluster(f.pool.phase_two(), cluster(&f))
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

/// A cluster for each test: their databases share a server, and so the names of prepared
/// transactions.
fn cluster(f: &Fixture) -> [u8; 16] {
    let mut id = [0xab; 16];
    // The database's own name.
    for (byte, letter) in id.iter_mut().zip(f.url.bytes().rev()) {
        *byte = letter;
    }
    id
}

fn name(f: &Fixture, number: u64) -> String {
    let cluster = uuid::Uuid::from_bytes(cluster(f));
    format!("accede:{}:{}:1", cluster.simple(), xid(number))
}

async fn prepare(xa: &XaPool, number: u64, sql: &str) -> Result<(), sqlx::Error> {
    let mut tx = xa.begin_in(xid(number)).await?;
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(&mut tx)
        .await?;
    tx.commit().await
}

const TAKE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";

/// The names of this database's prepared transactions.
async fn prepared(f: &Fixture) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid",
    )
    .fetch_all(f.pool.plain())
    .await
    .expect("reads")
}

async fn fences(f: &Fixture) -> Vec<i16> {
    sqlx::query_scalar("SELECT status FROM accede_fence ORDER BY xid, branch_id")
        .fetch_all(f.pool.plain())
        .await
        .expect("reads")
}

async fn commit(f: &Fixture, number: u64) -> Result<(), PhaseTwoError> {
    phase_two::commit_prepared(&f.pool, key(number)).await
}

async fn roll_back(f: &Fixture, number: u64) -> Result<(), PhaseTwoError> {
    phase_two::roll_back_prepared(&f.pool, key(number), UndoPolicy::Check).await
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
    assert_eq!(prepared(&f).await, [name(&f, 1)]);
    assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"], "unseen");
    assert!(fences(&f).await.is_empty(), "its fence is unseen, too");
    for _ in 0..3 {
        commit(&f, 1).await.expect("committed");
        assert_eq!(f.dump("stock").await, ["(1,9)", "(2,20)"]);
        assert_eq!(fences(&f).await, [1]);
        assert!(prepared(&f).await.is_empty());
    }
    // Nothing reverses it.
    let reason = stuck(roll_back(&f, 1).await);
    assert!(reason.contains("was committed here"), "{reason}");
    let forced = phase_two::roll_back_prepared(&f.pool, key(1), UndoPolicy::Forced).await;
    stuck(forced);
    phase_two::roll_back_prepared(&f.pool, key(1), UndoPolicy::AcceptCurrent)
        .await
        .expect("an operator accepted it");
    assert_eq!(f.dump("stock").await, ["(1,9)", "(2,20)"]);
}

#[tokio::test]
async fn a_branch_is_prepared_then_rolled_back_however_often() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, TAKE).await.expect("prepared");
    for _ in 0..3 {
        roll_back(&f, 1).await.expect("rolled back");
        assert_eq!(f.dump("stock").await, ["(1,10)", "(2,20)"]);
        assert!(prepared(&f).await.is_empty());
    }
    let reason = stuck(commit(&f, 1).await);
    assert!(reason.contains("it was rolled back here"), "{reason}");
    // Somebody rolled back by hand, and nothing tells of it.
    let reason = stuck(commit(&f, 7).await);
    assert!(
        reason.contains("neither a prepared transaction"),
        "{reason}"
    );
    assert!(reason.contains(&name(&f, 7)), "{reason}");
}

#[tokio::test]
async fn what_only_read_is_no_branch() {
    let (f, xa) = fixture().await;
    f.execute(
        "CREATE FUNCTION note() RETURNS bigint LANGUAGE sql AS
         'INSERT INTO heap VALUES (''x''); SELECT 1::bigint'",
    )
    .await;
    prepare(&xa, 1, "SELECT count FROM stock")
        .await
        .expect("reads");
    assert!(f.registrar.take_events().is_empty());
    assert!(prepared(&f).await.is_empty());
    // Nor is what sent nothing.
    let tx = xa.begin_in(xid(1)).await.expect("begins");
    tx.commit().await.expect("nothing");
    assert!(f.registrar.take_events().is_empty());
    // Nor is what found no row to change, with and without a list to return.
    for sql in [
        "UPDATE stock SET count = 0 WHERE product = 77",
        "DELETE FROM stock WHERE product = 77 RETURNING count",
    ] {
        prepare(&xa, 1, sql).await.expect("nothing");
        assert!(f.registrar.take_events().is_empty(), "{sql}");
    }
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
        assert_eq!(prepared(&f).await, [name(&f, number)], "{sql}");
        commit(&f, number).await.expect("committed");
    }
    assert_eq!(f.dump("heap").await.len(), 3);
}

#[tokio::test]
async fn statements_run_untouched_and_control_is_refused() {
    let (f, xa) = fixture().await;
    let mut tx = xa.begin_in(xid(1)).await.expect("begins");
    for sql in [
        "INSERT INTO heap VALUES ('a')",
        "CREATE TABLE made (id int)",
        "WITH gone AS (DELETE FROM stock WHERE product = 2 RETURNING count)
         INSERT INTO made SELECT count FROM gone",
        "DO $$ BEGIN UPDATE stock SET count = 0; END $$",
        "TRUNCATE heap",
    ] {
        sqlx::query(sql).execute(&mut tx).await.expect(sql);
    }
    for (sql, command) in [
        ("COMMIT", "COMMIT"),
        ("rollback", "ROLLBACK"),
        ("PREPARE TRANSACTION 'mine'", "PREPARE TRANSACTION"),
        ("SELECT 1; END", "END"),
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
    let row = sqlx::query("SELECT $1::int + 1, count FROM stock")
        .bind(41)
        .fetch_one(&mut tx)
        .await
        .expect("reads its own writes");
    assert_eq!((row.get::<i32, _>(0), row.get::<i64, _>(1)), (42, 0));
    assert_eq!(row.len(), 2, "no column of ours");
    tx.commit().await.expect("prepared");
    commit(&f, 1).await.expect("committed");
    assert_eq!(f.dump("stock").await, ["(1,0)"]);
    assert_eq!(f.dump("made").await, ["(20)"]);

    // What the database cannot prepare it refuses, and the branch is withdrawn.
    f.registrar.take_events();
    let error = prepare(&xa, 2, "CREATE TEMP TABLE t AS SELECT 1")
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("temporary"), "{error}");
    let error = prepare(&xa, 3, "SELECT pg_notify('a', 'b')")
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("NOTIFY"), "{error}");
    assert_eq!(
        f.registrar.take_events(),
        [
            Event::Registered(xid(2), 1, 0),
            Event::Withdrawn(xid(2), 1),
            Event::Registered(xid(3), 1, 0),
            Event::Withdrawn(xid(3), 1)
        ]
    );
    assert!(prepared(&f).await.is_empty());
}

#[tokio::test]
async fn another_role_may_not_end_it() {
    let (f, _) = fixture().await;
    let database = f.url.rsplit('/').next().expect("a name").to_owned();
    let role = |number: u32| format!("{database}_role{number}");
    for number in [1, 2] {
        let role = role(number);
        f.execute(&format!(
            "CREATE ROLE {role} LOGIN;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .await;
    }
    let pool = |number| {
        let url = f.url.replace("tester@", &format!("{}@", role(number)));
        AtPool::builder(&url)
            .resource("test-db")
            .build(f.registrar.clone())
            .expect("a pool")
    };
    let (one, two) = (pool(1), pool(2));
    prepare(&one.xa(), 1, TAKE).await.expect("prepared");
    for result in [
        phase_two::commit_prepared(&two, key(1)).await,
        phase_two::roll_back_prepared(&two, key(1), UndoPolicy::Check).await,
    ] {
        let Err(PhaseTwoError::Failed { reason }) = result else {
            panic!("expected a failure, got {result:?}");
        };
        assert!(
            reason.contains(&role(1)) && reason.contains(&role(2)),
            "{reason}"
        );
    }
    assert_eq!(prepared(&f).await, [name(&f, 1)]);
    phase_two::commit_prepared(&one, key(1))
        .await
        .expect("its own role");
}

#[tokio::test]
async fn foreign_prepared_transactions_are_nobodys_business() {
    let (f, xa) = fixture().await;
    let database = f.url.rsplit('/').next().expect("a name").to_owned();
    let foreign = [
        format!(
            "accede:00000000000000000000000000000000:{}:1{database}",
            xid(1)
        ),
        format!("mine-{database}"),
    ];
    for name in &foreign {
        let mut other = PgConnection::connect(&f.url).await.expect("connects");
        sqlx::raw_sql(AssertSqlSafe(format!(
            "BEGIN; INSERT INTO heap VALUES ('x'); PREPARE TRANSACTION '{name}'"
        )))
        .execute(&mut other)
        .await
        .expect("prepared");
    }
    prepare(&xa, 1, TAKE).await.expect("prepared");
    let found = phase_two::prepared(&f.pool, std::time::Duration::ZERO, 10)
        .await
        .expect("reads");
    assert_eq!((found.ours, found.most), (1, 200));
    assert!(found.used >= 3);
    assert_eq!(found.old.len(), 1);
    assert_eq!(
        (found.old[0].xid, &found.old[0].name),
        (xid(1), &name(&f, 1))
    );
    let young = phase_two::prepared(&f.pool, std::time::Duration::from_secs(3600), 10)
        .await
        .expect("reads");
    assert_eq!((young.ours, young.old.len()), (1, 0));
    roll_back(&f, 1).await.expect("rolled back");
    assert_eq!(prepared(&f).await, foreign);
    for name in foreign {
        f.execute(&format!("ROLLBACK PREPARED '{name}'")).await;
    }
}

#[tokio::test]
async fn costs_three_trips_and_one_in_phase_two() {
    let (f, _) = fixture().await;
    let (url, trips) = proxy::start(&f.url).await;
    let pool = AtPool::builder(&url)
        .resource("test-db")
        .build(f.registrar.clone())
        .expect("a pool");
    let xa = pool.xa();
    let (mut least, mut least_after) = (usize::MAX, usize::MAX);
    for number in 1..8 {
        trips.take();
        prepare(&xa, number, TAKE).await.expect("prepared");
        least = least.min(trips.take());
        phase_two::commit_prepared(&pool, key(number))
            .await
            .expect("committed");
        least_after = least_after.min(trips.take());
    }
    assert_eq!(least, 3, "BEGIN, UPDATE, PREPARE TRANSACTION");
    assert_eq!(least_after, 1, "COMMIT PREPARED");
    let mut reading = usize::MAX;
    for number in 10..14 {
        trips.take();
        prepare(&xa, number, "SELECT 1").await.expect("read");
        reading = reading.min(trips.take());
    }
    assert_eq!(
        reading, 4,
        "BEGIN, SELECT, the question whether it wrote, COMMIT"
    );
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
    assert_eq!(f.dump("stock").await, ["(1,9)", "(2,20)"]);
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
    assert_eq!(f.dump("stock").await, ["(1,9)", "(2,20)"]);
}

#[tokio::test]
async fn a_database_without_cluster_or_fences_is_refused() {
    let f = Fixture::new(STOCK).await;
    let error = prepare(&f.pool.xa(), 1, TAKE).await.expect_err("no name");
    assert!(
        error.to_string().contains("not tied to a cluster"),
        "{error}"
    );
    assert_eq!(
        f.registrar.take_events(),
        [Event::Registered(xid(1), 1, 0), Event::Withdrawn(xid(1), 1)]
    );
    let f = Fixture::new("DROP TABLE accede_fence").await;
    let error = f.pool.xa().begin_in(xid(1)).await.expect_err("no fences");
    assert!(error.to_string().contains("accede_fence"), "{error}");
    assert!(
        error.to_string().contains("accede schema create"),
        "{error}"
    );
}

#[tokio::test]
async fn fences_of_ended_transactions_go() {
    let (f, xa) = fixture().await;
    prepare(&xa, 1, TAKE).await.expect("prepared");
    commit(&f, 1).await.expect("committed");
    roll_back(&f, 2).await.expect("barred");
    let age = std::time::Duration::ZERO;
    let read = || phase_two::leftovers(f.pool.phase_two(), Ledger::FENCES, age, None, 9);
    let found = read().await.expect("reads");
    let keys: Vec<BranchKey> = found.iter().map(|leftover| leftover.key).collect();
    assert_eq!(keys, [key(1), key(2)]);
    phase_two::purge_markers(f.pool.phase_two(), Ledger::FENCES, &keys[..1])
        .await
        .expect("deleted");
    let found = read().await.expect("reads");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, key(2));
    f.execute("DROP TABLE accede_fence").await;
    assert!(read().await.expect("reads").is_empty());
}

#[tokio::test]
async fn a_session_without_the_fences_statement_is_no_trouble() {
    let (f, xa) = fixture_with(|builder| builder.max_connections(1)).await;
    let mut number = 0;
    let mut next = async |sql: &'static str| {
        number += 1;
        let mut tx = xa.begin_in(xid(number)).await.expect("begins");
        sqlx::raw_sql(sql).execute(&mut tx).await.expect(sql);
        sqlx::raw_sql(TAKE).execute(&mut tx).await.expect(TAKE);
        let prepared = tx.commit().await;
        if prepared.is_ok() {
            commit(&f, number).await.expect("committed");
        }
        prepared
    };
    // Prepared once, used again; taken away by a statement that says so, first or later.
    for sql in [
        "SELECT 1",
        "SELECT 1",
        "DEALLOCATE ALL",
        "SELECT 1; DEALLOCATE ALL",
        "SELECT 1",
        "SELECT 1",
    ] {
        next(sql).await.expect(sql);
    }
    // Behind our back: the branch can be run again, and from then on each session is asked.
    let hidden = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";
    let error = next(hidden).await.expect_err("it is gone");
    assert!(crate::is_retryable(&error), "{error}");
    for sql in [hidden, "SELECT 1", hidden] {
        next(sql).await.expect(sql);
    }
    assert_eq!(f.dump("stock").await, ["(1,1)", "(2,20)"]);
}
