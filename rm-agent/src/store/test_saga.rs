//! What steps of sagas promise, on whatever database: the same stories for each of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use accede_proto::{
    Xid, XidParts,
    v1::{StepOrder, StepOutput},
};
use serde::Deserialize;

use super::{
    finish::{BranchKey, PhaseTwoError, UndoPolicy},
    test_registrar::{Event, TestRegistrar},
    test_tcc::{Ground, Whose},
};
use crate::{
    agent::{DoStep, Ended},
    limits,
    saga::{HandlerError, SagaAction, SagaStep, StepInput, StepTransaction},
};

const CHECK: (bool, UndoPolicy) = (false, UndoPolicy::Check);
const DONE: (bool, UndoPolicy) = (true, UndoPolicy::Check);

#[derive(Deserialize)]
struct Take {
    account: i64,
    #[serde(default)]
    trouble: Option<String>,
}

/// Takes five from an account, and returns what the step before returned, and one.
struct Taking<G> {
    runs: Arc<AtomicUsize>,
    ground: std::marker::PhantomData<fn() -> G>,
}

impl<G: Ground> SagaStep for Taking<G>
where
    G::Transaction: StepTransaction,
{
    type Transaction = G::Transaction;
    type Input = Take;
    type Output = serde_json::Value;

    fn resource(&self) -> &str {
        "account.take"
    }

    async fn run(
        &self,
        tx: &mut G::Transaction,
        step: StepInput<Take>,
    ) -> Result<serde_json::Value, HandlerError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        knows_and_cannot_join(step.xid());
        let account = step.input.account;
        G::run(
            tx,
            format!("UPDATE account SET free = free - 5 WHERE id = {account}"),
        )
        .await?;
        match step.input.trouble.as_deref() {
            Some("definite") => return Err(HandlerError::definite("not enough money")),
            Some("retry") if run == 1 => return Err(HandlerError::retry("come back")),
            Some("panic") if run == 1 => panic!("oh no"),
            Some("large") => return Ok("x".repeat(limits::MAX_STEP_RESULT_BYTES).into()),
            _ => {}
        }
        let before: i64 = step.result("before")?;
        Ok((before + run as i64).into())
    }

    async fn compensate(
        &self,
        tx: &mut G::Transaction,
        step: StepInput<Take>,
    ) -> Result<(), HandlerError> {
        knows_and_cannot_join(step.xid());
        if step.input.trouble.as_deref() == Some("no way back") {
            return Err(HandlerError::definite("the money is spent"));
        }
        // What it returned says which run it was; only one can be compensated.
        let own: Option<i64> = step.own_result()?;
        let back = if own.is_some() { 5 } else { 0 };
        let account = step.input.account;
        let sql = format!("UPDATE account SET free = free + {back} WHERE id = {account}");
        G::run(tx, sql).await?;
        Ok(())
    }
}

fn knows_and_cannot_join(xid: Xid) {
    use accede_link::context::{current_xid, joinable};
    assert_eq!((current_xid(), joinable()), (Some(xid), None));
}

/// A step that is served, and who orders it.
struct Fixture<'g, G> {
    ground: &'g G,
    step: Arc<dyn DoStep>,
    runs: Arc<AtomicUsize>,
}

fn key(branch: u32) -> BranchKey {
    let xid = Xid::from_parts(XidParts {
        time_ms: 1_000,
        sequence: 1,
        worker: 1,
    });
    BranchKey {
        xid: xid.expect("an id"),
        branch,
    }
}

fn order() -> StepOrder {
    StepOrder {
        name: "take".into(),
        attempt_timeout_ms: 5_000,
        results: vec![StepOutput {
            step: "before".into(),
            result: b"40".to_vec().into(),
        }],
        result: None,
    }
}

