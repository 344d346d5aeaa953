//! What is promised of XA branches that are kept open, on whatever database: the same stories for
//! each of them.

use std::{sync::Arc, time::Duration};

use accede_proto::{Xid, XidParts};
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{sleep, timeout};

use super::{
    finish::{BranchKey, PhaseTwoError, UndoPolicy},
    test_proxy as proxy,
    test_registrar::{Answer, Event, TestRegistrar},
    xa::{
        open::{End, end_all},
        orders::{self, Finds},
    },
};
use crate::{Registrar, agent::Ended, clock, limits};

const TAKE: &str = "UPDATE stock SET count = count - 1 WHERE product = 1";

/// A database to try it on.
pub(super) trait Keeper: Finds {
    /// Another agent's pool, with as many connections.
    fn at(url: &str, connections: u32, registrar: Arc<dyn Registrar>) -> Self;
    /// Runs a statement in a branch; the number of its session.
    fn branch(&self, xid: Xid, sql: &'static str) -> BoxFuture<'_, Result<i64, sqlx::Error>>;
    /// Commits what is prepared.
    fn commit<'a>(
        &'a self,
        key: BranchKey,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>>;
    /// How many are prepared in this database.
    fn prepared(&self) -> BoxFuture<'_, usize>;
    /// The integers of a query's first column.
    fn read(&self, sql: &'static str) -> BoxFuture<'_, Vec<i64>>;
    /// Runs statements outside of any transaction.
    fn execute(&self, sql: &'static str) -> BoxFuture<'_, ()>;
    /// Takes one of the pool's connections for as long as what it returns lives.
    fn occupy(&self) -> BoxFuture<'_, Box<dyn std::any::Any + Send>>;
    /// Ends a session, as an operator would; returns when it has ended.
    fn terminate(&self, session: i64) -> BoxFuture<'_, ()>;
}

/// A database of its own with the tables of the tests of XA, tied to a cluster, and a pool that
/// keeps branches open.
pub(super) struct Ground<P> {
    url: String,
    pool: P,
    registrar: Arc<TestRegistrar>,
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

impl<P: Keeper> Ground<P> {
    pub(super) fn new(url: String, registrar: Arc<TestRegistrar>) -> Self {
        *registrar.keeps_open.lock() = true;
        let pool = P::at(&url, 20, registrar.clone());
        pool.kept_open().allow(usize::MAX);
        Self {
            url,
            pool,
            registrar,
        }
    }

    /// Another agent.
    fn another(&self) -> P {
        P::at(&self.url, 4, self.registrar.clone())
    }

    /// Opens a branch that stays open; its session.
    async fn open(&self, number: u64) -> i64 {
        let open = self.pool.kept_open().len();
        let session = self.pool.branch(xid(number), TAKE).await;
        assert_eq!(self.pool.kept_open().len(), open + 1);
        session.expect("kept open")
    }

    async fn end(&self, pool: &P, number: u64, end: End) -> Result<Ended, PhaseTwoError> {
        let payload = self.registrar.payload(xid(number), 1);
        match end {
            End::Prepare => orders::prepare_open(pool, key(number), &payload).await,
            End::CommitOnePhase => orders::commit_open(pool, key(number), &payload).await,
        }
    }

    async fn one_phase(&self, pool: &P, number: u64) -> Result<Ended, PhaseTwoError> {
        self.end(pool, number, End::CommitOnePhase).await
    }

    async fn vote(&self, pool: &P, number: u64) -> Result<Ended, PhaseTwoError> {
        self.end(pool, number, End::Prepare).await
    }

    /// Repeats an order while a session is in its way, as the coordinator does.
    async fn patiently(&self, pool: &P, number: u64, end: End) -> Result<Ended, PhaseTwoError> {
        let repeat = async {
            loop {
                match self.end(pool, number, end).await {
                    Err(PhaseTwoError::Failed { .. }) => {}
                    result => return result,
                }
            }
        };
        timeout(Duration::from_secs(60), repeat)
            .await
            .expect("it gets out of the way")
    }

    async fn commit(&self, number: u64) -> Result<(), PhaseTwoError> {
        let payload = self.registrar.payload(xid(number), 1);
        self.pool.commit(key(number), &payload).await
    }

    async fn roll_back(&self, number: u64) -> Result<(), PhaseTwoError> {
        let payload = self.registrar.payload(xid(number), 1);
        orders::roll_back(&self.pool, key(number), &payload, UndoPolicy::Check).await
    }

    /// What is left of the first product.
    async fn left(&self) -> i64 {
        let sql = "SELECT count FROM stock WHERE product = 1";
        self.pool.read(sql).await[0]
    }

    async fn fences(&self) -> Vec<i64> {
        let sql = "SELECT status + 0 * xid FROM accede_fence ORDER BY xid, branch_id";
        self.pool.read(sql).await
    }
}

fn refused(ended: Result<Ended, PhaseTwoError>) -> String {
    match ended {
        Ok(Ended::Refused(why)) => why,
        other => panic!("expected a no, got {other:?}"),
    }
}

fn stuck<T: std::fmt::Debug>(result: Result<T, PhaseTwoError>) -> String {
    match result {
        Err(PhaseTwoError::Stuck { reason, .. }) => reason,
        other => panic!("expected stuck, got {other:?}"),
    }
}

pub(super) async fn the_only_branch_commits_in_one_phase_however_often<P: Keeper>(g: &Ground<P>) {
    g.open(1).await;
    assert_eq!(g.left().await, 10);
    assert_eq!(g.pool.prepared().await, 0);
    for pool in [&g.pool, &g.pool, &g.another()] {
        assert_eq!(g.one_phase(pool, 1).await, Ok(Ended::Finished));
        assert_eq!(g.left().await, 9);
        assert_eq!(g.fences().await, [1]);
    }
    assert_eq!(g.pool.prepared().await, 0);
    assert_eq!(
        g.registrar.take_events(),
        [Event::Registered(xid(1), 1, 0), Event::Over(xid(1), 1)]
    );
    // Its connection serves others again.
    g.pool.branch(xid(2), "SELECT 1").await.expect("reads");
}

pub(super) async fn it_costs_as_much_as_a_local_transaction<P: Keeper>(g: &Ground<P>) {
    let (url, trips) = proxy::start(&g.url).await;
    let pool = P::at(&url, 4, g.registrar.clone());
    pool.kept_open().allow(usize::MAX);
    let (mut least, mut least_after) = (usize::MAX, usize::MAX);
    for number in 1..8 {
        trips.take();
        pool.branch(xid(number), TAKE).await.expect("kept open");
        least = least.min(trips.take());
        assert_eq!(g.one_phase(&pool, number).await, Ok(Ended::Finished));
        least_after = least_after.min(trips.take());
    }
    assert_eq!(least, 3, "BEGIN, what session it is, UPDATE");
    assert_eq!(least_after, 1, "the fence's row and COMMIT");
}

pub(super) async fn another_branch_makes_it_prepare_and_it_ends_by_its_order<P: Keeper>(
    g: &Ground<P>,
) {
    g.open(1).await;
    for pool in [&g.pool, &g.pool, &g.another()] {
        assert_eq!(g.vote(pool, 1).await, Ok(Ended::Prepared));
        assert_eq!(g.pool.prepared().await, 1);
    }
    assert_eq!(g.left().await, 10);
    g.commit(1).await.expect("committed");
    assert_eq!(g.left().await, 9);
    assert!(stuck(g.vote(&g.pool, 1).await).contains("by hand"));
    // Prepared, then decided alone after all.
    g.open(2).await;
    assert_eq!(g.vote(&g.pool, 2).await, Ok(Ended::Prepared));
    assert_eq!(g.one_phase(&g.pool, 2).await, Ok(Ended::Finished));
    assert_eq!(g.left().await, 8);
}

pub(super) async fn a_rollback_reaches_the_open_transaction<P: Keeper>(g: &Ground<P>) {
    g.open(1).await;
    g.roll_back(1).await.expect("rolled back");
    assert!(g.fences().await.is_empty(), "nothing of it can come");
    assert_eq!(g.left().await, 10);
    // A repeat finds nothing, and bars it.
    g.roll_back(1).await.expect("barred");
    assert_eq!(g.fences().await, [3]);
    assert!(refused(g.one_phase(&g.pool, 1).await).contains("is gone"));
    g.pool.execute(TAKE).await;
}

pub(super) async fn one_whose_session_is_gone_is_a_no<P: Keeper>(g: &Ground<P>) {
    for (number, end) in [(1, End::CommitOnePhase), (2, End::Prepare)] {
        let session = g.open(number).await;
        g.pool.terminate(session).await;
        refused(g.patiently(&g.pool, number, end).await);
    }
    for number in [1, 2] {
        let why = refused(g.one_phase(&g.pool, number).await);
        assert!(why.contains("the database has rolled it back"), "{why}");
        refused(g.vote(&g.pool, number).await);
    }
    assert_eq!(g.fences().await, [3, 3]);
    assert_eq!(g.left().await, 10);
    // The rollback of the third goes through as well.
    let session = g.open(3).await;
    g.pool.terminate(session).await;
    g.roll_back(3).await.expect("barred");
    assert_eq!(g.fences().await, [3, 3, 3]);
}

pub(super) async fn an_agent_without_the_session_bars_it<P: Keeper>(g: &Ground<P>) {
    let elsewhere = g.another();
    g.open(1).await;
    refused(g.one_phase(&elsewhere, 1).await);
    assert_eq!(g.fences().await, [3]);
    // The open one comes late.
    let why = refused(g.one_phase(&g.pool, 1).await);
    assert!(why.contains("rolled back"), "{why}");
    g.open(2).await;
    refused(g.vote(&elsewhere, 2).await);
    end_all(&g.pool).await;
    assert!(g.registrar.events().contains(&Event::Doomed(xid(2), 1)));
    assert_eq!(g.pool.prepared().await, 0);
    assert_eq!(g.left().await, 10);
}

pub(super) async fn agents_that_are_ordered_at_once_agree<P: Keeper>(g: &Ground<P>) {
    let elsewhere = g.another();
    let mut taken = 0;
    for number in 1..30 {
        g.open(number).await;
        // Who comes first changes.
        let here = async {
            if number % 3 == 0 {
                tokio::task::yield_now().await;
            }
            g.patiently(&g.pool, number, End::CommitOnePhase).await
        };
        let there = g.patiently(&elsewhere, number, End::CommitOnePhase);
        let ends = match number % 2 {
            0 => tokio::join!(here, there),
            _ => {
                let (there, here) = tokio::join!(there, here);
                (here, there)
            }
        };
        match ends {
            (Ok(Ended::Finished), Ok(Ended::Finished)) => taken += 1,
            (Ok(Ended::Refused(_)), Ok(Ended::Refused(_))) => {}
            other => panic!("they differ: {other:?}"),
        }
        assert_eq!(g.left().await, 10 - taken);
    }
}

/// The rows that bar some never keep others from ending.
pub(super) async fn neighbours_do_not_meet<P: Keeper>(g: &Ground<P>) {
    let elsewhere = g.another();
    for number in 10..22 {
        let insert = "INSERT INTO heap VALUES ('x')";
        let open = g.pool.branch(xid(number), insert).await;
        open.expect("kept open");
    }
    let commit = (10..22).map(|number| async move {
        let ended = g.one_phase(&g.pool, number).await;
        assert_eq!(ended, Ok(Ended::Finished), "{number}");
    });
    // Second branches, of which there is no trace.
    let elsewhere = &elsewhere;
    let bar = (10..22).map(|number| async move {
        let key = BranchKey {
            branch: 2,
            ..key(number)
        };
        orders::roll_back(elsewhere, key, &[0; 8], UndoPolicy::Check)
            .await
            .expect("barred");
    });
    tokio::join!(join_all(commit), join_all(bar));
    assert_eq!(g.fences().await, [1, 3].repeat(12));
}

pub(super) async fn one_that_waits_for_too_long_is_prepared_by_itself<P: Keeper>(g: &Ground<P>) {
    g.open(1).await;
    let prepared = async {
        while g.pool.prepared().await == 0 {
            sleep(limits::XA_OPEN_LOOK).await;
        }
    };
    timeout(10 * limits::XA_KEPT_OPEN, prepared)
        .await
        .expect("it does not stay open");
    let ended = g.patiently(&g.another(), 1, End::CommitOnePhase).await;
    assert_eq!(ended, Ok(Ended::Finished));
    assert_eq!(g.left().await, 9);
    assert!(g.registrar.events().contains(&Event::Done(xid(1), 1)));
}

pub(super) async fn whoever_needs_its_connection_gets_it<P: Keeper>(g: &Ground<P>) {
    let pool = P::at(&g.url, 2, g.registrar.clone());
    pool.kept_open().allow(usize::MAX);
    pool.branch(xid(1), TAKE).await.expect("kept open");
    assert_eq!(pool.kept_open().len(), 1);
    let _busy = pool.occupy().await;
    let started = clock::now();
    pool.branch(xid(2), "SELECT 1").await.expect("gets one");
    assert!(
        clock::now() - started < limits::XA_KEPT_OPEN,
        "it is waited for"
    );
    assert_eq!(pool.kept_open().len(), 0);
}

pub(super) async fn a_shutdown_prepares_what_is_open<P: Keeper>(g: &Ground<P>) {
    g.open(1).await;
    end_all(&g.pool).await;
    assert_eq!(g.pool.prepared().await, 1);
    assert!(g.registrar.events().contains(&Event::Done(xid(1), 1)));
    g.pool
        .branch(xid(2), "UPDATE stock SET count = 0 WHERE product = 2")
        .await
        .expect("prepared at once");
    assert_eq!(g.pool.prepared().await, 2);
    for number in [1, 2] {
        g.roll_back(number).await.expect("rolled back");
    }
}

pub(super) async fn the_deadline_counts_for_the_vote_and_not_for_the_only_branch<P: Keeper>(
    g: &Ground<P>,
) {
    for _ in 0..2 {
        g.registrar.answer(Answer::GiveUp(Duration::ZERO));
    }
    g.open(1).await;
    refused(g.vote(&g.pool, 1).await);
    g.open(2).await;
    assert_eq!(g.one_phase(&g.pool, 2).await, Ok(Ended::Finished));
}

pub(super) async fn an_answer_that_is_lost_is_found_in_the_database<P: Keeper>(g: &Ground<P>) {
    let (url, trips) = proxy::start(&g.url).await;
    for (number, end, ended) in [
        (1, End::CommitOnePhase, Ended::Finished),
        (2, End::Prepare, Ended::Prepared),
    ] {
        let pool = P::at(&url, 4, g.registrar.clone());
        pool.kept_open().allow(usize::MAX);
        pool.branch(xid(number), TAKE).await.expect("kept open");
        trips.lose_answers(true);
        // The database does what it is told, and nobody hears of it.
        let unheard = g.end(&pool, number, end).await;
        assert!(
            matches!(unheard, Err(PhaseTwoError::Unavailable { .. })),
            "{unheard:?}"
        );
        trips.lose_answers(false);
        assert_eq!(g.patiently(&pool, number, end).await, Ok(ended));
    }
    assert_eq!(g.left().await, 9);
    assert_eq!(g.pool.prepared().await, 1);
    let ended = g.patiently(&g.another(), 2, End::CommitOnePhase).await;
    assert_eq!(ended, Ok(Ended::Finished));
    assert_eq!(g.left().await, 8);
}

pub(super) async fn a_foreign_row_is_nobodys_guess<P: Keeper>(g: &Ground<P>) {
    g.open(1).await;
    refused(g.one_phase(&g.another(), 1).await);
    end_all(&g.pool).await;
    g.pool.execute("UPDATE accede_fence SET status = 9").await;
    for end in [End::CommitOnePhase, End::Prepare] {
        assert!(stuck(g.end(&g.pool, 1, end).await).contains("status 9"));
    }
}

/// The stories of this file, as tests; `ground` makes what they run on.
macro_rules! open_stories {
    ($($story:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $story() {
                crate::store::test_xa_open::$story(&ground().await).await;
            }
        )*
    };
}
