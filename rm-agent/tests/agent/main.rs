//! The agent with a real PostgreSQL or MariaDB and a coordinator whose answers the test gives.

#[path = "../../../link/tests/support/coordinator.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod coordinator;
mod mariadb;
mod postgres;
mod xa;
mod xa_mariadb;

use std::{collections::BTreeSet, time::Duration};

use accede_proto::{
    Xid,
    v1::{
        Action, BranchFinished, BranchRequest, Empty, Mode, Order, Registered,
        branch_event::Body as Answer, branch_finished::Result as End, branch_request::Body as Ask,
    },
};
use accede_rm_agent::{AgentLimits, AtPool, ResourceState, RmAgent, schema};
use coordinator::{Connection, Coordinator, soon};
use postgres::Postgres;

const RESOURCE: &str = "stock-db";

fn limits() -> AgentLimits {
    AgentLimits {
        database_backoff_first: Duration::from_millis(20),
        database_backoff_longest: Duration::from_millis(100),
        database_check: Duration::from_secs(2),
        // The coordinator says nothing before the test has it do so.
        first_answer: Duration::ZERO,
        ..AgentLimits::default()
    }
}

/// `patience`: how long a transaction waits for a connection.
async fn start(coordinator: &Coordinator, url: &str, patience: Duration) -> RmAgent {
    let pool = AtPool::builder(url).acquire_timeout(patience);
    RmAgent::builder("stock")
        .coordinator(coordinator.url())
        .pool(RESOURCE, pool)
        .limits(limits())
        .start()
        .await
        .expect("starts")
}

