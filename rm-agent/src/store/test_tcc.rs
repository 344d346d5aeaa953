//! What TCC promises, on whatever database: the same stories for each of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use accede_link::context::{TransactionContext, scope};
use accede_proto::{Xid, XidParts};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{
    fence::Fences,
    finish::{BranchKey, PhaseTwoError, UndoPolicy},
    test_registrar::{Answer, Event, TestRegistrar},
};
use crate::{
    Error, RefusalCode,
    agent::{Ended, Finish, Job, Pools},
    limits,
    tcc::{HandlerError, Tcc, TccAction, TccTransaction},
};

/// Accounts with 100 each, of which none is frozen.
pub(super) const SETUP: &str = "
CREATE TABLE account (id INTEGER PRIMARY KEY, free INTEGER NOT NULL, frozen INTEGER NOT NULL);
INSERT INTO account VALUES (1, 100, 0), (2, 100, 0), (3, 100, 0), (4, 100, 0);";

/// Who has connections of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    /// The application.
    Application,
    /// Steps of sagas.
    Steps,
}

/// All connections of a pool.
pub(crate) async fn all_of<DB: sqlx::Database>(
    pool: &sqlx::Pool<DB>,
) -> Vec<sqlx::pool::PoolConnection<DB>> {
    let mut held = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        held.push(pool.acquire().await.expect("a connection"));
    }
    held
}

/// A database to try it on.
pub(super) trait Ground: Fences<Transaction: TccTransaction> {
    fn pools(&self, name: &str) -> Pools;
    fn run(tx: &mut Self::Transaction, sql: String) -> BoxFuture<'_, Result<u64, sqlx::Error>>;
    /// The integers of a query's first column.
    fn read(&self, sql: String) -> BoxFuture<'_, Vec<i64>>;
    /// Holds all connections of a pool until they are dropped.
    fn hold(&self, whose: Whose) -> BoxFuture<'_, Box<dyn std::any::Any + Send>>;
    /// Ends the session of a transaction, as an operator would.
    fn cut(tx: &mut Self::Transaction) -> BoxFuture<'_, ()>;
    /// How it calls long integers in a CAST.
    const INTEGER: &'static str;
}

/// Implements [`Ground`] for a pool.
macro_rules! ground {
    ($pool:ty, $transaction:ty, $pools:ident, $integer:literal, $cut:literal) => {
        impl crate::store::test_tcc::Ground for $pool {
            const INTEGER: &'static str = $integer;

            fn pools(&self, name: &str) -> crate::agent::Pools {
                let mut pools = crate::agent::Pools::default();
                pools.$pools.insert(name.to_owned(), self.clone());
                pools
            }

            fn run(
                tx: &mut $transaction,
                sql: String,
            ) -> futures_util::future::BoxFuture<'_, Result<u64, sqlx::Error>> {
                Box::pin(async move {
                    let query = sqlx::query(sqlx::AssertSqlSafe(sql));
                    Ok(query.execute(&mut *tx).await?.rows_affected())
                })
            }

            fn read(&self, sql: String) -> futures_util::future::BoxFuture<'_, Vec<i64>> {
                Box::pin(async move {
                    let rows: Result<Vec<i64>, _> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                        .fetch_all(self.plain())
                        .await;
                    rows.expect("a query")
                })
            }

            fn hold(
                &self,
                whose: crate::store::test_tcc::Whose,
            ) -> futures_util::future::BoxFuture<'_, Box<dyn std::any::Any + Send>> {
                use crate::store::test_tcc::{Whose, all_of};
                let pool = match whose {
                    Whose::Application => self.plain(),
                    Whose::Steps => self.steps(),
                };
                Box::pin(async move {
                    let held: Box<dyn std::any::Any + Send> = Box::new(all_of(pool).await);
                    held
                })
            }

            fn cut(tx: &mut $transaction) -> futures_util::future::BoxFuture<'_, ()> {
                Box::pin(async move {
                    if !$cut.is_empty() {
                        let _ = sqlx::raw_sql($cut).execute(&mut *tx).await;
                    }
                })
            }
        }
    };
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Freeze {
    account: i64,
    amount: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

fn five_of(account: i64) -> Freeze {
    Freeze {
        account,
        amount: 5,
        note: String::new(),
    }
}

#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error("not enough money")]
    NotEnough,
    #[error(transparent)]
    Accede(#[from] Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl AccountError {
    /// This library's error inside.
    fn accede(&self) -> &Error {
        match self {
            Self::Accede(error) => error,
            other => panic!("{other:?} is not this library's"),
        }
    }
}

/// What a handler does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Retry,
    Definite,
    Database,
    Panic,
    /// Its session ends, and it does not notice.
    Cut,
    /// It never ends.
    Hangs,
}

