//! Many writers in agents that die at any moment.
//!
//! An agent is a runtime of its own with its own pool; when it dies, its tasks and
//! connections go and nothing it says reaches the coordinator any more. The test
//! plays the coordinator: what was decided is finished, what was not is rolled back.
//! In the end each account holds exactly what was committed, and nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use accede_proto::Xid;
use futures_util::future::BoxFuture;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::PgPool;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::{
    BranchKey, Fixture, PhaseTwoError, TestRegistrar, phase_two, registrar::Event,
    roll_back_as_agents_do, xid,
};
use crate::{AtPool, Error, Refused, Registered, Registrar, Registration, RowCheck};

const ACCOUNTS: i64 = 60;
const WRITERS: u64 = 4;

const SETUP: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, moves int NOT NULL DEFAULT 0);
INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 60) i;
CREATE TABLE fees (id int PRIMARY KEY, fee int); INSERT INTO fees VALUES (1, 0);";

/// How money comes to an account: `$1` the amount, `$2` the account.
const MOVES: &[&str] = &[
    "UPDATE accounts SET balance = balance + $1, moves = moves + 1 WHERE id = $2",
    "INSERT INTO accounts AS a VALUES ($2, 0) \
     ON CONFLICT (id) DO UPDATE SET balance = a.balance + $1, moves = a.moves + 1",
    "UPDATE accounts SET balance = balance + $1 + fees.fee FROM fees WHERE accounts.id = $2",
    "WITH gone AS (SELECT $1::bigint AS amount) \
     UPDATE accounts SET balance = balance + (SELECT amount FROM gone) WHERE id = $2",
];

/// What an agent's writers tell the coordinator.
enum Told {
    Begun(Xid, u64),
    /// What it adds to which account if it commits; the writer waits for the end.
    Decided(Xid, Option<Vec<(i64, i64)>>, oneshot::Sender<()>),
    Died(u64),
}

/// A registrar that a dead agent cannot reach.
struct Mortal {
    inner: Arc<TestRegistrar>,
    dead: Arc<AtomicBool>,
}

impl Mortal {
    fn alive(&self) -> bool {
        !self.dead.load(Ordering::SeqCst)
    }
}

impl Registrar for Mortal {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        if self.alive() {
            self.inner.register(registration)
        } else {
            Box::pin(std::future::pending())
        }
    }

    fn check_locks(&self, check: RowCheck) -> BoxFuture<'_, Result<(), Refused>> {
        self.inner.check_locks(check)
    }

    fn done(&self, xid: Xid, branch: u32) {
        if self.alive() {
            self.inner.done(xid, branch);
        }
    }

    fn withdrawn(&self, xid: Xid, branch: u32) {
        if self.alive() {
            self.inner.withdrawn(xid, branch);
        }
    }

    fn blocked(&self, xid: Xid) {
        if self.alive() {
            self.inner.blocked(xid);
        }
    }

    fn doomed(&self, xid: Xid, branch: u32, detail: String) {
        if self.alive() {
            self.inner.doomed(xid, branch, detail);
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

async fn write(pool: AtPool, agent: u64, seed: u64, tell: mpsc::UnboundedSender<Told>) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let xid = xid(NEXT.fetch_add(1, Ordering::SeqCst));
        let _ = tell.send(Told::Begun(xid, agent));
        let amount = random.random_range(1..50_i64);
        let from = random.random_range(1..=ACCOUNTS);
        let to = random.random_range(1..=ACCOUNTS);
        let mut whole = true;
        for (account, amount) in [(from, -amount), (to, amount)] {
            let sql = MOVES[random.random_range(0..MOVES.len())];
            match run(&pool, xid, sql, amount, account).await {
                Ok(()) => {}
                Err(error) => {
                    let expected = crate::is_retryable(&error)
                        || Error::from_sqlx(&error).is_some()
                        || error.as_database_error().is_none();
                    assert!(expected, "{sql}: {error}");
                    whole = false;
                    break;
                }
            }
        }
        let commits = whole && random.random_range(0..3) > 0;
        let adds = commits.then(|| vec![(from, -amount), (to, amount)]);
        let (ended, end) = oneshot::channel();
        let _ = tell.send(Told::Decided(xid, adds, ended));
        let _ = end.await;
    }
}

async fn run(
    pool: &AtPool,
    xid: Xid,
    sql: &'static str,
    amount: i64,
    id: i64,
) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin_in(xid).await?;
    sqlx::query(sql)
        .bind(amount)
        .bind(id as i32)
        .execute(&mut tx)
        .await?;
    tx.commit().await
}

/// Plays the coordinator and counts what was committed.
struct Coordinator {
    phase_two: PgPool,
    registrar: Arc<TestRegistrar>,
    open: BTreeMap<u64, BTreeSet<Xid>>,
    committed: BTreeMap<i64, i64>,
    counts: [u64; 3],
}

