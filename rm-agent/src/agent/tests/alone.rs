//! Promises of which nobody speaks: what is asked, and what is done about the answer.

use accede_core::alone::{Knows, May, Phase, may};
use accede_proto::v1::{AskStanding, PromisesSeen, Standing, standing::State};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    super::{Ended, Finish, Job, database::*},
    *,
};
use crate::store::fence::Promise;

/// A participant that keeps its promises in memory.
#[derive(Default)]
struct Keeper {
    promises: Mutex<Vec<Promise>>,
    done: Mutex<Vec<(BranchKey, Knows, Vec<u8>)>>,
}

impl Finish for Keeper {
    fn mode(&self) -> Mode {
        Mode::ThreePhase
    }

    fn finish<'a>(
        &'a self,
        _: BranchKey,
        job: Job,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        let ended = match job {
            Job::PreCommit => Ended::PreCommitted,
            Job::Commit | Job::RollBack { .. } | Job::Run | Job::Prepare | Job::CommitOnePhase => {
                Ended::Finished
            }
        };
        Box::pin(std::future::ready(Ok(ended)))
    }

    fn promises(
        &self,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Promise>, PhaseTwoError>> {
        assert_eq!((older_than, limit), (TIMEOUT, quick().sweep_batch));
        Box::pin(std::future::ready(Ok(self.promises.lock().clone())))
    }

    fn act_alone<'a>(
        &'a self,
        branch: BranchKey,
        knows: Knows,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<May, PhaseTwoError>> {
        let mut promises = self.promises.lock();
        let place = promises.iter().position(|promise| promise.key == branch);
        let place = place.expect("it is one of ours");
        let phase = match promises[place].is_pre_committed {
            true => Phase::PreCommitted,
            false => Phase::Prepared,
        };
        let allowed = may(phase, knows);
        match allowed {
            May::PreCommit => promises[place].is_pre_committed = true,
            May::Commit | May::Abort => drop(promises.remove(place)),
            May::Choose | May::Ask | May::Rest | May::Never => {}
        }
        self.done.lock().push((branch, knows, payload.to_vec()));
        let result = match allowed {
            May::Never => Err(PhaseTwoError::stuck("this cannot be")),
            allowed => Ok(allowed),
        };
        Box::pin(std::future::ready(result))
    }
}

const TIMEOUT: Duration = Duration::from_millis(400);

struct Served {
    agent: Agent,
    connection: Connection,
    keeper: Arc<Keeper>,
}

async fn served() -> Served {
    let keeper = Arc::<Keeper>::default();
    let action = Participant::Action {
        finish: Arc::clone(&keeper) as _,
        database: None,
    };
    let limits = AgentLimits {
        three_phase_timeout: TIMEOUT,
        ..quick()
    };
    let resources = vec![("account.pay", action)];
    let mut agent = start_with(resources, limits, session_limits())
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    agent.until_attached(0).await;
    Served {
        agent,
        connection,
        keeper,
    }
}

fn promise(number: u64, is_pre_committed: bool) -> Promise {
    Promise {
        key: BranchKey {
            xid: xid(number),
            branch: 1,
        },
        is_pre_committed,
        age: Duration::from_secs(60),
        payload: number.to_string().into_bytes(),
    }
}

impl Served {
    /// The next question.
    async fn question(&mut self) -> (u64, AskStanding) {
        loop {
            let request = self.connection.next().await;
            match request.body {
                Some(Ask::AskStanding(asked)) => return (request.tag, asked),
                Some(Ask::PromisesSeen(_)) => {}
                other => panic!("expected a question, got {other:?}"),
            }
        }
    }

    /// What the agent says next that it has seen; its questions stay without an answer.
    async fn seen(&mut self) -> PromisesSeen {
        loop {
            let request = self.connection.next().await;
            match request.body {
                Some(Ask::AskStanding(_)) => {}
                Some(Ask::PromisesSeen(seen)) => {
                    assert_eq!((request.tag, &*seen.resource), (0, "account.pay"));
                    return seen;
                }
                other => panic!("expected figures, got {other:?}"),
            }
        }
    }

    async fn answer(&mut self, state: State) -> Vec<u64> {
        let (tag, asked) = self.question().await;
        assert_eq!(asked.resource, "account.pay");
        let states = asked.xids.iter().map(|_| state.into()).collect();
        let standing = Answer::Standing(Standing { states });
        self.connection.answer(tag, standing).await;
        asked.xids
    }

    fn status(&self) -> super::super::ResourceStatus {
        self.agent.running.status().resources[0].clone()
    }

