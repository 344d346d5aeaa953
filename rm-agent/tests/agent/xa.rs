//! XA through the agent: orders, crashes of the database, prepared transactions that nobody ends.

use std::time::Duration;

use accede_proto::v1::{
    Action, Empty, Ended, Mode, Order, Registered, branch_event::Body as Answer,
    branch_finished::Result as End, branch_request::Body as Ask, ended::State,
};
use accede_rm_agent::{AgentLimits, AtPool, Error, ResourceState, RmAgent};

use super::{
    RESOURCE,
    coordinator::{Connection, Coordinator, soon},
    finished, limits, number,
    postgres::Postgres,
    prepare, serve_phase_one, until, xid,
};

const PREPARED: &str = "SELECT count(*) FROM pg_prepared_xacts";

async fn attached(url: &str, limits: AgentLimits) -> (Coordinator, RmAgent, Connection) {
    let mut coordinator = Coordinator::start().await;
    let agent = RmAgent::builder("stock")
        .coordinator(coordinator.url())
        .postgres(RESOURCE, url)
        .limits(limits)
        .start()
        .await
        .expect("starts");
    let mut connection = coordinator.session().await;
    connection.open().await;
    until(&agent, |state| *state == ResourceState::Attached).await;
    (coordinator, agent, connection)
}

/// Takes one of product `number` in the transaction of the same number.
async fn take_one(pool: AtPool, number: u64) -> Result<(), sqlx::Error> {
    let mut tx = pool.xa().begin_in(xid(number)).await?;
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = $1")
        .bind(number as i64)
        .execute(&mut tx)
        .await?;
    tx.commit().await
}

fn granted() -> Answer {
    Answer::Registered(Registered {
        branch: 1,
        give_up_ms: 20_000,
        keep_open: false,
    })
}

async fn taken(agent: &RmAgent, connection: &mut Connection, number: u64) {
    let pool = agent.pool(RESOURCE).expect("known");
    let taking = tokio::spawn(take_one(pool, number));
    serve_phase_one(connection, 1).await;
    soon(taking).await.expect("ran").expect("prepared");
}

async fn give(connection: &Connection, number: u64, action: Action, attempt: u32) {
    let order = Order {
        xid: number,
        branch: 1,
        resource: RESOURCE.into(),
        mode: Mode::Xa.into(),
        action: action.into(),
        attempt,
        epoch: 5,
        was_done: true,
        ..Order::default()
    };
    connection.answer(0, Answer::Order(order)).await;
}

/// Repeats an order until the database is reached.
async fn order(connection: &mut Connection, number: u64, action: Action) -> End {
    for attempt in 1..=20 {
        give(connection, number, action, attempt).await;
        match finished(connection.next().await).result {
            Some(End::Unavailable(_)) => {}
            result => return result.expect("a result"),
        }
    }
    panic!("the database does not come back")
}

fn is_finished(end: &End) -> bool {
    matches!(end, End::Finished(_))
}

