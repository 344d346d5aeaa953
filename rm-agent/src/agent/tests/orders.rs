//! Orders: batched, side by side, told once, never lost.

use super::{
    super::{database::*, limits::XA_BEHIND},
    fake::Done,
    *,
};
use crate::registrar::Registrar as _;

fn key(number: u64) -> BranchKey {
    BranchKey {
        xid: xid(number),
        branch: 1,
    }
}

#[tokio::test]
async fn commits_share_deletes_and_each_is_answered() {
    let (agent, mut connection, fake) = attached(quick(), session_limits()).await;
    fake.hold();
    give(&connection, order(1, Action::Commit, 3)).await;
    soon(fake.until_begun(1)).await;
    for number in 2..=400 {
        give(&connection, order(number, Action::Commit, 3)).await;
    }
    agent.until_in_hand(400).await;
    fake.release();
    let mut answered = std::collections::BTreeSet::new();
    for _ in 1..=400 {
        let finished = finished(connection.next().await);
        assert!(matches!(end(&finished), End::Finished(_)));
        assert_eq!(
            (finished.branch, finished.attempt, finished.epoch),
            (1, 3, 77)
        );
        assert_eq!(finished.resource, "stock-db");
        assert!(answered.insert(finished.xid), "each is told once");
    }
    let status = agent.running.status().resources.remove(0);
    assert_eq!(status.committed, 400);
    assert!(status.deletes <= 2, "{} DELETEs", status.deletes);
    assert_eq!(status.orders_in_hand, 0);
}

#[tokio::test]
async fn a_batch_has_a_bound() {
    let limits = AgentLimits {
        commit_batch: 10,
        ..quick()
    };
    let (_agent, mut connection, fake) = attached(limits, session_limits()).await;
    for number in 1..=35 {
        give(&connection, order(number, Action::Commit, 1)).await;
    }
    for _ in 1..=35 {
        finished(connection.next().await);
    }
    for done in fake.done.lock().iter() {
        assert!(
            matches!(done, Done::Deleted(keys) if keys.len() <= 10),
            "{done:?}"
        );
    }
}

#[tokio::test]
async fn a_repeat_meanwhile_is_in_progress_and_the_end_carries_its_numbers() {
    let (_agent, mut connection, fake) = attached(quick(), session_limits()).await;
    fake.hold();
    give(&connection, order(1, Action::RollBack, 1)).await;
    soon(fake.until_begun(1)).await;
    give(&connection, order(1, Action::RollBack, 2)).await;
    let repeat = finished(connection.next().await);
    assert!(matches!(end(&repeat), End::InProgress(_)), "{repeat:?}");
    assert_eq!(repeat.attempt, 2);
    fake.release();
    let last = finished(connection.next().await);
    assert!(matches!(end(&last), End::Finished(_)), "{last:?}");
    assert_eq!(last.attempt, 2);
    assert_eq!(fake.done.lock().len(), 1, "done once");

    // Once it is finished, a late repeat is carried out again: that is harmless.
    give(&connection, order(1, Action::RollBack, 3)).await;
    let late = finished(connection.next().await);
    assert_eq!(late.attempt, 3);
    assert!(matches!(end(&late), End::Finished(_)), "{late:?}");
}

#[tokio::test]
async fn another_order_for_the_same_branch_runs_after_a_failure() {
    let (_agent, mut connection, fake) = attached(quick(), session_limits()).await;
    fake.hold();
    *fake.result.lock() = Err(PhaseTwoError::Stuck {
        reason: "changed behind its back".into(),
        difference: "count: 3, 2, 7".into(),
        repair_statement: "UPDATE".into(),
    });
    give(&connection, order(1, Action::RollBack, 1)).await;
    soon(fake.until_begun(1)).await;
    give(&connection, order(1, Action::RollBackForced, 2)).await;
    let repeat = finished(connection.next().await);
    assert!(matches!(end(&repeat), End::InProgress(_)), "{repeat:?}");
    fake.release();
    let last = finished(connection.next().await);
    assert_eq!(
        last.attempt, 2,
        "the failure of the first order is not told as the second's"
    );
    let End::Stuck(stuck) = end(&last) else {
        panic!("expected stuck, got {last:?}");
    };
    assert_eq!(stuck.difference, "count: 3, 2, 7");
    assert_eq!(stuck.repair_statement, "UPDATE");
    assert_eq!(
        *fake.done.lock(),
        [
            Done::RolledBack(key(1), true, UndoPolicy::Check),
            Done::RolledBack(key(1), true, UndoPolicy::Forced)
        ]
    );
}

