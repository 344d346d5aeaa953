//! Databases that come late or belong elsewhere.

use super::*;

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