#[derive(Default)]
struct Plan {
    troubles: Mutex<VecDeque<Trouble>>,
    confirms: AtomicUsize,
    cancels: AtomicUsize,
    hangs: Notify,
}

struct FreezeAction<G> {
    plan: Arc<Plan>,
    _ground: std::marker::PhantomData<fn() -> G>,
}

impl<G: Ground> FreezeAction<G> {
    async fn trouble(&self, tx: &mut G::Transaction) -> Result<(), HandlerError> {
        let trouble = self.plan.troubles.lock().pop_front();
        match trouble {
            None => Ok(()),
            Some(Trouble::Retry) => Err(HandlerError::retry("the bank is closed")),
            Some(Trouble::Definite) => Err(HandlerError::definite("the account is closed")),
            Some(Trouble::Database) => {
                G::run(tx, "INSERT INTO account VALUES (1, 0, 0)".into()).await?;
                Ok(())
            }
            Some(Trouble::Panic) => panic!("as planned"),
            Some(Trouble::Cut) => {
                G::cut(tx).await;
                Ok(())
            }
            Some(Trouble::Hangs) => {
                self.plan.hangs.notify_one();
                std::future::pending().await
            }
        }
    }
}

impl<G: Ground> TccAction for FreezeAction<G> {
    type Transaction = G::Transaction;
    type Arguments = Freeze;
    type Output = ();
    type Error = AccountError;

    const VERSION: u32 = 2;

    fn resource(&self) -> &str {
        "account.freeze"
    }

    async fn try_it(&self, tx: &mut G::Transaction, freeze: Freeze) -> Result<(), AccountError> {
        let Freeze {
            account, amount, ..
        } = freeze;
        let frozen = G::run(
            tx,
            format!(
                "UPDATE account SET free = free - {amount}, frozen = frozen + {amount} \
                 WHERE id = {account} AND free >= {amount}"
            ),
        );
        if frozen.await? == 0 {
            return Err(AccountError::NotEnough);
        }
        // Trouble comes after the work: that is what must be taken back.
        match self.trouble(tx).await {
            Err(HandlerError::Database(error)) => Err(error.into()),
            Err(_) => Err(AccountError::NotEnough),
            Ok(()) => Ok(()),
        }
    }