#[tokio::test]
async fn what_is_prepared_survives_crashes_and_is_ended_by_any_agent() {
    let postgres = Postgres::start_with("-c max_prepared_transactions=10");
    let url = postgres.url("postgres");
    prepare(&url).await;
    let (coordinator, agent, mut connection) = attached(&url, limits()).await;
    for number in [1, 2, 3, 4] {
        taken(&agent, &mut connection, number).await;
    }
    assert!(is_finished(
        &order(&mut connection, 4, Action::Commit).await
    ));
    postgres.down();
    give(&connection, 1, Action::Commit, 1).await;
    let answer = finished(connection.next().await);
    assert!(
        matches!(answer.result, Some(End::Unavailable(_))),
        "{answer:?}"
    );
    postgres.up();
    assert_eq!(number(&url, PREPARED).await, 3, "on disk");
    assert!(is_finished(
        &order(&mut connection, 1, Action::Commit).await
    ));
    // A repeat, also of what was committed before the crash.
    for done in [1, 4] {
        assert!(is_finished(
            &order(&mut connection, done, Action::Commit).await
        ));
    }
    let status = agent.status().resources.remove(0);
    assert_eq!((status.committed, status.unavailable > 0), (4, true));
    // The agent is gone; another one ends what it prepared.
    drop(connection);
    agent.shutdown().await;
    drop((agent, coordinator));
    let (_coordinator, agent, mut connection) = attached(&url, limits()).await;
    assert!(is_finished(
        &order(&mut connection, 2, Action::Commit).await
    ));
    for _ in 0..2 {
        let end = order(&mut connection, 3, Action::RollBack).await;
        assert!(is_finished(&end), "{end:?}");
    }
    let lost = order(&mut connection, 9, Action::Commit).await;
    assert!(
        matches!(&lost, End::Stuck(why) if why.reason.contains("skip")),
        "{lost:?}"
    );
    assert_eq!(number(&url, PREPARED).await, 0);
    let sum = "SELECT sum(count)::bigint FROM stock WHERE product <= 4";
    assert_eq!(number(&url, sum).await, 397, "1, 2 and 4 were committed");
    let status = agent.status().resources.remove(0);
    assert_eq!(
        (status.committed, status.rolled_back, status.stuck),
        (1, 2, 1)
    );
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn prepared_transactions_that_nobody_will_end_are_counted_and_left_alone() {
    let postgres = Postgres::start_with("-c max_prepared_transactions=10");
    let url = postgres.url("postgres");
    prepare(&url).await;
    let limits = AgentLimits {
        sweep_interval: Duration::from_millis(5),
        leftover_age: Duration::ZERO,
        ..limits()
    };
    let (_coordinator, agent, mut connection) = attached(&url, limits).await;
    let pool = agent.pool(RESOURCE).expect("known");
    let mut sure: Vec<tokio::task::JoinHandle<_>> = Vec::new();
    for number in [11, 12, 13] {
        sure.push(tokio::spawn(take_one(pool.clone(), number)));
    }
    // Sweeps go on meanwhile: 11 is open, 12 has ended, 13 was never begun.
    soon(async {
        loop {
            let status = agent.status().resources.remove(0);
            let all = sure.iter().all(|taking| taking.is_finished());
            if all && (status.prepared, status.orphan_prepared) == (3, 2) {
                break;
            }
            let request = connection.next().await;
            let answer = match request.body {
                Some(Ask::Register(_)) => granted(),
                Some(Ask::Done(_)) => Answer::Accepted(Empty {}),
                Some(Ask::AskEnded(asked)) => {
                    assert_eq!(asked.resource, RESOURCE);
                    let state = |xid: &u64| match xid {
                        12 => State::Ended.into(),
                        13 => State::NeverBegun.into(),
                        _ => State::Open.into(),
                    };
                    let states = asked.xids.iter().map(state).collect();
                    Answer::Ended(Ended { states })
                }
                Some(Ask::Blocked(_)) => continue,
                other => panic!("unexpected {other:?}"),
            };
            connection.answer(request.tag, answer).await;
        }
    })
    .await;
    for taking in sure {
        soon(taking).await.expect("ran").expect("prepared");
    }
    let status = agent.status().resources.remove(0);
    assert_eq!((status.prepared, status.orphan_prepared), (3, 2));
    assert!(status.prepared_oldest > Duration::ZERO);
    assert_eq!(number(&url, PREPARED).await, 3, "nothing was touched");
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_server_without_room_for_prepared_transactions_says_so() {
    let postgres = Postgres::start();
    let url = postgres.url("postgres");
    prepare(&url).await;
    let (_coordinator, agent, mut connection) = attached(&url, limits()).await;
    let pool = agent.pool(RESOURCE).expect("known");
    let refused = pool.xa().begin_in(xid(1)).await.expect_err("switched off");
    assert!(
        matches!(Error::from_sqlx(&refused), Some(Error::PreparedOff { .. })),
        "{refused}"
    );
    for part in [
        "max_prepared_transactions = 0",
        "restart the server",
        RESOURCE,
    ] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    // Work outside of global transactions does not need it.
    pool.xa()
        .begin()
        .await
        .expect("a plain one")
        .rollback()
        .await
        .expect("ends");

    // Switched on, with one place.
    postgres.down();
    postgres.up_with("-c max_prepared_transactions=1");
    let mut attempt = 0;
    while let Err(error) = pool.xa().check().await {
        attempt += 1;
        assert!(attempt < 20, "{error}");
    }
    taken(&agent, &mut connection, 1).await;
    let taking = tokio::spawn(take_one(pool.clone(), 2));
    let withdrawn = soon(async {
        loop {
            let request = connection.next().await;
            match request.body {
                Some(Ask::Register(_)) => connection.answer(request.tag, granted()).await,
                Some(Ask::Withdrawn(withdrawn)) => break withdrawn,
                Some(Ask::Blocked(_)) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    })
    .await;
    assert_eq!(withdrawn.xid, 2);
    let full = soon(taking).await.expect("ran").expect_err("no room");
    assert!(
        matches!(Error::from_sqlx(&full), Some(Error::PreparedFull { .. })),
        "{full}"
    );
    assert!(accede_rm_agent::is_retryable(&full));
    let end = order(&mut connection, 1, Action::RollBack).await;
    assert!(is_finished(&end), "{end:?}");

    // Switched off again behind the pool's back. Without the checkpoint the server would replay
    // what it no longer can.
    let plain = sqlx::PgPool::connect(&url).await.expect("connects");
    sqlx::raw_sql("CHECKPOINT")
        .execute(&plain)
        .await
        .expect("a checkpoint");
    plain.close().await;
    postgres.down();
    postgres.up();
    let mut tries = 0;
    let off = loop {
        let mut taking = tokio::spawn(take_one(pool.clone(), 3));
        let served = async {
            loop {
                tokio::select! {
                    taken = &mut taking => break taken.expect("ran").expect_err("no room"),
                    request = connection.next() => {
                        let answer = match request.body {
                            Some(Ask::Register(_)) => granted(),
                            Some(Ask::Blocked(_)) => continue,
                            _ => Answer::Accepted(Empty {}),
                        };
                        connection.answer(request.tag, answer).await;
                    }
                }
            }
        };
        let error = soon(served).await;
        tries += 1;
        // Connections of before may break first.
        if matches!(Error::from_sqlx(&error), Some(Error::PreparedOff { .. })) || tries > 5 {
            break error;
        }
    };
    assert!(
        matches!(Error::from_sqlx(&off), Some(Error::PreparedOff { .. })),
        "{off}"
    );
    drop(connection);
    agent.shutdown().await;
}
