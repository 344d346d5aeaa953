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
use sqlx::mysql::MySqlPoolOptions;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::{
    AtPool, BranchKey, Fixture, PhaseTwoError, TestRegistrar, UndoPolicy, phase_two,
    registrar::Event, xid,
};
use crate::{Error, Refused, Registered, Registrar, Registration, RowCheck};

const ACCOUNTS: i64 = 60;
const WRITERS: u64 = 4;

const SETUP: &str = "
CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL, code INT NOT NULL UNIQUE,
  moves INT NOT NULL DEFAULT 0);
INSERT INTO accounts (id, balance, code) SELECT seq, 1000, seq FROM seq_1_to_60;
CREATE TABLE fees (id INT PRIMARY KEY, fee INT NOT NULL); INSERT INTO fees VALUES (1, 0);
CREATE TABLE notes (id BIGINT AUTO_INCREMENT PRIMARY KEY, account INT NOT NULL, amount BIGINT NOT NULL);";

/// How money comes to an account: first the amount, then the account.
const MOVES: &[&str] = &[
    "UPDATE accounts SET balance = balance + ?, moves = moves + 1 WHERE id = ?",
    "INSERT INTO accounts (moves, id, balance, code) SELECT 0, u.a, u.b, u.a \
     FROM (SELECT ? AS b, ? AS a) u \
     ON DUPLICATE KEY UPDATE balance = accounts.balance + VALUES(balance)",
    "UPDATE accounts JOIN fees ON fees.id = 1 SET accounts.balance = accounts.balance + ? + fees.fee \
     WHERE accounts.id = ?",
    "UPDATE accounts SET balance = balance + ?, id = id, code = code + 0 WHERE code = ?",
    "INSERT INTO notes (amount, account) VALUES (?, ?)",
];

/// This one of them leaves a note in place of money.
const NOTE: usize = 4;

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
        let kind = (random.random_range(0..8) == 0).then_some(NOTE);
        let mut whole = true;
        for (account, amount) in [(from, -amount), (to, amount)] {
            // Both notes, or none.
            let sql = MOVES[kind.unwrap_or_else(|| random.random_range(0..NOTE))];
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
    pool: AtPool,
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
            phase_two::delete_undo(self.pool.phase_two(), &keys)
                .await
                .expect("deleted");
        } else {
            for key in keys {
                let was_done = done.contains(&key.branch);
                loop {
                    match phase_two::roll_back(&self.pool, key, was_done, UndoPolicy::Check).await {
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
    level: &'static str,
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
        let options = MySqlPoolOptions::new()
            .max_connections(WRITERS as u32)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    use sqlx::Executor as _;
                    let set = format!("SET SESSION tx_isolation = '{level}'");
                    let set = sqlx::raw_sql(sqlx::AssertSqlSafe(set));
                    connection.execute(set).await.map(drop)
                })
            });
        let pool = AtPool::builder(&url)
            .resource("test-db")
            .pool_options(options)
            .lock_wait(Duration::from_millis(1500))
            .build(registrar)
            .expect("a pool");
        for writer in 0..WRITERS {
            let seed = number * 100 + writer;
            tokio::spawn(write(pool.clone(), number, seed, tell.clone()));
        }
    });
    (runtime, dead)
}

async fn agents_die_at(level: &'static str) {
    // Shared by the three levels.
    let deaths: u64 = std::env::var("ACCEDE_TEST_KILLS")
        .map_or(6, |text| text.parse::<u64>().expect("a number").div_ceil(3));
    let f = Fixture::new(SETUP).await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let mut coordinator = Coordinator {
        pool: f.pool.clone(),
        registrar: f.registrar.clone(),
        open: BTreeMap::new(),
        committed: BTreeMap::new(),
        counts: [0; 3],
    };
    let mut random = StdRng::seed_from_u64(7);
    let mut agents: Vec<_> = (0..2)
        .map(|number| (number, start_agent(&f, level, number, &tell)))
        .collect();
    for number in 2..deaths + 2 {
        // Lives for so many messages of all agents.
        for _ in 0..random.random_range(50..200) {
            let told = heard.recv().await.expect("some agent lives");
            coordinator.hear(told).await;
        }
        let (victim, (runtime, dead)) = agents.remove(0);
        dead.store(true, Ordering::SeqCst);
        runtime.shutdown_background();
        let _ = tell.send(Told::Died(victim));
        if number < deaths {
            agents.push((number, start_agent(&f, level, number, &tell)));
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
        "{level}: {committed} committed, {rolled_back} rolled back, {cut_off} cut off by {deaths} deaths"
    );
    assert!(committed > 20 && rolled_back > 5 && cut_off > 0);
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT id, CAST(balance + COALESCE((SELECT SUM(amount) FROM notes n WHERE n.account = accounts.id), 0) AS SIGNED)
         FROM accounts ORDER BY id",
    )
    .fetch_all(f.pool.plain())
    .await
    .expect("readable");
    assert_eq!(rows.len() as i64, ACCOUNTS);
    let added = coordinator.committed;
    for (id, balance) in rows {
        let expected = 1000 + added.get(&i64::from(id)).copied().unwrap_or_default();
        assert_eq!(balance, expected, "{level}: account {id}");
    }
    assert_eq!(f.registrar.held_locks(), 0);
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM undo_log WHERE log_status = 0")
        .fetch_one(f.pool.plain())
        .await
        .expect("readable");
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_may_die_at_any_moment_at_read_committed() {
    agents_die_at("READ-COMMITTED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_may_die_at_any_moment_at_repeatable_read() {
    agents_die_at("REPEATABLE-READ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_may_die_at_any_moment_at_serializable() {
    agents_die_at("SERIALIZABLE").await;
}