async fn until(agent: &RmAgent, wanted: impl Fn(&ResourceState) -> bool) {
    soon(async {
        while !wanted(&agent.status().resources[0].state) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn prepare(url: &str) {
    schema::create(url).await.expect("creates its tables");
    let pool = sqlx::PgPool::connect(url).await.expect("connects");
    sqlx::query("CREATE TABLE stock (product bigint PRIMARY KEY, count bigint NOT NULL)")
        .execute(&pool)
        .await
        .expect("creates");
    sqlx::query("INSERT INTO stock SELECT n, 100 FROM generate_series(1, 300) n")
        .execute(&pool)
        .await
        .expect("fills");
    pool.close().await;
}

fn xid(number: u64) -> Xid {
    Xid::from_u64(number).expect("not zero")
}

/// Takes one of product `number` in the transaction of the same number.
async fn take_one(pool: AtPool, number: u64) {
    let mut tx = pool.begin_in(xid(number)).await.expect("begins");
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = $1")
        .bind(number as i64)
        .execute(&mut tx)
        .await
        .expect("updates");
    tx.commit().await.expect("commits");
}

/// Grants the registrations and acknowledges the ends of `count` branches.
async fn serve_phase_one(connection: &mut Connection, count: usize) {
    let mut done = 0;
    while done < count {
        let request = connection.next().await;
        match request.body {
            Some(Ask::Register(_)) => {
                let granted = Registered {
                    branch: 1,
                    give_up_ms: 20_000,
                    keep_open: false,
                };
                connection
                    .answer(request.tag, Answer::Registered(granted))
                    .await;
            }
            Some(Ask::Done(_)) => {
                done += 1;
                connection
                    .answer(request.tag, Answer::Accepted(Empty {}))
                    .await;
            }
            // Some wait for a connection of the pool.
            Some(Ask::Blocked(_)) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

async fn give(connection: &Connection, number: u64, action: Action, attempt: u32) {
    let order = Order {
        xid: number,
        branch: 1,
        resource: RESOURCE.into(),
        mode: Mode::At.into(),
        action: action.into(),
        attempt,
        epoch: 5,
        was_done: true,
        ..Order::default()
    };
    connection.answer(0, Answer::Order(order)).await;
}

fn finished(request: BranchRequest) -> BranchFinished {
    match request.body {
        Some(Ask::Finished(finished)) => finished,
        other => panic!("expected a finished branch, got {other:?}"),
    }
}

async fn number(url: &str, sql: &'static str) -> i64 {
    let pool = sqlx::PgPool::connect(url).await.expect("connects");
    let number = sqlx::query_scalar(sql)
        .fetch_one(&pool)
        .await
        .expect("reads");
    pool.close().await;
    number
}

#[tokio::test]
async fn branches_are_undone_and_committed_in_batches() {
    let postgres = Postgres::start();
    let url = postgres.url("postgres");
    let error = RmAgent::builder("stock")
        .coordinator("127.0.0.1:1")
        .postgres(RESOURCE, &url)
        .start()
        .await
        .expect_err("not prepared yet");
    assert!(
        error.to_string().contains("accede schema create"),
        "{error}"
    );

    prepare(&url).await;
    let mut coordinator = Coordinator::start().await;
    let agent = start(&coordinator, &url, Duration::from_secs(20)).await;
    let mut connection = coordinator.session().await;
    let open = connection.open().await;
    assert_eq!(open.resources[0].name, RESOURCE);
    until(&agent, |state| *state == ResourceState::Attached).await;
    assert_eq!(
        number(&url, "SELECT count(cluster_id) FROM accede_meta").await,
        1,
        "tied to the cluster"
    );

    // Undone: the row is as before.
    let pool = agent.pool(RESOURCE).expect("known");
    let taking = tokio::spawn(take_one(pool.clone(), 300));
    serve_phase_one(&mut connection, 1).await;
    soon(taking).await.expect("ran");
    let count = "SELECT count FROM stock WHERE product = 300";
    assert_eq!(number(&url, count).await, 99);
    give(&connection, 300, Action::RollBack, 1).await;
    let answer = finished(connection.next().await);
    assert!(
        matches!(answer.result, Some(End::Finished(_))),
        "{answer:?}"
    );
    assert_eq!(number(&url, count).await, 100);

    // Committed: many branches, few DELETEs, one answer each.
    let many = 200;
    let taking: Vec<_> = (1..=many)
        .map(|number| tokio::spawn(take_one(pool.clone(), number)))
        .collect();
    serve_phase_one(&mut connection, taking.len()).await;
    for task in taking {
        soon(task).await.expect("ran");
    }
    let undo = "SELECT count(*) FROM undo_log WHERE log_status = 0";
    assert_eq!(number(&url, undo).await, many as i64);
    for number in 1..=many {
        give(&connection, number, Action::Commit, 1).await;
    }
    let mut answered = BTreeSet::new();
    for _ in 1..=many {
        let answer = finished(connection.next().await);
        assert!(
            matches!(answer.result, Some(End::Finished(_))),
            "{answer:?}"
        );
        assert!(answered.insert(answer.xid), "each is told once");
    }
    assert_eq!(number(&url, undo).await, 0);
    let status = agent.status().resources.remove(0);
    assert_eq!((status.committed, status.rolled_back), (many, 1));
    assert!(status.deletes <= many / 4, "{} DELETEs", status.deletes);
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_database_that_is_down_comes_back_by_itself() {
    let postgres = Postgres::start();
    let url = postgres.url("postgres");
    prepare(&url).await;
    postgres.down();

    // Down at start: the service starts, and says what is the matter.
    let mut coordinator = Coordinator::start().await;
    let agent = start(&coordinator, &url, Duration::from_secs(3)).await;
    until(&agent, |state| {
        matches!(state, ResourceState::Unavailable { problem: Some(problem) }
            if problem.contains("Connection refused"))
    })
    .await;
    let pool = agent.pool(RESOURCE).expect("known");
    assert!(pool.begin().await.is_err());
    postgres.up();
    let mut connection = coordinator.session().await;
    connection.open().await;
    until(&agent, |state| *state == ResourceState::Attached).await;

    // Gone between the phases: unavailable, then finished.
    let taking = tokio::spawn(take_one(pool, 7));
    serve_phase_one(&mut connection, 1).await;
    soon(taking).await.expect("ran");
    postgres.down();
    give(&connection, 7, Action::RollBack, 1).await;
    give(&connection, 8, Action::Commit, 1).await;
    for _ in 0..2 {
        let answer = finished(connection.next().await);
        assert!(
            matches!(answer.result, Some(End::Unavailable(_))),
            "{answer:?}"
        );
    }
    postgres.up();
    // The pool may notice a dead connection only by using it.
    let mut attempt = 2;
    let answer = loop {
        give(&connection, 7, Action::RollBack, attempt).await;
        let answer = finished(connection.next().await);
        assert_eq!(answer.attempt, attempt);
        if !matches!(answer.result, Some(End::Unavailable(_))) || attempt > 10 {
            break answer;
        }
        attempt += 1;
    };
    assert!(
        matches!(answer.result, Some(End::Finished(_))),
        "{answer:?}"
    );
    let count = "SELECT count FROM stock WHERE product = 7";
    assert_eq!(number(&url, count).await, 100);
    drop(connection);
    agent.shutdown().await;
}