    async fn confirm(&self, tx: &mut G::Transaction, freeze: Freeze) -> Result<(), HandlerError> {
        let Freeze {
            account, amount, ..
        } = freeze;
        let sql = format!("UPDATE account SET frozen = frozen - {amount} WHERE id = {account}");
        G::run(tx, sql).await?;
        self.trouble(tx).await?;
        self.plan.confirms.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn cancel(&self, tx: &mut G::Transaction, freeze: Freeze) -> Result<(), HandlerError> {
        let Freeze {
            account, amount, ..
        } = freeze;
        let sql = format!(
            "UPDATE account SET free = free + {amount}, frozen = frozen - {amount} \
             WHERE id = {account}"
        );
        G::run(tx, sql).await?;
        self.trouble(tx).await?;
        self.plan.cancels.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn upgrade(&self, version: u32, arguments: serde_json::Value) -> Result<Freeze, String> {
        let [account, amount] = serde_json::from_value(arguments)
            .map_err(|error| format!("version {version}: {error}"))?;
        Ok(Freeze {
            account,
            amount,
            note: String::new(),
        })
    }
}

/// An action that is served, and who orders it to be finished.
struct Served<G: Ground> {
    pool: G,
    plan: Arc<Plan>,
    freeze: Tcc<Freeze, AccountError>,
    finish: Arc<dyn Finish>,
}

fn unserved<G: Ground>() -> (Tcc<Freeze, AccountError>, Arc<Plan>) {
    let plan = Arc::new(Plan::default());
    let action = FreezeAction::<G> {
        plan: Arc::clone(&plan),
        _ground: std::marker::PhantomData,
    };
    (Tcc::new(action), plan)
}

impl<G: Ground> Served<G> {
    fn new(pool: &G, registrar: &Arc<TestRegistrar>) -> Self {
        let (freeze, plan) = unserved::<G>();
        let registrar = Arc::clone(registrar);
        let finish = freeze
            .unbound()
            .bind(&pool.pools("db"), Some("db"), registrar)
            .expect("it has the database");
        Self {
            pool: pool.clone(),
            plan,
            freeze,
            finish,
        }
    }

    fn trouble(&self, trouble: Trouble) {
        self.plan.troubles.lock().push_back(trouble);
    }

    async fn finish(&self, branch: BranchKey, job: Job) -> Result<(), PhaseTwoError> {
        let payload = br#"{"version":2,"arguments":{"account":1,"amount":5}}"#;
        let ended = self.finish.finish(branch, job, payload).await;
        ended.map(|ended| assert_eq!(ended, Ended::Finished))
    }

    async fn confirm(&self, branch: BranchKey) -> Result<(), PhaseTwoError> {
        self.finish(branch, Job::Commit).await
    }

    async fn cancel(&self, branch: BranchKey, was_done: bool) -> Result<(), PhaseTwoError> {
        let policy = UndoPolicy::Check;
        self.finish(branch, Job::RollBack { was_done, policy })
            .await
    }

    /// What account 1 has free and frozen.
    async fn money(&self) -> (i64, i64) {
        let both = self.pool.read(format!(
            "SELECT CAST(free AS {0}) FROM account WHERE id = 1 \
                 UNION ALL SELECT CAST(frozen AS {0}) FROM account WHERE id = 1",
            G::INTEGER
        ));
        match both.await[..] {
            [free, frozen] => (free, frozen),
            ref other => panic!("{other:?}"),
        }
    }

    /// The status of each fence, in the order of their keys.
    async fn fences(&self) -> Vec<i64> {
        let sql = format!(
            "SELECT CAST(status AS {}) FROM accede_fence ORDER BY xid, branch_id",
            G::INTEGER
        );
        self.pool.read(sql).await
    }
}

fn xid(number: u64) -> Xid {
    Xid::from_parts(XidParts {
        time_ms: number,
        sequence: 1,
        worker: 1,
    })
    .expect("it fits")
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

fn failed<T>(result: &Result<T, PhaseTwoError>, words: &str) -> bool {
    matches!(result, Err(PhaseTwoError::Failed { reason }) if reason.contains(words))
}

const TRIED: i64 = 0;
const CONFIRMED: i64 = 1;
const CANCELLED: i64 = 2;
const BARRED: i64 = 3;

/// Effects come once, in either direction, and never in both.
pub(super) async fn effects_come_once<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) {
    let f = Served::new(pool, registrar);
    f.freeze.call_in(xid(1), five_of(1)).await.expect("tried");
    assert_eq!(f.money().await, (95, 5));
    assert_eq!(
        registrar.take_events(),
        [Event::Registered(xid(1), 1, 0), Event::Done(xid(1), 1)]
    );
    let registration = registrar.last().expect("registered");
    assert_eq!(
        &registration.payload[..],
        br#"{"version":2,"arguments":{"account":1,"amount":5}}"#
    );
    for _ in 0..2 {
        f.confirm(key(1)).await.expect("confirmed");
        assert_eq!(
            (f.money().await, f.fences().await),
            ((95, 0), vec![CONFIRMED])
        );
    }
    let contrary = f.cancel(key(1), true).await;
    assert!(
        is_stuck(&contrary, "it was confirmed before"),
        "{contrary:?}"
    );

    f.freeze.call_in(xid(2), five_of(1)).await.expect("tried");
    for _ in 0..2 {
        f.cancel(key(2), true).await.expect("cancelled");
        let fences = vec![CONFIRMED, CANCELLED];
        assert_eq!((f.money().await, f.fences().await), ((95, 0), fences));
    }
    let contrary = f.confirm(key(2)).await;
    assert!(
        is_stuck(&contrary, "it was cancelled before"),
        "{contrary:?}"
    );
    let calls = (&f.plan.confirms, &f.plan.cancels);
    let calls = (
        calls.0.load(Ordering::SeqCst),
        calls.1.load(Ordering::SeqCst),
    );
    assert_eq!(calls, (1, 1));
}

/// A cancel without a try does nothing, and bars a late one; a confirm without a try is stuck.
pub(super) async fn orders_without_a_try<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) {
    let f = Served::new(pool, registrar);
    for _ in 0..2 {
        f.cancel(key(1), false).await.expect("empty");
        assert_eq!(f.fences().await, [BARRED]);
    }
    let late = f
        .freeze
        .call_in(xid(1), five_of(1))
        .await
        .expect_err("barred");
    assert!(
        matches!(late.accede(), Error::RolledBackMeanwhile { xid: found } if *found == xid(1)),
        "{late:?}"
    );
    assert_eq!(f.money().await, (100, 0));
    let told = registrar.take_events();
    assert_eq!(told.last(), Some(&Event::Withdrawn(xid(1), 1)));

    for order in [f.confirm(key(2)).await, f.cancel(key(3), true).await] {
        assert!(is_stuck(&order, "no trace of its try"), "{order:?}");
    }
    assert_eq!(
        f.fences().await,
        [BARRED],
        "nothing is left of what is stuck"
    );
    let accept = Job::RollBack {
        was_done: true,
        policy: UndoPolicy::AcceptCurrent,
    };
    f.finish(key(3), accept).await.expect("an operator said so");
    assert_eq!(f.fences().await, [BARRED, BARRED]);
    f.freeze.call_in(xid(4), five_of(1)).await.expect("tried");
    f.finish(key(4), accept).await.expect("an operator said so");
    assert_eq!(f.money().await, (95, 5), "without the handler");
    f.cancel(key(4), true).await.expect("it is over");
    assert_eq!(f.money().await, (95, 5));
}

/// A try that does not come through leaves nothing, here and at the coordinator.
pub(super) async fn failed_tries_leave_nothing<G: Ground>(
    pool: &G,
    registrar: &Arc<TestRegistrar>,
) {
    let f = Served::new(pool, registrar);
    f.trouble(Trouble::Definite);
    let refused = f.freeze.call_in(xid(1), five_of(1)).await;
    assert!(
        matches!(refused, Err(AccountError::NotEnough)),
        "{refused:?}"
    );
    assert_eq!(
        registrar.take_events(),
        [Event::Registered(xid(1), 1, 0), Event::Withdrawn(xid(1), 1)]
    );
    f.cancel(key(1), false).await.expect("empty");

    registrar.answer(Answer::Refuse(RefusalCode::AlreadyDecided));
    let refused = f
        .freeze
        .call_in(xid(2), five_of(1))
        .await
        .expect_err("refused");
    assert!(matches!(refused.accede(), Error::Refused(_)), "{refused:?}");

    registrar.answer(Answer::GiveUp(Duration::ZERO));
    let late = f
        .freeze
        .call_in(xid(3), five_of(1))
        .await
        .expect_err("late");
    assert!(matches!(late.accede(), Error::GaveUp { .. }), "{late:?}");
    let told = registrar.take_events();
    assert_eq!(told.last(), Some(&Event::Withdrawn(xid(3), 1)));

    let long = Freeze {
        note: "x".repeat(limits::MAX_PAYLOAD_BYTES),
        ..five_of(1)
    };
    let large = f.freeze.call_in(xid(4), long).await.expect_err("too large");
    assert!(
        matches!(large.accede(), Error::TooLarge { .. }),
        "{large:?}"
    );
    let outside = f.freeze.call(five_of(1)).await.expect_err("no transaction");
    let said = outside.to_string();
    assert!(
        said.contains("\"account.freeze\" needs a global transaction"),
        "{said}"
    );
    let (unserved, _) = unserved::<G>();
    let early = unserved
        .call_in(xid(5), five_of(1))
        .await
        .expect_err("too early");
    assert!(early.to_string().contains("start the agent"), "{early}");
    assert_eq!(registrar.take_events(), []);
    assert_eq!(
        (f.money().await, f.fences().await),
        ((100, 0), vec![BARRED])
    );

    let context = TransactionContext::new(xid(6));
    let joined = scope(Some(context), f.freeze.call(five_of(1))).await;
    joined.expect("the task's transaction");
    assert_eq!(f.fences().await, [BARRED, TRIED]);
}

/// A future that is dropped half-way leaves no local transaction, and tells the coordinator.
pub(super) async fn dropped_tries_leave_nothing<G: Ground>(
    pool: &G,
    registrar: &Arc<TestRegistrar>,
) {
    let f = Served::new(pool, registrar);
    registrar.answer(Answer::Never);
    tokio::select! {
        _ = f.freeze.call_in(xid(1), five_of(1)) => panic!("it waits"),
        () = registrar.waiting.notified() => {}
    }
    f.trouble(Trouble::Hangs);
    tokio::select! {
        _ = f.freeze.call_in(xid(2), five_of(1)) => panic!("it waits"),
        () = f.plan.hangs.notified() => {}
    }
    f.trouble(Trouble::Panic);
    let freeze = f.freeze.clone();
    let panicked = tokio::spawn(async move { freeze.call_in(xid(3), five_of(1)).await });
    assert!(panicked.await.expect_err("it panicked").is_panic());
    assert_eq!(
        registrar.take_events(),
        [
            Event::Dropped(xid(1)),
            Event::Registered(xid(2), 1, 0),
            Event::Withdrawn(xid(2), 1),
            Event::Registered(xid(3), 1, 0),
            Event::Withdrawn(xid(3), 1),
        ]
    );
    // None of them holds a lock on the row.
    f.freeze.call_in(xid(4), five_of(1)).await.expect("tried");
    assert_eq!((f.money().await, f.fences().await), ((95, 5), vec![TRIED]));
}

/// What handlers run into is told apart, and leaves nothing half-done.
pub(super) async fn handlers_fail<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) {
    let f = Served::new(pool, registrar);
    for number in [1, 2] {
        f.freeze
            .call_in(xid(number), five_of(1))
            .await
            .expect("tried");
    }
    for job in 0..2 {
        let order = async || match job {
            0 => f.confirm(key(1)).await,
            _ => f.cancel(key(2), true).await,
        };
        let before = f.money().await;
        f.trouble(Trouble::Retry);
        let result = order().await;
        assert!(failed(&result, "the bank is closed"), "{result:?}");
        f.trouble(Trouble::Definite);
        let result = order().await;
        assert!(is_stuck(&result, "the account is closed"), "{result:?}");
        f.trouble(Trouble::Database);
        let result = order().await;
        assert!(failed(&result, ""), "{result:?}");
        f.trouble(Trouble::Panic);
        let result = order().await;
        assert!(failed(&result, "panicked: as planned"), "{result:?}");
        assert_eq!(f.money().await, before);
        assert_eq!(f.fences().await[job], TRIED);
        order().await.expect("at last");
    }
    assert_eq!(
        (f.money().await, f.fences().await),
        ((95, 0), vec![CONFIRMED, CANCELLED])
    );
}

