//! Actions beside databases: how they are shown, and who finishes their branches.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    super::{Ended, Finish, Job, database::*},
    *,
};

/// Remembers what it was asked for, and does as the test says.
struct Recorder {
    asked: Mutex<Vec<(BranchKey, Job, Vec<u8>)>>,
    result: Mutex<Result<Ended, PhaseTwoError>>,
}

impl Finish for Recorder {
    fn mode(&self) -> Mode {
        Mode::Tcc
    }

    fn finish<'a>(
        &'a self,
        branch: BranchKey,
        job: Job,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        self.asked.lock().push((branch, job, payload.to_vec()));
        Box::pin(std::future::ready(self.result.lock().clone()))
    }
}

struct Served {
    _agent: Agent,
    connection: Connection,
    recorder: Arc<Recorder>,
    shown: Vec<(String, usize)>,
}

async fn served(database: &Arc<Fake>) -> Served {
    let recorder = Arc::new(Recorder {
        asked: Mutex::default(),
        result: Mutex::new(Ok(Ended::Finished)),
    });
    let action = Participant::Action {
        finish: Arc::clone(&recorder) as _,
        database: Some(Arc::clone(database) as _),
    };
    let resources = vec![
        ("stock-db", Participant::Database(Arc::clone(database) as _)),
        ("account.freeze", action),
    ];
    let mut agent = start_with(resources, quick(), session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    let mut open = connection.open().await;
    // Whichever is checked first is shown first, alone.
    while open.resources.len() < 2 {
        connection = agent.coordinator.session().await;
        open = connection.open().await;
    }
    agent.until_attached(0).await;
    agent.until_attached(1).await;
    let shown = open.resources.into_iter();
    let mut shown: Vec<_> = shown
        .map(|shown| (shown.name, shown.database_id.len()))
        .collect();
    shown.sort();
    Served {
        _agent: agent,
        connection,
        recorder,
        shown,
    }
}

fn of_action(action: Action, payload: &'static [u8]) -> Order {
    Order {
        resource: "account.freeze".into(),
        mode: Mode::Tcc.into(),
        payload: Bytes::from_static(payload),
        ..order(7, action, 2)
    }
}

#[tokio::test]
async fn an_action_has_no_database_id_and_its_handlers_get_the_payload() {
    let database = Fake::new(1);
    let mut f = served(&database).await;
    assert_eq!(
        f.shown,
        [
            ("account.freeze".to_owned(), 0),
            ("stock-db".to_owned(), 16)
        ]
    );
    give(&f.connection, of_action(Action::Commit, b"five")).await;
    let answer = finished(f.connection.next().await);
    assert!(matches!(end(&answer), End::Finished(_)), "{answer:?}");
    assert_eq!(answer.resource, "account.freeze");

    let problem = PhaseTwoError::stuck("the account is closed");
    *f.recorder.result.lock() = Err(problem);
    give(&f.connection, of_action(Action::RollBack, b"five")).await;
    let answer = finished(f.connection.next().await);
    assert!(
        matches!(end(&answer), End::Stuck(stuck) if stuck.reason == "the account is closed"),
        "{answer:?}"
    );
    let branch = BranchKey {
        xid: xid(7),
        branch: 1,
    };
    let back = Job::RollBack {
        was_done: true,
        policy: UndoPolicy::Check,
    };
    let asked = f.recorder.asked.lock().clone();
    assert_eq!(
        asked,
        [
            (branch, Job::Commit, b"five".to_vec()),
            (branch, back, b"five".to_vec())
        ]
    );
    assert!(
        database.done.lock().is_empty(),
        "the database has no part in it"
    );
}

#[tokio::test]
async fn an_order_in_another_mode_is_not_carried_out() {
    let mut f = served(&Fake::new(1)).await;
    for wrong in [
        Order {
            mode: Mode::At.into(),
            ..of_action(Action::Commit, b"")
        },
        Order {
            mode: Mode::Tcc.into(),
            ..order(7, Action::Commit, 1)
        },
    ] {
        give(&f.connection, wrong).await;
        let answer = finished(f.connection.next().await);
        assert!(
            matches!(end(&answer), End::Failed(failed) if failed.reason.contains("another mode")),
            "{answer:?}"
        );
    }
    assert!(f.recorder.asked.lock().is_empty());
}
