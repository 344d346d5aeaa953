//! XA on MariaDB through the agent: orders, crashes of the database and of the agent, prepared
//! transactions that nobody ends.

use std::{collections::HashMap, time::Duration};

use accede_proto::v1::{
    Action, Empty, Ended, Mode, Order, Registered, branch_event::Body as Answer,
    branch_finished::Result as End, branch_request::Body as Ask, ended::State,
};
use accede_rm_agent::{AgentLimits, ResourceState, RmAgent, mariadb::AtPool, schema};
use bytes::Bytes;

use super::{
    RESOURCE,
    coordinator::{Connection, Coordinator, soon},
    finished, limits,
    mariadb::MariaDb,
    until, xid,
};

/// What came with the registration of each transaction's branch.
type Payloads = HashMap<u64, Bytes>;

async fn database() -> (MariaDb, String) {
    let server = MariaDb::start().await;
    let admin = sqlx::MySqlPool::connect(&server.url("mysql")).await;
    let admin = admin.expect("connects");
    sqlx::raw_sql("CREATE DATABASE stock")
        .execute(&admin)
        .await
        .expect("creates");
    admin.close().await;
    let url = server.url("stock");
    schema::create(&url).await.expect("creates its tables");
    let pool = sqlx::MySqlPool::connect(&url).await.expect("connects");
    sqlx::raw_sql(
        "CREATE TABLE stock (product BIGINT PRIMARY KEY, count BIGINT NOT NULL);
         INSERT INTO stock SELECT seq, 100 FROM seq_1_to_20",
    )
    .execute(&pool)
    .await
    .expect("fills");
    pool.close().await;
    (server, url)
}

