//! The service: a process that does branches when it is told to, over its standard input, and can
//! be killed.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use accede_rm_agent::{
    AtPool, FencedTransaction, RmAgent, TransactionContext,
    saga::{HandlerError, StepInput},
    saga_step, scope, tcc,
    tcc::Tcc,
    three_phase,
    three_phase::Participant,
};
use accede_tm_client::Xid;
use anyhow::{Context as _, bail};
use tokio::sync::oneshot;

/// The operator's name for the database.
pub(crate) const RESOURCE: &str = "shop-db";
/// The coordinator's URL and the database's; without them this process is none.
const ASKED: &str = "ACCEDE_TEST_SERVICE";
/// How a line of the service begins; whoever runs it writes lines of its own.
const DID: &str = "did ";

struct Accounts;

async fn run(tx: &mut FencedTransaction, sql: &'static str, id: i64) -> sqlx::Result<()> {
    sqlx::query(sql).bind(id).execute(&mut *tx).await.map(drop)
}

impl Accounts {
    #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
    async fn freeze(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), sqlx::Error> {
        let sql = "UPDATE accounts SET free = free - 1, frozen = frozen + 1 WHERE id = $1";
        run(tx, sql, id).await
    }

    async fn settle(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }

    async fn release(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE accounts SET free = free + 1, frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }
}

struct Seats;

impl Seats {
    #[three_phase(resource = "seat.promise", do_commit = sell, abort = give_back)]
    async fn promise(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), sqlx::Error> {
        let sql = "UPDATE seats SET free = free - 1, frozen = frozen + 1 WHERE id = $1";
        run(tx, sql, id).await
    }

    async fn sell(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE seats SET frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }

    async fn give_back(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        let sql = "UPDATE seats SET free = free + 1, frozen = frozen - 1 WHERE id = $1";
        Ok(run(tx, sql, id).await?)
    }
}

struct Parcels;

impl Parcels {
    #[saga_step(resource = "parcel.pack", compensate = unpack)]
    async fn pack(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        Ok(run(tx, "INSERT INTO parcels VALUES ($1)", step.input).await?)
    }

    async fn unpack(
        &self,
        tx: &mut FencedTransaction,
        step: StepInput<i64>,
    ) -> Result<(), HandlerError> {
        Ok(run(tx, "DELETE FROM parcels WHERE id = $1", step.input).await?)
    }
}

/// What the process has.
#[derive(Clone)]
struct Serving {
    pool: AtPool,
    freeze: Tcc<i64, sqlx::Error>,
    promise: Participant<i64, sqlx::Error>,
}

impl Serving {
    async fn start(coordinator: &str, database: &str) -> anyhow::Result<(RmAgent, Self)> {
        let freeze = Accounts::freeze_tcc(&Arc::new(Accounts));
        let promise = Seats::promise_three_phase(&Arc::new(Seats));
        let agent = RmAgent::builder("shop")
            .coordinator(coordinator)
            .postgres(RESOURCE, database)
            .tcc(RESOURCE, &freeze)
            .three_phase(RESOURCE, &promise)
            .saga_step(RESOURCE, &Parcels::pack_step(&Arc::new(Parcels)))
            .start()
            .await?;
        let pool = agent.pool(RESOURCE)?;
        let serving = Self {
            pool,
            freeze,
            promise,
        };
        Ok((agent, serving))
    }

    /// One branch in each mode but a saga, which the coordinator leads.
    async fn branches(&self, number: i64) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE stock SET free = free - 1 WHERE id = $1")
            .bind(number)
            .execute(&self.pool)
            .await?;
        let mut order = self.pool.xa().begin().await?;
        sqlx::query("INSERT INTO orders VALUES ($1)")
            .bind(number)
            .execute(&mut order)
            .await?;
        order.commit().await?;
        self.freeze.call(number).await?;
        self.promise.call(number).await
    }
}

/// Serves until the standard input ends, if this process was started for that.
#[expect(
    clippy::print_stdout,
    reason = "what was done goes to whoever started this process"
)]
pub(crate) fn run_if_asked() {
    let Ok(asked) = std::env::var(ASKED) else {
        return;
    };
    let (coordinator, database) = asked.split_once(' ').expect("two URLs");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let serving = runtime.block_on(Serving::start(coordinator, database));
    let (_agent, serving) = serving.expect("the service starts");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let mut words = line.split(' ');
        let mut word = || {
            words
                .next()
                .expect("an order's id, its transaction, its number")
        };
        let (id, xid) = (word().to_owned(), word().parse::<Xid>().expect("an XID"));
        let number: i64 = word().parse().expect("a number");
        let serving = serving.clone();
        runtime.spawn(async move {
            let context = TransactionContext::new(xid);
            let told = match scope(Some(context), serving.branches(number)).await {
                Ok(()) => "all".to_owned(),
                Err(error) => error.to_string().replace('\n', " "),
            };
            println!("{DID}{id} {told}");
        });
    }
}

type Waiting = Mutex<HashMap<u64, oneshot::Sender<String>>>;

/// The running process; killed when dropped.
pub(crate) struct Service {
    child: Mutex<Child>,
    orders: Mutex<ChildStdin>,
    waiting: Arc<Waiting>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    pub(crate) fn start(coordinator: &str, database: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "service_process", "--nocapture"])
            .env(ASKED, format!("{coordinator} {database}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().context("its input")?;
        let told = BufReader::new(child.stdout.take().context("its output")?);
        let waiting = Arc::new(Waiting::default());
        let heard = Arc::clone(&waiting);
        thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                // The first line of all shares it with what the test harness says.
                let did = line.split_once(DID).map(|(_, did)| did);
                if let Some((id, told)) = did.and_then(|did| did.split_once(' '))
                    && let Some(waits) = id.parse().ok().and_then(|id| locked(&heard).remove(&id))
                {
                    // Whoever asked may be gone.
                    let _ = waits.send(told.to_owned());
                }
            }
            // It is dead: nobody waits for it any longer.
            locked(&heard).clear();
        });
        Ok(Self {
            child: Mutex::new(child),
            orders: Mutex::new(orders),
            waiting,
        })
    }

    /// Has it do an order's branches.
    pub(crate) async fn branches(&self, xid: Xid, number: i64) -> anyhow::Result<()> {
        let (sender, told) = oneshot::channel();
        let id = number.unsigned_abs();
        locked(&self.waiting).insert(id, sender);
        if let Err(error) = writeln!(locked(&self.orders), "{id} {xid} {number}") {
            locked(&self.waiting).remove(&id);
            return Err(error.into());
        }
        let told = told.await.context("the service was killed")?;
        if told != "all" {
            bail!("the service says {told:?}");
        }
        Ok(())
    }

    /// SIGKILL, whatever it is doing.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let mut child = locked(&self.child);
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}