    async fn until(&self, wanted: impl Fn(&super::super::ResourceStatus) -> bool) {
        soon(async {
            while !wanted(&self.status()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// What was done since the last time.
    fn done(&self) -> Vec<(u64, Knows, Vec<u8>)> {
        let done = std::mem::take(&mut *self.keeper.done.lock());
        let done = done.into_iter();
        done.map(|(key, knows, payload)| (key.xid.as_u64(), knows, payload))
            .collect()
    }
}

/// One promise in each phase; what both do about this answer.
async fn told(state: State, knows: Knows) {
    let mut f = served().await;
    let both = [promise(1, false), promise(2, true)];
    f.keeper.promises.lock().extend(both);
    assert_eq!(f.answer(state).await, [1, 2]);
    // What was not done yet is asked about again; by then the first round is over.
    let left = |phase| {
        let allowed = may(phase, knows);
        !matches!(allowed, May::Commit | May::Abort)
    };
    let waits = u64::from(left(Phase::Prepared)) + u64::from(left(Phase::PreCommitted));
    if waits > 0 {
        f.question().await;
    }
    let acts = |phase| {
        let allowed = may(phase, knows);
        !matches!(allowed, May::Ask | May::Choose | May::Rest)
    };
    let phases = [(1, Phase::Prepared), (2, Phase::PreCommitted)];
    let expected: Vec<_> = phases
        .into_iter()
        .filter(|(_, phase)| acts(*phase))
        .map(|(number, _)| (number, knows, number.to_string().into_bytes()))
        .collect();
    soon(async {
        while f.keeper.done.lock().len() < expected.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(f.done(), expected, "{knows:?}");
    let impossible = phases
        .iter()
        .filter(|(_, phase)| may(*phase, knows) == May::Never);
    let impossible = impossible.count() as u64;
    f.until(|status| status.impossible_promises == impossible)
        .await;
}

#[tokio::test]
async fn every_answer_is_acted_upon_as_the_table_says() {
    tokio::join!(
        told(State::Undecided, Knows::Undecided),
        told(State::PreCommitted, Knows::PreCommitted),
        told(State::Committing, Knows::Committing),
        told(State::RollingBack, Knows::RollingBack),
        told(State::Unspecified, Knows::Silence),
    );
}

#[tokio::test]
async fn without_a_coordinator_the_one_commits_and_the_other_waits_visibly() {
    let f = served().await;
    f.connection.fail("gone").await;
    f.agent.until_disconnected().await;
    let both = [promise(1, false), promise(2, true)];
    f.keeper.promises.lock().extend(both);
    soon(async {
        while f.keeper.promises.lock().len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(f.keeper.promises.lock()[0].key.xid, xid(1));
    soon(async {
        while f.agent.running.status().resources[0].promises != 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let status = f.agent.running.status().resources[0].clone();
    assert_eq!((status.alone, status.impossible_promises), (1, 0));
    assert_eq!(status.promises_oldest, Duration::from_secs(60));
}

#[tokio::test]
async fn the_coordinator_hears_what_waits_until_nothing_does() {
    let mut f = served().await;
    f.keeper.promises.lock().push(promise(1, false));
    let seen = f.seen().await;
    assert_eq!((seen.waiting, seen.impossible, seen.alone), (1, 0, 0));
    assert_eq!(seen.oldest_ms, 60_000);
    // One more comes, and goes on by itself as nobody answers.
    f.keeper.promises.lock().push(promise(2, true));
    let mut alone = 0;
    while alone == 0 {
        let seen = f.seen().await;
        assert_eq!(seen.waiting, 1);
        alone = seen.alone;
    }
    assert_eq!(alone, 1);
    f.keeper.promises.lock().clear();
    let mut last = f.seen().await;
    while last.waiting > 0 {
        last = f.seen().await;
    }
    assert_eq!((last.oldest_ms, last.alone), (0, 0));
}

#[tokio::test]
async fn what_the_coordinator_has_lost_is_an_alarm_and_changes_nothing() {
    for state in [State::NeverBegun, State::Forgotten] {
        let mut f = served().await;
        f.keeper.promises.lock().push(promise(1, false));
        f.answer(state).await;
        f.until(|status| status.impossible_promises == 1).await;
        assert!(f.done().is_empty());
        assert_eq!(f.status().promises, 1);
        // It is over once somebody has brought it in order.
        f.keeper.promises.lock().clear();
        f.until(|status| status.impossible_promises == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_silence() {
    let mut f = served().await;
    let both = [promise(1, false), promise(2, true)];
    f.keeper.promises.lock().extend(both);
    let (tag, _) = f.question().await;
    let short = Standing {
        states: vec![State::RollingBack.into()],
    };
    f.connection.answer(tag, Answer::Standing(short)).await;
    f.until(|status| status.alone == 1).await;
    assert_eq!(f.done(), [(2, Knows::Silence, b"2".to_vec())]);
}

#[tokio::test]
async fn an_order_to_pre_commit_is_answered_apart() {
    let mut f = served().await;
    let of_promise = |action| Order {
        resource: "account.pay".into(),
        mode: Mode::ThreePhase.into(),
        ..order(7, action, 1)
    };
    give(&f.connection, of_promise(Action::PreCommit)).await;
    let answer = finished(f.connection.next().await);
    assert!(matches!(end(&answer), End::PreCommitted(_)), "{answer:?}");
    assert_eq!(f.status().committed, 0);
    give(&f.connection, of_promise(Action::Commit)).await;
    let answer = finished(f.connection.next().await);
    assert!(matches!(end(&answer), End::Finished(_)), "{answer:?}");
    assert_eq!(f.status().committed, 1);
}
