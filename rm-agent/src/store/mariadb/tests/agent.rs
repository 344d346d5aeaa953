//! The agent with a MariaDB and a coordinator whose answers the test gives.

use accede_proto::v1::{
    Action, Empty, Mode, Order, Registered, branch_event::Body as Answer,
    branch_finished::Result as End, branch_request::Body as Ask,
};

use super::{Fixture, xid};
use crate::{
    AgentLimits, ResourceState, RmAgent,
    agent::tests::coordinator::{Coordinator, soon},
};

const RESOURCE: &str = "stock-db";

#[tokio::test]
async fn an_agent_serves_mariadb() {
    let f = Fixture::new(
        "CREATE TABLE stock (product INT PRIMARY KEY, count INT NOT NULL);
         INSERT INTO stock VALUES (1, 100), (2, 100);",
    )
    .await;
    let before = f.dump("stock").await;
    let mut coordinator = Coordinator::start().await;
    let agent = RmAgent::builder("stock")
        .coordinator(coordinator.url())
        .mariadb(RESOURCE, &f.url)
        .limits(AgentLimits {
            // The coordinator says nothing before the test has it do so.
            first_answer: std::time::Duration::ZERO,
            ..AgentLimits::default()
        })
        .start()
        .await
        .expect("starts");
    let mut connection = coordinator.session().await;
    let open = connection.open().await;
    assert_eq!(open.resources[0].name, RESOURCE);
    soon(async {
        while agent.status().resources[0].state != ResourceState::Attached {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(
        agent.pool(RESOURCE).is_err(),
        "it is no PostgreSQL database"
    );
    let pool = agent.mariadb_pool(RESOURCE).expect("known");

    // Each transaction changes the row of its number.
    for (number, action) in [(1, Action::RollBack), (2, Action::Commit)] {
        let pool = pool.clone();
        let working = tokio::spawn(async move {
            let mut tx = pool.begin_in(xid(number)).await.expect("begins");
            sqlx::query("UPDATE stock SET count = count - 1 WHERE product = ?")
                .bind(number)
                .execute(&mut tx)
                .await
                .expect("updates");
            tx.commit().await.expect("commits");
        });
        let mut request = connection.next().await;
        // On a busy machine any statement may take long.
        while matches!(request.body, Some(Ask::Blocked(_))) {
            request = connection.next().await;
        }
        assert!(
            matches!(request.body, Some(Ask::Register(_))),
            "{request:?}"
        );
        let granted = Registered {
            branch: 1,
            give_up_ms: 20_000,
            keep_open: false,
        };
        connection
            .answer(request.tag, Answer::Registered(granted))
            .await;
        let mut request = connection.next().await;
        while matches!(request.body, Some(Ask::Blocked(_))) {
            request = connection.next().await;
        }
        assert!(matches!(request.body, Some(Ask::Done(_))), "{request:?}");
        connection
            .answer(request.tag, Answer::Accepted(Empty {}))
            .await;
        soon(working).await.expect("ran");
        let order = Order {
            xid: xid(number).as_u64(),
            branch: 1,
            resource: RESOURCE.into(),
            mode: Mode::At.into(),
            action: action.into(),
            attempt: 1,
            epoch: 5,
            was_done: true,
            ..Order::default()
        };
        connection.answer(0, Answer::Order(order)).await;
        match connection.next().await.body {
            Some(Ask::Finished(finished)) => {
                assert!(
                    matches!(finished.result, Some(End::Finished(_))),
                    "{finished:?}"
                );
            }
            other => panic!("expected a finished branch, got {other:?}"),
        }
    }
    let now = f.dump("stock").await;
    assert_eq!(now[0], before[0], "undone");
    assert_ne!(now[1], before[1], "committed");
    let status = agent.status().resources.remove(0);
    assert_eq!((status.committed, status.rolled_back), (1, 1));
    drop(connection);
    agent.shutdown().await;
}