impl<'g, G: Ground> Fixture<'g, G>
where
    G::Transaction: StepTransaction,
{
    fn new(ground: &'g G) -> Self {
        let runs = Arc::new(AtomicUsize::new(0));
        let action = SagaAction::new(Taking::<G> {
            runs: Arc::clone(&runs),
            ground: std::marker::PhantomData,
        });
        assert_eq!(action.resource(), "account.take");
        let bound = action.unbound().bind(&ground.pools("db"), "db");
        let step = bound.expect("the agent has the database");
        Self { ground, step, runs }
    }

    async fn run(&self, branch: u32, input: &str) -> Result<Ended, PhaseTwoError> {
        let order = order();
        self.step.run(key(branch), input.as_bytes(), &order).await
    }

    async fn compensate(
        &self,
        branch: u32,
        undo: (bool, UndoPolicy),
        input: &str,
    ) -> Result<(), PhaseTwoError> {
        let order = order();
        let step = self
            .step
            .compensate(key(branch), undo, input.as_bytes(), &order);
        step.await
    }

    async fn free(&self, account: i64) -> i64 {
        let sql = format!(
            "SELECT CAST(free AS {}) FROM account WHERE id = {account}",
            G::INTEGER
        );
        self.ground.read(sql).await[0]
    }
}

fn ran(result: &'static str) -> Result<Ended, PhaseTwoError> {
    Ok(Ended::Ran(result.as_bytes().into()))
}

/// All of them, on accounts of their own.
pub(super) async fn all_stories<G: Ground>(ground: &G, registrar: &TestRegistrar)
where
    G::Transaction: StepTransaction,
{
    once_and_back(ground).await;
    barred(ground).await;
    trouble(ground).await;
    at_once(ground).await;
    stands_still(ground, registrar).await;
    has_its_own_connections(ground).await;
}

/// A step takes effect once and returns the same each time, and so does its compensation.
async fn once_and_back<G: Ground>(ground: &G)
where
    G::Transaction: StepTransaction,
{
    let f = Fixture::new(ground);
    let input = r#"{"account":1}"#;
    for _ in 0..2 {
        assert_eq!(f.run(1, input).await, ran("41"));
    }
    assert_eq!((f.free(1).await, f.runs.load(Ordering::Relaxed)), (95, 1));
    for _ in 0..2 {
        f.compensate(1, DONE, input).await.expect("compensated");
        assert_eq!(f.free(1).await, 100);
    }
    let Ok(Ended::Refused(why)) = f.run(1, input).await else {
        panic!("it is not done any more");
    };
    assert!(why.contains("compensated before"), "{why}");
    assert_eq!(f.free(1).await, 100);
    // Without the handler: an operator keeps what was done.
    assert_eq!(f.run(2, input).await, ran("42"));
    let accept = (true, UndoPolicy::AcceptCurrent);
    f.compensate(2, accept, input).await.expect("noted");
    assert_eq!(f.free(1).await, 95);
}

/// A compensation without a step does nothing, and bars the step.
async fn barred<G: Ground>(ground: &G)
where
    G::Transaction: StepTransaction,
{
    let f = Fixture::new(ground);
    let input = r#"{"account":2}"#;
    for _ in 0..2 {
        f.compensate(11, CHECK, input).await.expect("nothing to do");
    }
    assert!(matches!(f.run(11, input).await, Ok(Ended::Refused(_))));
    assert_eq!((f.free(2).await, f.runs.load(Ordering::Relaxed)), (100, 0));
    let lost = f.compensate(12, DONE, input).await.expect_err("no trace");
    assert!(lost.to_string().contains("went back in time"), "{lost}");
    assert!(matches!(lost, PhaseTwoError::Stuck { .. }));
}

