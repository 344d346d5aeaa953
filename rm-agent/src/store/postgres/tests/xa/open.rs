//! XA branches that are kept open: committed in one phase, prepared when they must be, barred when
//! they are gone.

use super::{
    super::{
        Fixture, PhaseTwoError, phase_two, proxy,
        registrar::{Answer, Event},
        xid,
    },
    TAKE, commit, fences, fixture, fixture_with, key, name, prepare, prepared, roll_back, stuck,
};
use crate::{AtPool, XaPool, agent::Ended, clock, limits, store::postgres::end_open};

async fn keeping() -> (Fixture, XaPool) {
    let (f, xa) = fixture().await;
    *f.registrar.keeps_open.lock() = true;
    f.pool.keep_open(usize::MAX);
    (f, xa)
}

/// Another agent's pool on the same database.
async fn other(f: &Fixture) -> AtPool {
    let builder = AtPool::builder(&f.url).resource("test-db");
    builder
        .connect(f.registrar.clone())
        .await
        .expect("prepared")
}

/// Opens a branch that stays open; the process in the database that has it.
async fn open(xa: &XaPool, number: u64) -> i32 {
    let mut tx = xa.begin_in(xid(number)).await.expect("begins");
    let backend = sqlx::query_scalar(
        "UPDATE stock SET count = count - 1 WHERE product = 1 RETURNING pg_backend_pid()",
    )
    .fetch_one(&mut tx)
    .await
    .expect("updates");
    tx.commit().await.expect("kept open");
    backend
}

async fn one_phase(pool: &AtPool, number: u64) -> Result<Ended, PhaseTwoError> {
    phase_two::commit_open(pool, key(number)).await
}

async fn vote(pool: &AtPool, number: u64) -> Result<Ended, PhaseTwoError> {
    phase_two::prepare_open(pool, key(number)).await
}

fn refused(ended: Result<Ended, PhaseTwoError>) -> String {
    match ended {
        Ok(Ended::Refused(why)) => why,
        other => panic!("expected a no, got {other:?}"),
    }
}

async fn terminate(f: &Fixture, backend: i32) {
    f.execute(&format!("SELECT pg_terminate_backend({backend}, 5000)"))
        .await;
}

const UNTOUCHED: [&str; 2] = ["(1,10)", "(2,20)"];
const TAKEN: [&str; 2] = ["(1,9)", "(2,20)"];

#[tokio::test]
async fn the_only_branch_commits_in_one_phase_however_often() {
    let (f, xa) = keeping().await;
    open(&xa, 1).await;
    assert_eq!(f.dump("stock").await, UNTOUCHED);
    assert!(prepared(&f).await.is_empty());
    assert_eq!(f.pool.kept_open().len(), 1);
    for pool in [&f.pool, &f.pool, &other(&f).await] {
        assert_eq!(one_phase(pool, 1).await, Ok(Ended::Finished));
        assert_eq!(f.dump("stock").await, TAKEN);
        assert_eq!(fences(&f).await, [1]);
    }
    assert!(prepared(&f).await.is_empty());
    assert_eq!(
        f.registrar.take_events(),
        [Event::Registered(xid(1), 1, 0), Event::Over(xid(1), 1)]
    );
    // Its connection serves others again.
    prepare(&xa, 2, "SELECT 1").await.expect("reads");
}

#[tokio::test]
async fn it_costs_as_much_as_a_local_transaction() {
    let (f, _) = keeping().await;
    let (url, trips) = proxy::start(&f.url).await;
    let pool = AtPool::builder(&url)
        .resource("test-db")
        .build(f.registrar.clone())
        .expect("a pool");
    pool.keep_open(usize::MAX);
    let xa = pool.xa();
    let (mut least, mut least_after) = (usize::MAX, usize::MAX);
    for number in 1..8 {
        trips.take();
        prepare(&xa, number, TAKE).await.expect("kept open");
        least = least.min(trips.take());
        assert_eq!(one_phase(&pool, number).await, Ok(Ended::Finished));
        least_after = least_after.min(trips.take());
    }
    assert_eq!(least, 2, "BEGIN, UPDATE");
    assert_eq!(least_after, 1, "the fence's row and COMMIT");
}