#[tokio::test]
async fn each_failure_is_told_as_what_it_is() {
    let (agent, mut connection, fake) = attached(quick(), session_limits()).await;
    *fake.result.lock() = Err(PhaseTwoError::Failed {
        reason: "locked".into(),
    });
    give(&connection, order(1, Action::Commit, 1)).await;
    let answer = finished(connection.next().await);
    assert!(matches!(end(&answer), End::Failed(why) if why.reason == "locked"));

    *fake.result.lock() = Err(PhaseTwoError::Unavailable {
        reason: "gone".into(),
    });
    give(&connection, order(2, Action::Accept, 1)).await;
    let answer = finished(connection.next().await);
    assert!(matches!(end(&answer), End::Unavailable(why) if why.reason == "gone"));
    let status = agent.running.status().resources.remove(0);
    assert_eq!((status.failed, status.unavailable), (1, 1));

    for (wrong, why) in [
        (
            Order {
                mode: 0,
                ..order(3, Action::Commit, 1)
            },
            "another mode",
        ),
        (
            Order {
                mode: Mode::Xa.into(),
                ..order(3, Action::RollBack, 1)
            },
            "no XA for this kind of database",
        ),
        (order(3, Action::Unspecified, 1), "no action"),
        (
            Order {
                action: 99,
                ..order(3, Action::Commit, 1)
            },
            "no action",
        ),
        (order(0, Action::Commit, 1), "XID"),
    ] {
        give(&connection, wrong).await;
        let answer = finished(connection.next().await);
        assert!(
            matches!(end(&answer), End::Failed(failure) if failure.reason.contains(why)),
            "{answer:?}"
        );
    }
    // One for a resource that this agent does not have gets no answer at all.
    *fake.result.lock() = Ok(());
    let elsewhere = Order {
        resource: "other-db".into(),
        ..order(4, Action::Commit, 1)
    };
    give(&connection, elsewhere).await;
    give(&connection, order(5, Action::Commit, 1)).await;
    assert_eq!(finished(connection.next().await).xid, 5);
}