/// What goes wrong leaves nothing behind.
async fn trouble<G: Ground>(ground: &G)
where
    G::Transaction: StepTransaction,
{
    for (branch, trouble, expected) in [
        (21, "definite", "not enough money"),
        (22, "large", "16386 bytes, of 16384"),
    ] {
        let f = Fixture::new(ground);
        let input = format!(r#"{{"account":3,"trouble":"{trouble}"}}"#);
        let Ok(Ended::Refused(why)) = f.run(branch, &input).await else {
            panic!("{trouble}: it cannot be done");
        };
        assert!(why.contains(expected), "{why}");
        assert_eq!(f.free(3).await, 100, "{trouble}");
        f.compensate(branch, CHECK, &input)
            .await
            .expect("nothing to do");
        assert_eq!(f.free(3).await, 100, "{trouble}");
    }
    for (branch, trouble, expected) in [(23, "retry", "come back"), (24, "panic", "oh no")] {
        let f = Fixture::new(ground);
        let input = format!(r#"{{"account":3,"trouble":"{trouble}"}}"#);
        let failed = f.run(branch, &input).await.expect_err("the first attempt");
        assert!(failed.to_string().contains(expected), "{failed}");
        assert!(matches!(failed, PhaseTwoError::Failed { .. }));
        assert_eq!(f.run(branch, &input).await, ran("42"), "{trouble}");
        f.compensate(branch, DONE, &input)
            .await
            .expect("compensated");
        assert_eq!(f.free(3).await, 100, "{trouble}");
    }
    let f = Fixture::new(ground);
    let Ok(Ended::Refused(why)) = f.run(25, r#"{"account":"three"}"#).await else {
        panic!("nobody can read that");
    };
    assert!(why.contains("cannot be read"), "{why}");
    let input = r#"{"account":3,"trouble":"no way back"}"#;
    assert_eq!(f.run(26, input).await, ran("41"));
    let stuck = f.compensate(26, DONE, input).await.expect_err("stuck");
    assert!(matches!(&stuck, PhaseTwoError::Stuck { reason, .. } if reason.contains("spent")));
    assert_eq!(f.free(3).await, 95);
}

/// The same step ordered of two at once, and a compensation beside it.
async fn at_once<G: Ground>(ground: &G)
where
    G::Transaction: StepTransaction,
{
    let f = Fixture::new(ground);
    let input = r#"{"account":4}"#;
    let (one, two) = tokio::join!(f.run(31, input), f.run(31, input));
    for ended in [&one, &two] {
        // One of them may have waited for too long; it is ordered again.
        assert!(
            matches!(ended, Ok(Ended::Ran(_)) | Err(PhaseTwoError::Failed { .. })),
            "{ended:?}"
        );
    }
    assert_eq!(f.free(4).await, 95);
    let mut branch = 40;
    for _ in 0..8 {
        branch += 1;
        let (ran, _) = tokio::join!(f.run(branch, input), f.compensate(branch, CHECK, input));
        // Whichever came first, in the end it is as if neither had been.
        f.compensate(branch, CHECK, input)
            .await
            .expect("compensated");
        assert_eq!(f.free(4).await, 95, "{ran:?}");
    }
}

/// A step that waits for a row says so: who holds it may wait for this transaction.
async fn stands_still<G: Ground>(ground: &G, registrar: &TestRegistrar)
where
    G::Transaction: StepTransaction,
{
    let f = Fixture::new(ground);
    let _ = registrar.take_all_events();
    // What was told before does not count.
    let _ = tokio::time::timeout(Duration::ZERO, registrar.waiting.notified()).await;
    let mut holder = ground.begin(limits::LOCK_WAIT).await.expect("begins");
    let hold = "UPDATE account SET frozen = frozen WHERE id = 2".to_owned();
    G::run(&mut holder, hold).await.expect("locks");
    let told = async {
        registrar.waiting.notified().await;
        G::roll_back(&mut holder).await;
    };
    let (ended, ()) = tokio::join!(f.run(61, r#"{"account":2}"#), told);
    assert_eq!(ended, ran("41"));
    let blocked = Event::Blocked(key(61).xid);
    assert!(registrar.take_all_events().contains(&blocked));
}

/// Branches that hold all connections, and perhaps wait for the step's transaction, keep no step from
/// its end; nor do steps keep a compensation from it.
async fn has_its_own_connections<G: Ground>(ground: &G)
where
    G::Transaction: StepTransaction,
{
    let f = Fixture::new(ground);
    let input = r#"{"account":1}"#;
    let application = ground.hold(Whose::Application).await;
    assert_eq!(f.run(71, input).await, ran("41"));
    let steps = ground.hold(Whose::Steps).await;
    f.compensate(71, DONE, input).await.expect("compensated");
    drop((application, steps));
    assert_eq!(f.run(72, input).await, ran("42"));
}