#[tokio::test]
async fn another_branch_makes_it_prepare_and_it_ends_by_its_order() {
    let (f, xa) = keeping().await;
    open(&xa, 1).await;
    for pool in [&f.pool, &f.pool, &other(&f).await] {
        assert_eq!(vote(pool, 1).await, Ok(Ended::Prepared));
        assert_eq!(prepared(&f).await, [name(&f, 1)]);
    }
    assert_eq!(f.dump("stock").await, UNTOUCHED);
    commit(&f, 1).await.expect("committed");
    assert_eq!(f.dump("stock").await, TAKEN);
    let committed = vote(&f.pool, 1).await.map(drop);
    assert!(stuck(committed).contains("by hand"));
    // Prepared, then decided alone after all.
    open(&xa, 2).await;
    assert_eq!(vote(&f.pool, 2).await, Ok(Ended::Prepared));
    assert_eq!(one_phase(&f.pool, 2).await, Ok(Ended::Finished));
    assert_eq!(f.dump("stock").await, ["(1,8)", "(2,20)"]);
}

#[tokio::test]
async fn a_rollback_reaches_the_open_transaction() {
    let (f, xa) = keeping().await;
    open(&xa, 1).await;
    roll_back(&f, 1).await.expect("rolled back");
    assert!(fences(&f).await.is_empty(), "nothing of it can come");
    assert_eq!(f.dump("stock").await, UNTOUCHED);
    // A repeat finds nothing, and bars it.
    roll_back(&f, 1).await.expect("barred");
    assert_eq!(fences(&f).await, [3]);
    assert!(refused(one_phase(&f.pool, 1).await).contains("is gone"));
    f.execute(TAKE).await;
}

#[tokio::test]
async fn one_whose_session_is_gone_is_a_no() {
    let (f, xa) = keeping().await;
    let backend = open(&xa, 1).await;
    terminate(&f, backend).await;
    let why = refused(one_phase(&f.pool, 1).await);
    assert!(why.contains("the database has rolled it back"), "{why}");
    let backend = open(&xa, 2).await;
    terminate(&f, backend).await;
    refused(vote(&f.pool, 2).await);
    assert_eq!(fences(&f).await, [3, 3]);
    for number in [1, 2] {
        refused(one_phase(&f.pool, number).await);
        refused(vote(&f.pool, number).await);
    }
    assert_eq!(f.dump("stock").await, UNTOUCHED);
    // The rollback of the second goes through as well, here and gone.
    let backend = open(&xa, 3).await;
    terminate(&f, backend).await;
    roll_back(&f, 3).await.expect("barred");
    assert_eq!(fences(&f).await, [3, 3, 3]);
}

#[tokio::test]
async fn an_agent_without_the_session_bars_it() {
    let (f, xa) = keeping().await;
    let elsewhere = other(&f).await;
    open(&xa, 1).await;
    refused(one_phase(&elsewhere, 1).await);
    assert_eq!(fences(&f).await, [3]);
    // The open one comes late.
    let why = refused(one_phase(&f.pool, 1).await);
    assert!(why.contains("rolled back"), "{why}");
    open(&xa, 2).await;
    refused(vote(&elsewhere, 2).await);
    end_open(&f.pool).await;
    assert!(f.registrar.events().contains(&Event::Doomed(xid(2), 1)));
    assert!(prepared(&f).await.is_empty());
    assert_eq!(f.dump("stock").await, UNTOUCHED);
}

#[tokio::test]
async fn one_that_waits_for_too_long_is_prepared_by_itself() {
    let (f, xa) = keeping().await;
    open(&xa, 1).await;
    let deadline = clock::now() + 10 * limits::XA_KEPT_OPEN;
    while prepared(&f).await.is_empty() {
        assert!(clock::now() < deadline, "it stays open");
        tokio::time::sleep(limits::XA_OPEN_LOOK).await;
    }
    assert_eq!(one_phase(&other(&f).await, 1).await, Ok(Ended::Finished));
    assert_eq!(f.dump("stock").await, TAKEN);
    assert!(f.registrar.events().contains(&Event::Done(xid(1), 1)));
}

