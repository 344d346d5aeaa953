//! Many branches at once over a connection that breaks again and again.

use std::collections::{BTreeMap, BTreeSet};

use accede_proto::v1::{Empty, Registered};

use super::*;
use crate::registrar::{Registrar as _, Registration};

const BRANCHES: u64 = 300;

/// What the coordinator has heard, over all connections.
#[derive(Default)]
struct Heard {
    /// XIDs by request; a repeat of a request is the same registration.
    registered: BTreeMap<u64, u64>,
    done: BTreeSet<u64>,
    withdrawn: BTreeSet<u64>,
}

impl Heard {
    /// Takes a request in and answers it, if it is one that wants an answer.
    fn hear(&mut self, request: &BranchRequest) -> Option<Answer> {
        match request.body.as_ref()? {
            Ask::Register(register) => {
                let id = register.request.as_ref()?.sequence;
                let before = self.registered.insert(id, register.xid);
                assert!(
                    before.is_none_or(|xid| xid == register.xid),
                    "same id, other content"
                );
                Some(Answer::Registered(Registered {
                    branch: 1,
                    give_up_ms: 1000,
                    keep_open: false,
                }))
            }
            Ask::Done(done) => {
                self.done.insert(done.xid);
                Some(Answer::Accepted(Empty {}))
            }
            Ask::Withdrawn(withdrawn) => {
                self.withdrawn.insert(withdrawn.xid);
                Some(Answer::Accepted(Empty {}))
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// One branch: registers and ends as its number says.
async fn branch(registrar: Arc<SessionRegistrar>, number: u64) {
    let registration = Registration {
        xid: xid(number),
        resource: "stock-db".into(),
        row_locks: vec![Arc::from(&b"row"[..])],
        mode: Mode::At,
        escrow_locks: Vec::new(),
        payload: Default::default(),
        wait_limit: SOON,
        can_keep_open: false,
    };
    let registering = registrar.register(registration);
    if number.is_multiple_of(5) {
        // Dropped wherever it happens to be.
        drop(
            tokio::time::timeout(Duration::from_micros(number), registering)
                .await
                .map(|granted| {
                    if granted.is_ok() {
                        registrar.withdrawn(xid(number), 1);
                    }
                }),
        );
        return;
    }
    registering.await.expect("granted");
    if number.is_multiple_of(7) {
        registrar.withdrawn(xid(number), 1);
    } else {
        registrar.done(xid(number), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_registered_branch_tells_how_it_ended() {
    let session = SessionLimits {
        open_deliveries: 40,
        ..session_limits()
    };
    let (mut agent, mut connection, _) = attached(quick(), session).await;
    let branches: Vec<_> = (1..=BRANCHES)
        .map(|number| tokio::spawn(branch(Arc::clone(&agent.registrar), number)))
        .collect();
    let all_told = |heard: &Heard| {
        (1..=BRANCHES).all(|number| match number {
            // It may have been dropped before anything was sent.
            dropped if dropped % 5 == 0 => {
                heard.withdrawn.contains(&dropped)
                    || !heard.registered.values().any(|xid| *xid == dropped)
            }
            undone if undone % 7 == 0 => heard.withdrawn.contains(&undone),
            done => heard.done.contains(&done),
        })
    };
    let mut heard = Heard::default();
    let mut requests = 0_u64;
    while !(all_told(&heard) && branches.iter().all(|branch| branch.is_finished())) {
        // The end may come without another request.
        let next = tokio::time::timeout(Duration::from_millis(50), connection.requests.message());
        let Ok(request) = next.await else { continue };
        let request = request.expect("a sound stream").expect("one more request");
        let answer = heard.hear(&request).expect("wants an answer");
        requests += 1;
        if requests.is_multiple_of(61) {
            // Heard, but the answer is lost.
            connection.fail("cut").await;
            connection = agent.coordinator.session().await;
            connection.open().await;
        } else {
            connection.answer(request.tag, answer).await;
        }
    }
    for branch in branches {
        soon(branch).await.expect("ran");
    }
    assert_eq!(agent.running.status().open_branches, 0);
    assert!(heard.done.is_disjoint(&heard.withdrawn), "one end each");
}