/// Arguments of other versions, and what is none.
pub(super) async fn arguments_have_versions<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) {
    let f = Served::new(pool, registrar);
    f.freeze.call_in(xid(1), five_of(1)).await.expect("tried");
    let order = async |payload: &str| {
        let payload = payload.as_bytes();
        f.finish.finish(key(1), Job::Commit, payload).await
    };
    let newer = order(r#"{"version":3,"arguments":{}}"#).await;
    assert!(
        failed(&newer, "version 3, this service knows 2"),
        "{newer:?}"
    );
    for unreadable in [
        "",
        "{}",
        r#"{"version":2}"#,
        r#"{"version":2,"arguments":{"account":"one"}}"#,
        r#"{"version":1,"arguments":"five"}"#,
    ] {
        let result = order(unreadable).await;
        assert!(
            is_stuck(&result, "cannot be read"),
            "{unreadable}: {result:?}"
        );
    }
    assert_eq!(f.fences().await, [TRIED]);
    order(r#"{"version":1,"arguments":[1,5]}"#)
        .await
        .expect("an older one");
    assert_eq!(f.money().await, (95, 0));
}

/// Everybody at once: nobody deadlocks, each branch ends one way with one effect.
pub(super) async fn all_at_once<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) {
    let f = Served::new(pool, registrar);
    const BRANCHES: u64 = 40;
    let last = registrar;
    for number in 1..=BRANCHES / 2 {
        f.freeze
            .call_in(xid(number), five_of(1))
            .await
            .expect("tried");
    }
    let works = (1..=BRANCHES).map(|number| {
        let f = &f;
        async move {
            // In the first half the try is done; in the second it comes at the same time.
            let done = number <= BRANCHES / 2;
            let again = async |job: Job| {
                for _ in 0..200 {
                    match f.finish(key(number), job).await {
                        Err(PhaseTwoError::Failed { reason }) => {
                            assert!(!reason.to_lowercase().contains("deadlock"), "{reason}");
                        }
                        // The pool is small.
                        Err(PhaseTwoError::Unavailable { .. }) => {}
                        result => return result,
                    }
                }
                panic!("branch {number} does not end");
            };
            let back = Job::RollBack {
                was_done: done,
                policy: UndoPolicy::Check,
            };
            if done && number % 2 == 0 {
                let (one, two) = tokio::join!(again(Job::Commit), again(Job::Commit));
                one.and(two).expect("confirmed");
                return 1;
            }
            if done {
                let (one, two) = tokio::join!(again(back), again(back));
                one.and(two).expect("cancelled");
                return 0;
            }
            let late = f.freeze.call_in(xid(number), five_of(1));
            let (tried, one, two) = tokio::join!(late, again(back), again(back));
            one.and(two).expect("cancelled or barred");
            drop(tried);
            0
        }
    });
    let confirmed: i64 = join_all(works).await.into_iter().sum();
    assert_eq!(f.money().await, (100 - 5 * confirmed, 0));
    let confirms = f.plan.confirms.load(Ordering::SeqCst);
    assert_eq!(i64::try_from(confirms), Ok(confirmed));
    let fences = f.fences().await;
    assert_eq!(fences.len() as u64, BRANCHES);
    assert!(!fences.contains(&TRIED), "{fences:?}");
    drop(last.take_events());
}

/// The session ends before the commit: the coordinator hears that nobody knows.
pub(super) async fn a_lost_session_is_not_known<G: Ground>(
    pool: &G,
    registrar: &Arc<TestRegistrar>,
) {
    let f = Served::new(pool, registrar);
    f.trouble(Trouble::Cut);
    let lost = f
        .freeze
        .call_in(xid(1), five_of(1))
        .await
        .expect_err("lost");
    assert!(
        matches!(lost.accede(), Error::CommitUnknown { .. }),
        "{lost:?}"
    );
    let told = registrar.take_events();
    assert_eq!(told.last(), Some(&Event::Doomed(xid(1), 1)));
    f.cancel(key(1), false)
        .await
        .expect("empty: it did not commit");
    assert_eq!(f.money().await, (100, 0));

    f.freeze.call_in(xid(2), five_of(1)).await.expect("tried");
    f.trouble(Trouble::Cut);
    let lost = f.confirm(key(2)).await;
    assert!(
        matches!(
            lost,
            Err(PhaseTwoError::Unavailable { .. } | PhaseTwoError::Failed { .. })
        ),
        "{lost:?}"
    );
    assert_eq!(f.fences().await, [BARRED, TRIED]);
    f.confirm(key(2)).await.expect("the next attempt");
    assert_eq!(f.money().await, (95, 0));
}

/// What it costs when nothing is in the way: round trips of a try, a confirm and a cancel, each
/// with one statement of the handler's. `pool` goes through the proxy.
pub(super) async fn trips<G: Ground>(
    pool: &G,
    registrar: &Arc<TestRegistrar>,
    trips: &super::test_proxy::Trips,
) -> [usize; 3] {
    let f = Served::new(pool, registrar);
    let mut least = [usize::MAX; 3];
    // The first round prepares the statements.
    for round in 0..6 {
        let (one, two) = (2 * round + 1, 2 * round + 2);
        f.freeze.call_in(xid(one), five_of(1)).await.expect("tried");
        trips.take();
        f.freeze.call_in(xid(two), five_of(1)).await.expect("tried");
        least[0] = least[0].min(trips.take());
        f.confirm(key(one)).await.expect("confirmed");
        least[1] = least[1].min(trips.take());
        f.cancel(key(two), true).await.expect("cancelled");
        least[2] = least[2].min(trips.take());
    }
    least
}

/// A branch that was tried, one that was confirmed, one that was barred.
pub(super) async fn one_of_each<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) {
    let f = Served::new(pool, registrar);
    for number in [1, 2] {
        f.freeze
            .call_in(xid(number), five_of(1))
            .await
            .expect("tried");
    }
    f.confirm(key(2)).await.expect("confirmed");
    f.cancel(key(3), false).await.expect("empty");
}

/// The keys of [`one_of_each`].
pub(super) fn all_keys() -> Vec<BranchKey> {
    (1..=3).map(key).collect()
}

/// What became of them after a purge of all three.
pub(super) async fn fences_left<G: Ground>(pool: &G, registrar: &Arc<TestRegistrar>) -> Vec<i64> {
    Served::new(pool, registrar).fences().await
}

/// The tests of one database.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        stories!(test_tcc: $($story),*);
    };
    ($module:ident: $($story:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $story() {
            let f = super::Fixture::new(crate::store::test_tcc::SETUP).await;
            crate::store::$module::$story(&f.pool, &f.registrar).await;
        }
    )*};
}