#[tokio::test]
async fn whoever_needs_its_connection_gets_it() {
    let (f, xa) = fixture_with(|builder| builder.max_connections(2)).await;
    *f.registrar.keeps_open.lock() = true;
    f.pool.keep_open(usize::MAX);
    open(&xa, 1).await;
    assert_eq!(f.pool.kept_open().len(), 1);
    let _busy = f.pool.plain().acquire().await.expect("the other one");
    let started = clock::now();
    let mut tx = xa.begin_in(xid(2)).await.expect("gets one");
    sqlx::query("SELECT 1")
        .execute(&mut tx)
        .await
        .expect("reads");
    assert!(
        clock::now() - started < limits::XA_KEPT_OPEN,
        "it is waited for"
    );
    assert_eq!(f.pool.kept_open().len(), 0);
}

#[tokio::test]
async fn a_shutdown_prepares_what_is_open() {
    let (f, xa) = keeping().await;
    open(&xa, 1).await;
    end_open(&f.pool).await;
    assert_eq!(prepared(&f).await, [name(&f, 1)]);
    assert!(f.registrar.events().contains(&Event::Done(xid(1), 1)));
    prepare(&xa, 2, "UPDATE stock SET count = 0 WHERE product = 2")
        .await
        .expect("prepared at once");
    assert_eq!(prepared(&f).await.len(), 2);
    for number in [1, 2] {
        roll_back(&f, number).await.expect("rolled back");
    }
}

#[tokio::test]
async fn what_the_database_refuses_in_the_end_is_a_no() {
    let (f, xa) = keeping().await;
    f.execute(
        "CREATE TABLE parent (id bigint PRIMARY KEY);
         CREATE TABLE child (id bigint REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    for (number, pay) in [(1, false), (2, true)] {
        prepare(&xa, number, "INSERT INTO child VALUES (7)")
            .await
            .expect("looked at in the end");
        let ended = match pay {
            true => vote(&f.pool, number).await,
            false => one_phase(&f.pool, number).await,
        };
        let why = refused(ended);
        assert!(why.contains("child"), "{why}");
    }
    assert!(fences(&f).await.is_empty(), "it is certain without a bar");
}

#[tokio::test]
async fn the_deadline_counts_for_the_vote_and_not_for_the_only_branch() {
    let (f, xa) = keeping().await;
    for _ in 0..2 {
        f.registrar
            .answer(Answer::GiveUp(std::time::Duration::ZERO));
    }
    open(&xa, 1).await;
    refused(vote(&f.pool, 1).await);
    open(&xa, 2).await;
    assert_eq!(one_phase(&f.pool, 2).await, Ok(Ended::Finished));
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_in_the_database() {
    let (f, xa) = keeping().await;
    // The session dies in the middle of the message, before it has taken effect.
    f.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN IF NEW.status = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid());
          PERFORM pg_sleep(5); END IF; RETURN NEW; END';
         CREATE TRIGGER die BEFORE INSERT ON accede_fence FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await;
    open(&xa, 1).await;
    refused(one_phase(&f.pool, 1).await);
    open(&xa, 2).await;
    refused(vote(&f.pool, 2).await);
    assert_eq!(fences(&f).await, [3, 3]);
    assert_eq!(f.dump("stock").await, UNTOUCHED);
    let foreign = format!(
        "UPDATE accede_fence SET status = 9 WHERE xid = {}",
        xid(1).as_u64()
    );
    f.execute(&foreign).await;
    assert!(stuck(one_phase(&f.pool, 1).await.map(drop)).contains("status 9"));
    assert!(stuck(vote(&f.pool, 1).await.map(drop)).contains("status 9"));
}
