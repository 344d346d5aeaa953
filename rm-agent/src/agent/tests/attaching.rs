//! Databases that come late or belong elsewhere.

use accede_proto::v1::{Refusal, refusal::Code};

use super::*;
use crate::registrar::{RefusalCode, Registrar as _, Registration};

#[tokio::test]
async fn a_database_that_comes_up_later_is_shown_then() {
    let (up, late) = (Fake::new(1), Fake::new(2));
    late.set_up(false);
    let mut agent = start(
        &[("stock-db", &up), ("late-db", &late)],
        quick(),
        session_limits(),
    )
    .await
    .expect("starts");
    let mut connection = agent.coordinator.session().await;
    let open = connection.open().await;
    assert_eq!(open.agent_name, "stock@here");
    assert!(open.cluster_id.is_empty());
    assert_eq!(open.resources.len(), 1);
    assert_eq!(open.resources[0].name, "stock-db");
    assert_eq!(open.resources[0].database_id.as_ref(), [1; 16]);
    agent.until_attached(0).await;
    assert_eq!(up.cluster(), Some(CLUSTER), "claimed");
    assert!(!agent.running.status().is_ready());

    late.set_up(true);
    let mut connection = agent.coordinator.session().await;
    let again = connection.open().await;
    assert_eq!(again.agent, open.agent, "the same process");
    assert_eq!(again.cluster_id.as_ref(), CLUSTER);
    let names: Vec<_> = again.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["stock-db", "late-db"]);
    agent.until_attached(1).await;
    soon(async {
        while !agent.running.status().is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn databases_of_two_clusters_do_not_start() {
    let (ours, theirs) = (Fake::new(1), Fake::new(2));
    ours.set_cluster(Some(CLUSTER));
    theirs.set_cluster(Some([9; 16]));
    let error = start(
        &[("stock-db", &ours), ("other-db", &theirs)],
        quick(),
        session_limits(),
    )
    .await
    .err()
    .expect("two clusters");
    let text = error.to_string();
    assert!(
        text.contains("07070707-0707") && text.contains("09090909-0909"),
        "{text}"
    );
}

#[tokio::test]
async fn a_database_of_another_cluster_is_never_shown() {
    let (ours, theirs) = (Fake::new(1), Fake::new(2));
    theirs.set_cluster(Some([9; 16]));
    theirs.set_up(false);
    let mut agent = start(
        &[("stock-db", &ours), ("other-db", &theirs)],
        quick(),
        session_limits(),
    )
    .await
    .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    agent.until_attached(0).await;
    theirs.set_up(true);
    agent
        .until_state(1, |state| {
            matches!(state, ResourceState::Wrong { problem } if problem.contains("09090909"))
        })
        .await;
    assert_eq!(theirs.cluster(), Some([9; 16]), "left alone");

    // A person has repaired it: it is shown without a restart.
    theirs.set_cluster(None);
    let mut connection = agent.coordinator.session().await;
    assert_eq!(connection.open().await.resources.len(), 2);
    agent.until_attached(1).await;
}

#[tokio::test]
async fn an_agent_pins_the_cluster_of_its_database() {
    let fake = Fake::new(1);
    fake.set_cluster(Some([9; 16]));
    let mut agent = start(&[("stock-db", &fake)], quick(), session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    let open = connection.open().await;
    assert_eq!(open.cluster_id.as_ref(), [9; 16]);
    soon(async {
        loop {
            let status = format!("{:?}", agent.running.status().coordinator);
            if status.contains("OtherCluster") {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        agent.running.status().resources[0].state,
        ResourceState::Known
    );
}

#[tokio::test]
async fn a_name_that_the_coordinator_refuses_is_left_out() {
    let (ours, taken) = (Fake::new(1), Fake::new(2));
    let mut agent = start(
        &[("stock-db", &ours), ("freeze", &taken)],
        quick(),
        session_limits(),
    )
    .await
    .expect("starts");
    let words = "\"freeze\" is the name of an action";
    loop {
        let mut connection = agent.coordinator.session().await;
        let request = connection.next().await;
        let Some(Ask::Open(open)) = request.body else {
            panic!("expected the opening frame, got {request:?}");
        };
        if open.resources.iter().any(|shown| shown.name == "freeze") {
            let refusal = Refusal {
                code: Code::ResourceMismatch.into(),
                message: words.into(),
                resource: "freeze".into(),
                ..Refusal::default()
            };
            connection
                .answer(request.tag, Answer::Refusal(refusal))
                .await;
            break;
        }
        connection
            .answer(request.tag, coordinator::attached(&CLUSTER))
            .await;
    }
    let mut connection = agent.coordinator.session().await;
    let names = connection.open().await.resources.into_iter();
    assert_eq!(names.map(|r| r.name).collect::<Vec<_>>(), ["stock-db"]);
    agent.until_attached(0).await;
    let problem = words.to_owned();
    agent
        .until_state(1, |state| {
            *state
                == ResourceState::Refused {
                    problem: problem.clone(),
                }
        })
        .await;
    let told = agent.running.first_answer().await;
    let told = told.expect_err("one is refused").to_string();
    assert!(told.contains(words), "{told}");

    // Nobody waits for what never comes.
    let refused = soon(agent.registrar.register(Registration {
        resource: "freeze".into(),
        ..registering::registration(1, Duration::from_secs(3600))
    }))
    .await;
    let refused = refused.expect_err("it is refused");
    assert_eq!(refused.code, RefusalCode::ResourceMismatch);
    drop(connection);
}

#[tokio::test]
async fn a_database_that_was_claimed_meanwhile_is_taken_back() {
    let (ours, snatched) = (Fake::new(1), Fake::new(2));
    *snatched.snatched_by.lock() = Some([9; 16]);
    let mut agent = start(
        &[("stock-db", &ours), ("other-db", &snatched)],
        quick(),
        session_limits(),
    )
    .await
    .expect("starts");
    // Shown once with the other, then no more.
    let mut connection = agent.coordinator.session().await;
    let mut most = connection.open().await.resources.len();
    soon(async {
        loop {
            connection = agent.coordinator.session().await;
            let shown = connection.open().await.resources.len();
            if most == 2 && shown == 1 {
                break;
            }
            most = most.max(shown);
        }
    })
    .await;
    agent
        .until_state(1, |state| matches!(state, ResourceState::Wrong { .. }))
        .await;
    agent.until_attached(0).await;
}