impl Coordinator {
    async fn hear(&mut self, told: Told) {
        match told {
            Told::Begun(xid, agent) => {
                self.open.entry(agent).or_default().insert(xid);
            }
            Told::Decided(xid, adds, ended) => {
                // The last word of a dead agent comes too late.
                if !self.open.values_mut().any(|open| open.remove(&xid)) {
                    return;
                }
                let commit = adds.is_some();
                for (account, amount) in adds.into_iter().flatten() {
                    *self.committed.entry(account).or_default() += amount;
                }
                self.counts[usize::from(commit)] += 1;
                self.finish(xid, commit).await;
                let _ = ended.send(());
            }
            Told::Died(agent) => {
                for xid in self.open.remove(&agent).unwrap_or_default() {
                    self.counts[2] += 1;
                    self.finish(xid, false).await;
                }
            }
        }
    }

    async fn finish(&self, xid: Xid, commit: bool) {
        self.registrar.decide(xid);
        let done = self.registrar.done_branches(xid);
        let mut branches: Vec<u32> = self
            .registrar
            .events()
            .iter()
            .filter_map(|event| match event {
                Event::Registered(of, branch, _) if *of == xid => Some(*branch),
                _ => None,
            })
            .collect();
        branches.sort_unstable_by(|a, b| b.cmp(a));
        let withdrawn = |branch: u32| {
            let events = self.registrar.events();
            events.contains(&Event::Withdrawn(xid, branch))
        };
        branches.retain(|&branch| !withdrawn(branch));
        let keys: Vec<BranchKey> = branches
            .iter()
            .map(|&branch| BranchKey { xid, branch })
            .collect();
        if commit {
            phase_two::delete_undo(&self.phase_two, &keys)
                .await
                .expect("deleted");
        } else {
            for key in keys {
                let was_done = done.contains(&key.branch);
                loop {
                    match roll_back_as_agents_do(&self.phase_two, key, was_done).await {
                        Ok(()) => break,
                        // A connection of a dead agent still holds local locks.
                        Err(PhaseTwoError::Failed { .. } | PhaseTwoError::Unavailable { .. }) => {}
                        Err(error) => panic!("{key:?}: {error:?}"),
                    }
                }
            }
        }
        self.registrar.end(xid);
    }
}

fn start_agent(
    f: &Fixture,
    number: u64,
    tell: &mpsc::UnboundedSender<Told>,
) -> (Runtime, Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let dead = Arc::new(AtomicBool::new(false));
    let registrar = Arc::new(Mortal {
        inner: f.registrar.clone(),
        dead: dead.clone(),
    });
    let (url, tell) = (f.url.clone(), tell.clone());
    runtime.spawn(async move {
        let pool = AtPool::builder(&url)
            .resource("test-db")
            .max_connections(WRITERS as u32)
            .lock_wait(Duration::from_millis(500))
            .build(registrar)
            .expect("a pool");
        for writer in 0..WRITERS {
            let seed = number * 100 + writer;
            tokio::spawn(write(pool.clone(), number, seed, tell.clone()));
        }
    });
    (runtime, dead)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_may_die_at_any_moment() {
    let deaths: u64 =
        std::env::var("ACCEDE_TEST_KILLS").map_or(10, |text| text.parse().expect("a number"));
    let f = Fixture::new(SETUP).await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let mut coordinator = Coordinator {
        phase_two: f.pool.phase_two().clone(),
        registrar: f.registrar.clone(),
        open: BTreeMap::new(),
        committed: BTreeMap::new(),
        counts: [0; 3],
    };
    let mut random = StdRng::seed_from_u64(7);
    let mut agents: Vec<_> = (0..2)
        .map(|number| (number, start_agent(&f, number, &tell)))
        .collect();
    for number in 2..deaths + 2 {
        // Lives for so many messages of all agents.
        for _ in 0..random.random_range(50..300) {
            let told = heard.recv().await.expect("some agent lives");
            coordinator.hear(told).await;
        }
        let (victim, (runtime, dead)) = agents.remove(0);
        dead.store(true, Ordering::SeqCst);
        runtime.shutdown_background();
        let _ = tell.send(Told::Died(victim));
        if number < deaths {
            agents.push((number, start_agent(&f, number, &tell)));
        } else if agents.is_empty() {
            break;
        }
    }
    for (number, (runtime, dead)) in agents {
        dead.store(true, Ordering::SeqCst);
        runtime.shutdown_background();
        let _ = tell.send(Told::Died(number));
    }
    drop(tell);
    while let Some(told) = heard.recv().await {
        coordinator.hear(told).await;
    }
    // What a dying writer began in its last moment.
    let agents: Vec<u64> = coordinator.open.keys().copied().collect();
    for agent in agents {
        coordinator.hear(Told::Died(agent)).await;
    }
    let [rolled_back, committed, cut_off] = coordinator.counts;
    println!(
        "{committed} committed, {rolled_back} rolled back, {cut_off} cut off by {deaths} deaths"
    );
    assert!(committed > 20 && rolled_back > 5 && cut_off > 0);
    let rows: Vec<(i32, i64)> = sqlx::query_as("SELECT id, balance FROM accounts ORDER BY id")
        .fetch_all(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(rows.len() as i64, ACCOUNTS);
    let added = coordinator.committed;
    for (id, balance) in rows {
        let expected = 1000 + added.get(&i64::from(id)).copied().unwrap_or_default();
        assert_eq!(balance, expected, "account {id}");
    }
    assert_eq!(f.registrar.held_locks(), 0);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM undo_log WHERE log_status = 0")
        .fetch_one(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(left, 0);
}