async fn attached(url: &str, limits: AgentLimits) -> (Coordinator, RmAgent, Connection) {
    let mut coordinator = Coordinator::start().await;
    let agent = RmAgent::builder("stock")
        .coordinator(coordinator.url())
        .mariadb(RESOURCE, url)
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
    sqlx::query("UPDATE stock SET count = count - 1 WHERE product = ?")
        .bind(number)
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

async fn taken(agent: &RmAgent, connection: &mut Connection, number: u64, payloads: &mut Payloads) {
    let pool = agent.mariadb_pool(RESOURCE).expect("known");
    let taking = tokio::spawn(take_one(pool, number));
    loop {
        let request = connection.next().await;
        match request.body {
            Some(Ask::Register(register)) => {
                payloads.insert(number, register.payload);
                connection.answer(request.tag, granted()).await;
            }
            Some(Ask::Done(_)) => {
                let accepted = Answer::Accepted(Empty {});
                connection.answer(request.tag, accepted).await;
                break;
            }
            Some(Ask::Blocked(_)) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    soon(taking).await.expect("ran").expect("prepared");
}

/// Repeats an order until the database is reached and nobody else holds the branch.
async fn order(
    connection: &mut Connection,
    number: u64,
    action: Action,
    payloads: &Payloads,
) -> End {
    for attempt in 1..=40 {
        let payload = payloads.get(&number).cloned();
        let order = Order {
            xid: number,
            branch: 1,
            resource: RESOURCE.into(),
            mode: Mode::Xa.into(),
            action: action.into(),
            attempt,
            epoch: 5,
            was_done: true,
            payload: payload.unwrap_or_else(|| Bytes::from_static(&[0; 8])),
            step: None,
        };
        connection.answer(0, Answer::Order(order)).await;
        match finished(connection.next().await).result {
            Some(End::Unavailable(_) | End::Failed(_)) => {}
            result => return result.expect("a result"),
        }
    }
    panic!("the database does not come back")
}

fn is_finished(end: &End) -> bool {
    matches!(end, End::Finished(_))
}

async fn number(url: &str, sql: &'static str) -> i64 {
    let pool = sqlx::MySqlPool::connect(url).await.expect("connects");
    let number = sqlx::query_scalar(sql).fetch_one(&pool).await;
    pool.close().await;
    number.expect("reads")
}

async fn listed(url: &str) -> usize {
    let pool = sqlx::MySqlPool::connect(url).await.expect("connects");
    let listed = sqlx::raw_sql("XA RECOVER").fetch_all(&pool).await;
    pool.close().await;
    listed.expect("reads").len()
}

#[tokio::test]
async fn what_is_prepared_survives_crashes_and_is_ended_by_any_agent() {
    let (mut server, url) = database().await;
    let (coordinator, agent, mut connection) = attached(&url, limits()).await;
    let mut payloads = Payloads::new();
    for number in [1, 2, 3, 4] {
        taken(&agent, &mut connection, number, &mut payloads).await;
    }
    let end = order(&mut connection, 4, Action::Commit, &payloads).await;
    assert!(is_finished(&end), "{end:?}");
    server.down();
    server.up().await;
    assert_eq!(listed(&url).await, 3, "on disk");
    // The last is a repeat of what was committed before the crash.
    for number in [1, 1, 4] {
        let end = order(&mut connection, number, Action::Commit, &payloads).await;
        assert!(is_finished(&end), "{end:?}");
    }
    // One more, whose connection lives when the agent goes; another one ends them all.
    taken(&agent, &mut connection, 5, &mut payloads).await;
    drop(connection);
    agent.shutdown().await;
    drop((agent, coordinator));
    let (_coordinator, agent, mut connection) = attached(&url, limits()).await;
    for (number, action) in [
        (2, Action::Commit),
        (3, Action::RollBack),
        (3, Action::RollBack),
        (5, Action::Commit),
    ] {
        let end = order(&mut connection, number, action, &payloads).await;
        assert!(is_finished(&end), "{number}: {end:?}");
    }
    let lost = order(&mut connection, 9, Action::Commit, &payloads).await;
    assert!(
        matches!(&lost, End::Stuck(why) if why.reason.contains("skip")),
        "{lost:?}"
    );
    assert_eq!(listed(&url).await, 0);
    let sum = "SELECT CAST(SUM(count) AS SIGNED) FROM stock WHERE product <= 5";
    assert_eq!(number(&url, sum).await, 496, "1, 2, 4 and 5 were committed");
    let status = agent.status().resources.remove(0);
    assert_eq!(
        (status.committed, status.rolled_back, status.stuck),
        (2, 2, 1)
    );
    drop(connection);
    agent.shutdown().await;
}

#[tokio::test]
async fn prepared_transactions_that_nobody_will_end_are_counted_and_left_alone() {
    let (_server, url) = database().await;
    let limits = AgentLimits {
        sweep_interval: Duration::from_millis(5),
        leftover_age: Duration::ZERO,
        ..limits()
    };
    let (_coordinator, agent, mut connection) = attached(&url, limits).await;
    let pool = agent.mariadb_pool(RESOURCE).expect("known");
    let mut taking: Vec<tokio::task::JoinHandle<_>> = Vec::new();
    for number in [11, 12, 13] {
        taking.push(tokio::spawn(take_one(pool.clone(), number)));
    }
    // Sweeps go on meanwhile: 11 is open, 12 has ended, 13 was never begun.
    soon(async {
        loop {
            let status = agent.status().resources.remove(0);
            let all = taking.iter().all(|taking| taking.is_finished());
            if all && (status.prepared, status.orphan_prepared) == (3, 2) {
                break;
            }
            let request = connection.next().await;
            let answer = match request.body {
                Some(Ask::Register(_)) => granted(),
                Some(Ask::Done(_)) => Answer::Accepted(Empty {}),
                Some(Ask::AskEnded(asked)) => {
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
    for taking in taking {
        soon(taking).await.expect("ran").expect("prepared");
    }
    let status = agent.status().resources.remove(0);
    assert_eq!((status.prepared, status.orphan_prepared), (3, 2));
    assert_eq!(listed(&url).await, 3, "nothing was touched");
    drop(connection);
    agent.shutdown().await;
}
