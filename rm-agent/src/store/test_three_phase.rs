//! What 3PC promises, on whatever database: the same stories for each of them.

use std::{sync::Arc, time::Duration};

use accede_core::alone::{Knows, May, Phase, may};
use accede_proto::{Xid, XidParts};
use serde::{Deserialize, Serialize};

use super::{
    fence::Promise,
    finish::{BranchKey, PhaseTwoError, UndoPolicy},
    test_registrar::{Event, TestRegistrar},
    test_tcc::Ground,
};
use crate::{
    Error,
    agent::{Ended, Finish, Job},
    three_phase::{HandlerError, KeepsPromises, Participant, ThreePhase},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pay {
    amount: i64,
}

#[derive(Debug, thiserror::Error)]
enum PayError {
    #[error("not enough money")]
    NotEnough,
    #[error(transparent)]
    Accede(#[from] Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Pays from account 1; what it heard is counted in account 2.
struct PayFrom<G>(std::marker::PhantomData<fn() -> G>);

impl<G: Ground<Transaction: KeepsPromises>> ThreePhase for PayFrom<G> {
    type Transaction = G::Transaction;
    type Arguments = Pay;
    type Output = i64;
    type Error = PayError;

    fn resource(&self) -> &str {
        "account.pay"
    }

    async fn can_commit(&self, tx: &mut G::Transaction, pay: Pay) -> Result<i64, PayError> {
        let amount = pay.amount;
        let sql = format!(
            "UPDATE account SET free = free - {amount}, frozen = frozen + {amount} \
             WHERE id = 1 AND free >= {amount}"
        );
        match G::run(tx, sql).await? {
            0 => Err(PayError::NotEnough),
            _ => Ok(amount),
        }
    }

    async fn pre_commit(&self, tx: &mut G::Transaction, _: Pay) -> Result<(), HandlerError> {
        let sql = "UPDATE account SET frozen = frozen + 1 WHERE id = 2".to_owned();
        G::run(tx, sql).await?;
        Ok(())
    }

    async fn do_commit(&self, tx: &mut G::Transaction, pay: Pay) -> Result<(), HandlerError> {
        let amount = pay.amount;
        let sql = format!("UPDATE account SET frozen = frozen - {amount} WHERE id = 1");
        G::run(tx, sql).await?;
        Ok(())
    }

    async fn abort(&self, tx: &mut G::Transaction, pay: Pay) -> Result<(), HandlerError> {
        let amount = pay.amount;
        let sql = format!(
            "UPDATE account SET free = free + {amount}, frozen = frozen - {amount} WHERE id = 1"
        );
        G::run(tx, sql).await?;
        Ok(())
    }
}

struct Served<G> {
    pool: G,
    pay: Participant<Pay, PayError, i64>,
    finish: Arc<dyn Finish>,
}

const PAYLOAD: &[u8] = br#"{"version":1,"arguments":{"amount":5}}"#;
const BACK: Job = Job::RollBack {
    was_done: true,
    policy: UndoPolicy::Check,
};

impl<G: Ground<Transaction: KeepsPromises>> Served<G> {
    fn new(pool: &G, registrar: &Arc<TestRegistrar>) -> Self {
        let pay = Participant::new(PayFrom::<G>(std::marker::PhantomData));
        let registrar = Arc::clone(registrar);
        let finish = pay.unbound().bind(&pool.pools("db"), Some("db"), registrar);
        Self {
            pool: pool.clone(),
            pay,
            finish: finish.expect("it has the database"),
        }
    }

    async fn promise(&self, number: u64) {
        let said = self.pay.call_in(xid(number), Pay { amount: 5 }).await;
        assert_eq!(said.expect("it says yes"), 5);
    }

    async fn order(&self, number: u64, job: Job) -> Result<Ended, PhaseTwoError> {
        self.finish.finish(key(number), job, PAYLOAD).await
    }

    async fn alone(&self, number: u64, knows: Knows) -> Result<May, PhaseTwoError> {
        self.finish.act_alone(key(number), knows, PAYLOAD).await
    }

    /// What account 1 has free and frozen, and how often a commit was heard of.
    async fn money(&self) -> (i64, i64, i64) {
        let column = |column: &str, id: u32| {
            format!(
                "SELECT CAST({column} AS {}) FROM account WHERE id = {id}",
                G::INTEGER
            )
        };
        let sql = [column("free", 1), column("frozen", 1), column("frozen", 2)];
        match self.pool.read(sql.join(" UNION ALL ")).await[..] {
            [free, frozen, heard] => (free, frozen, heard),
            ref other => panic!("{other:?}"),
        }
    }

    async fn status(&self, number: u64) -> Vec<i64> {
        let sql = format!(
            "SELECT CAST(status AS {}) FROM accede_fence WHERE xid = {}",
            G::INTEGER,
            xid(number).as_u64()
        );
        self.pool.read(sql).await
    }

    /// All promises, once they are older than this very millisecond.
    async fn promises(&self, count: usize) -> Vec<Promise> {
        for _ in 0..500 {
            let found = self.finish.promises(Duration::ZERO, 100).await;
            let found = found.expect("it can be read");
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("there are not {count} promises");
    }

    /// A branch in this phase.
    async fn bring(&self, number: u64, phase: Phase) {
        if phase == Phase::Working {
            return;
        }
        self.promise(number).await;
        let job = match phase {
            Phase::Working | Phase::Prepared => return,
            Phase::PreCommitted => Job::PreCommit,
            Phase::Committed => Job::Commit,
            Phase::Aborted => BACK,
        };
        self.order(number, job).await.expect("it is brought there");
    }
}

fn xid(number: u64) -> Xid {
    let parts = XidParts {
        time_ms: number,
        sequence: 1,
        worker: 1,
    };
    Xid::from_parts(parts).expect("it fits")
}

fn key(number: u64) -> BranchKey {
    BranchKey {
        xid: xid(number),
        branch: 1,
    }
}

fn is_stuck<T>(result: &Result<T, PhaseTwoError>, words: &str) -> bool {
    matches!(result, Err(PhaseTwoError::Stuck { reason, .. }) if reason.contains(words))
}

/// A promise, the news of its commit and its commit, each ordered twice.
pub(super) async fn three_phases<G>(pool: &G, registrar: &Arc<TestRegistrar>)
where
    G: Ground<Transaction: KeepsPromises>,
{
    let f = Served::new(pool, registrar);
    f.promise(1).await;
    assert_eq!((f.money().await, f.status(1).await), ((95, 5, 0), vec![0]));
    let told = [Event::Registered(xid(1), 1, 0), Event::Done(xid(1), 1)];
    assert_eq!(registrar.take_events(), told);
    let heard = f.order(1, Job::PreCommit).await;
    assert_eq!(heard, Ok(Ended::PreCommitted));
    assert_eq!((f.money().await, f.status(1).await), ((95, 5, 1), vec![4]));
    for _ in 0..2 {
        assert_eq!(f.order(1, Job::Commit).await, Ok(Ended::Finished));
        assert_eq!((f.money().await, f.status(1).await), ((95, 0, 1), vec![1]));
    }
    // It was ordered to commit before it heard of that.
    assert_eq!(f.order(1, Job::PreCommit).await, Ok(Ended::Finished));
    let contrary = f.order(1, BACK).await;
    assert!(
        is_stuck(&contrary, "it was confirmed before"),
        "{contrary:?}"
    );

    // Without the phase between, and a repeat of that phase.
    f.promise(2).await;
    assert_eq!(f.order(2, Job::Commit).await, Ok(Ended::Finished));
    f.promise(3).await;
    assert_eq!(f.order(3, Job::PreCommit).await, Ok(Ended::PreCommitted));
    assert_eq!(f.order(3, Job::PreCommit).await, Ok(Ended::Finished));
    assert_eq!((f.money().await, f.status(3).await), ((85, 0, 2), vec![1]));
}

/// A no, a promise that is taken back, and one that comes after its rollback.
pub(super) async fn promises_are_taken_back<G>(pool: &G, registrar: &Arc<TestRegistrar>)
where
    G: Ground<Transaction: KeepsPromises>,
{
    let f = Served::new(pool, registrar);
    let no = f.pay.call_in(xid(1), Pay { amount: 500 }).await;
    assert!(matches!(no, Err(PayError::NotEnough)), "{no:?}");
    assert_eq!(
        registrar.take_events().last(),
        Some(&Event::Withdrawn(xid(1), 1))
    );
    f.promise(2).await;
    for _ in 0..2 {
        assert_eq!(f.order(2, BACK).await, Ok(Ended::Finished));
        assert_eq!((f.money().await, f.status(2).await), ((100, 0, 0), vec![2]));
    }
    let job = Job::RollBack {
        was_done: false,
        policy: UndoPolicy::Check,
    };
    assert_eq!(f.order(3, job).await, Ok(Ended::Finished));
    let late = f.pay.call_in(xid(3), Pay { amount: 5 }).await;
    assert!(
        matches!(
            late,
            Err(PayError::Accede(Error::RolledBackMeanwhile { .. }))
        ),
        "{late:?}"
    );
    assert_eq!(f.money().await, (100, 0, 0));
    for job in [Job::PreCommit, Job::Commit, BACK] {
        let order = f.order(4, job).await;
        assert!(is_stuck(&order, "no trace of its try"), "{order:?}");
    }
    assert_eq!(f.status(4).await, [0; 0], "nothing is left of that");
}

/// Every cell of the table of what a participant may do alone.
pub(super) async fn goes_by_the_table<G>(pool: &G, registrar: &Arc<TestRegistrar>)
where
    G: Ground<Transaction: KeepsPromises>,
{
    let f = Served::new(pool, registrar);
    let mut number = 0;
    for phase in Phase::ALL {
        for knows in Knows::ALL {
            number += 1;
            f.bring(number, phase).await;
            let (before, status) = (f.money().await, f.status(number).await);
            let done = f.alone(number, knows).await;
            let (after, now) = (f.money().await, f.status(number).await);
            let (free, frozen, heard) = before;
            let cell = format!("{phase:?} and {knows:?}: {done:?}");
            // Nobody asks about what has no trace: it is as one that was barred.
            let phase = match phase {
                Phase::Working => Phase::Aborted,
                other => other,
            };
            let allowed = may(phase, knows);
            let expected = match allowed {
                May::PreCommit => ((free, frozen, heard + 1), vec![4]),
                May::Commit => ((free, frozen - 5, heard), vec![1]),
                May::Abort => ((free + 5, frozen - 5, heard), vec![2]),
                May::Choose | May::Ask | May::Rest | May::Never => (before, status),
            };
            assert_eq!((after, now), expected, "{cell}");
            match allowed {
                May::Never => assert!(is_stuck(&done, "transaction"), "{cell}"),
                allowed => assert_eq!(done, Ok(allowed), "{cell}"),
            }
        }
    }
}

/// The promises that are looked after: those that are open, with what they were called with.
pub(super) async fn open_promises_are_found<G>(pool: &G, registrar: &Arc<TestRegistrar>)
where
    G: Ground<Transaction: KeepsPromises>,
{
    let f = Served::new(pool, registrar);
    let phases = [
        Phase::Prepared,
        Phase::PreCommitted,
        Phase::Committed,
        Phase::Aborted,
    ];
    for (number, phase) in (1..).zip(phases) {
        f.bring(number, phase).await;
    }
    let mut found = f.promises(2).await;
    found.sort_by_key(|promise| promise.key);
    let shown: Vec<_> = found
        .iter()
        .map(|promise| (promise.key, promise.is_pre_committed, &promise.payload[..]))
        .collect();
    assert_eq!(shown, [(key(1), false, PAYLOAD), (key(2), true, PAYLOAD)]);
    let one = f.finish.promises(Duration::ZERO, 1).await;
    assert_eq!(one.expect("it can be read").len(), 1);
    let young = f.finish.promises(Duration::from_secs(60), 100).await;
    assert_eq!(young, Ok(Vec::new()));
}