#[tokio::test]
async fn a_database_that_hangs_counts_as_unavailable_and_delays_no_other() {
    let limits = AgentLimits {
        phase_two: Duration::from_millis(200),
        ..quick()
    };
    let (slow, fast) = (Fake::new(1), Fake::new(2));
    let mut agent = start(
        &[("stock-db", &slow), ("fast-db", &fast)],
        limits,
        session_limits(),
    )
    .await
    .expect("starts");
    let mut connection = agent.coordinator.session().await;
    // Whichever was ready first opened the session; it is opened anew for the other.
    let mut shown = connection.open().await.resources.len();
    while shown < 2 {
        connection = agent.coordinator.session().await;
        shown = connection.open().await.resources.len();
    }
    agent.until_attached(0).await;
    agent.until_attached(1).await;
    slow.hold();
    give(&connection, order(1, Action::RollBack, 1)).await;
    give(&connection, order(2, Action::Commit, 1)).await;
    for number in 3..=5 {
        let order = Order {
            resource: "fast-db".into(),
            ..order(number, Action::Commit, 1)
        };
        give(&connection, order).await;
    }
    for _ in 3..=5 {
        let answer = finished(connection.next().await);
        assert_eq!(answer.resource, "fast-db");
        assert!(matches!(end(&answer), End::Finished(_)));
    }
    for _ in 1..=2 {
        let answer = finished(connection.next().await);
        assert!(
            matches!(end(&answer), End::Unavailable(why) if why.reason.contains("did not answer")),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn rollbacks_run_side_by_side_up_to_their_bound() {
    let limits = AgentLimits {
        rollbacks: 2,
        ..quick()
    };
    let (_agent, mut connection, fake) = attached(limits, session_limits()).await;
    fake.hold();
    for number in 1..=3 {
        give(&connection, order(number, Action::RollBack, 1)).await;
    }
    soon(fake.until_begun(2)).await;
    // A commit does not wait for them.
    give(&connection, order(4, Action::Commit, 1)).await;
    soon(fake.until_begun(3)).await;
    fake.release();
    for _ in 1..=4 {
        finished(connection.next().await);
    }
}

#[tokio::test]
async fn rollbacks_that_came_meanwhile_share_a_transaction_and_the_rest_is_undone_alone() {
    let limits = AgentLimits {
        rollback_batch: 10,
        ..quick()
    };
    let (agent, mut connection, fake) = attached(limits, session_limits()).await;
    *fake.together_but.lock() = Some(vec![key(5)]);
    fake.hold();
    give(&connection, order(1, Action::RollBack, 1)).await;
    soon(fake.until_begun(1)).await;
    // What an operator forces is looked at row by row.
    give(&connection, order(2, Action::RollBackForced, 1)).await;
    soon(fake.until_begun(2)).await;
    for number in 3..=14 {
        give(&connection, order(number, Action::RollBack, 1)).await;
    }
    agent.until_in_hand(14).await;
    fake.release();
    let mut answered = std::collections::BTreeSet::new();
    for _ in 1..=14 {
        let finished = finished(connection.next().await);
        assert!(matches!(end(&finished), End::Finished(_)));
        assert!(answered.insert(finished.xid), "each is told once");
    }
    let done = fake.done.lock().clone();
    let mut together: Vec<_> = done
        .iter()
        .filter_map(|done| match done {
            Done::RolledBackTogether(branches) => Some(branches.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(together.remove(0), [key(1)]);
    assert!(together.iter().all(|branches| branches.len() <= 10));
    let shared: Vec<_> = together.concat();
    assert_eq!(shared, (3..=14).map(key).collect::<Vec<_>>());
    let alone = |number, policy| Done::RolledBack(key(number), true, policy);
    assert!(done.contains(&alone(2, UndoPolicy::Forced)));
    assert!(done.contains(&alone(5, UndoPolicy::Check)));
    assert_eq!(done.len(), together.len() + 3);
    assert_eq!(agent.running.status().resources[0].rolled_back, 14);
}

/// What goes wrong together is told by those that are undone alone.
#[tokio::test]
async fn an_error_of_many_is_nobodys() {
    let (_agent, mut connection, fake) = attached(quick(), session_limits()).await;
    *fake.together_but.lock() = Some(Vec::new());
    *fake.result.lock() = Err(PhaseTwoError::stuck("changed behind its back"));
    give(&connection, order(1, Action::RollBack, 1)).await;
    let answer = finished(connection.next().await);
    assert!(matches!(end(&answer), End::Stuck(_)), "{answer:?}");
    assert_eq!(
        *fake.done.lock(),
        [
            Done::RolledBackTogether(vec![key(1)]),
            Done::RolledBack(key(1), true, UndoPolicy::Check)
        ]
    );
}

#[tokio::test]
async fn too_many_orders_are_answered_with_unavailable() {
    let limits = AgentLimits {
        orders: 2,
        ..quick()
    };
    let (_agent, mut connection, fake) = attached(limits, session_limits()).await;
    fake.hold();
    for number in 1..=3 {
        give(&connection, order(number, Action::Commit, 1)).await;
    }
    let answer = finished(connection.next().await);
    assert_eq!(answer.xid, 3);
    assert!(matches!(end(&answer), End::Unavailable(_)), "{answer:?}");
    fake.release();
    for _ in 1..=2 {
        finished(connection.next().await);
    }
}

#[tokio::test]
async fn an_order_outlives_its_connection_and_its_repeat_is_in_progress() {
    let (mut agent, mut connection, fake) = attached(quick(), session_limits()).await;
    fake.hold();
    give(&connection, order(1, Action::Commit, 1)).await;
    soon(fake.until_begun(1)).await;
    connection.fail("cut").await;
    agent.until_disconnected().await;
    connection = agent.coordinator.session().await;
    connection.open().await;
    let mut repeat = order(1, Action::Commit, 1);
    repeat.epoch = 78;
    give(&connection, repeat).await;
    let answer = finished(connection.next().await);
    assert!(matches!(end(&answer), End::InProgress(_)), "{answer:?}");
    fake.release();
    let answer = finished(connection.next().await);
    assert!(matches!(end(&answer), End::Finished(_)), "{answer:?}");
    assert_eq!(answer.epoch, 78);
}

#[tokio::test]
async fn a_new_branch_waits_while_prepared_ones_pile_up() {
    let (agent, mut connection, fake) = attached(quick(), session_limits()).await;
    let caught_up = || agent.registrar.caught_up("stock-db");
    caught_up().await;
    let of_xa = |number| Order {
        mode: Mode::Xa.into(),
        ..order(number, Action::Commit, 1)
    };
    let in_hand = XA_BEHIND as u64;
    fake.hold();
    // What waits to be prepared is not behind.
    let prepare = Action::Prepare;
    for ask in (1..in_hand).map(of_xa).chain([Order {
        action: prepare.into(),
        ..of_xa(in_hand)
    }]) {
        give(&connection, ask).await;
    }
    agent.until_in_hand(XA_BEHIND).await;
    caught_up().await;
    give(&connection, of_xa(in_hand + 1)).await;
    agent.until_in_hand(XA_BEHIND + 1).await;
    let mut waiting = caught_up();
    assert!(futures_util::poll!(&mut waiting).is_pending());
    fake.release();
    soon(waiting).await;
    for _ in 0..=in_hand {
        finished(connection.next().await);
    }
}
