//! The service: one TCC action in PostgreSQL, that dies at a chosen point of a chosen order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use accede_rm_agent::{
    AgentLimits, FencedTransaction, RmAgent, TransactionContext, scope, tcc, tcc::HandlerError,
};
use accede_tests::{
    eventually,
    service::{self, die},
};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// The operator's name for the database.
const RESOURCE: &str = "shop-db";
/// How long what was begun takes at most to be committed.
const SOON: Duration = Duration::from_secs(60);

/// Where the service dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The try has done its work and is not committed.
    InTry,
    /// The try is committed, and the coordinator does not hear of it.
    AfterTry,
    /// The order to confirm has come.
    BeforeConfirm,
    /// The confirm has done its work and is not committed.
    InConfirm,
    /// The confirm is committed, and the coordinator does not hear of it.
    AfterConfirm,
    BeforeCancel,
    InCancel,
    AfterCancel,
}

impl Point {
    pub(crate) const ALL: [Self; 8] = [
        Self::InTry,
        Self::AfterTry,
        Self::BeforeConfirm,
        Self::InConfirm,
        Self::AfterConfirm,
        Self::BeforeCancel,
        Self::InCancel,
        Self::AfterCancel,
    ];
}

/// How the service lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    /// Until it is killed.
    Steady,
    /// The same, and what is finished is swept away at once.
    Sweeping,
    /// Until this point of the order of this number.
    Until(Point, i64),
}

impl Life {
    /// As a word of the service's start.
    pub(crate) fn word(self) -> String {
        match self {
            Self::Steady => "steady".to_owned(),
            Self::Sweeping => "sweeping".to_owned(),
            Self::Until(point, number) => format!("{point:?}:{number}"),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "steady" => return Some(Self::Steady),
            "sweeping" => return Some(Self::Sweeping),
            _ => {}
        }
        let (name, number) = word.split_once(':')?;
        let mut points = Point::ALL.into_iter();
        let point = points.find(|point| format!("{point:?}") == name)?;
        Some(Self::Until(point, number.parse().ok()?))
    }

    fn limits(self) -> AgentLimits {
        let limits = AgentLimits::default();
        match self {
            Self::Steady | Self::Until(..) => limits,
            Self::Sweeping => AgentLimits {
                sweep_interval: Duration::from_millis(100),
                leftover_age: Duration::from_millis(1),
                marker_age: Duration::from_millis(1),
                ..limits
            },
        }
    }
}

/// What the service says to its coordinator goes through here, until it is shut: what comes after
/// that is never heard.
#[derive(Default)]
struct Gate {
    is_shut: AtomicBool,
}

impl Gate {
    /// The URL at which the coordinator is reached through the gate.
    async fn before(self: &Arc<Self>, coordinator: &str) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let address = coordinator.trim_start_matches("http://").to_owned();
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // It is down: the client notices, and comes again.
                let Ok(server) = TcpStream::connect(&address).await else {
                    continue;
                };
                let (says, hears) = client.into_split();
                let (answers, asked) = server.into_split();
                tokio::spawn(pass(says, asked, Some(Arc::clone(&gate))));
                tokio::spawn(pass(answers, hears, None));
            }
        });
        Ok(url)
    }

    fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: Option<Arc<Gate>>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let shut = gate
            .as_ref()
            .is_some_and(|gate| gate.is_shut.load(Ordering::SeqCst));
        if shut {
            return std::future::pending().await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

struct Accounts {
    life: Life,
    gate: Arc<Gate>,
    /// Sees what is committed.
    pool: PgPool,
}

async fn run(tx: &mut FencedTransaction, sql: &'static str, id: i64) -> sqlx::Result<()> {
    sqlx::query(sql).bind(id).execute(&mut *tx).await.map(drop)
}

impl Accounts {
    #[tcc(resource = "account.freeze", confirm = settle, cancel = release)]
    async fn freeze(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), sqlx::Error> {
        let sql = "UPDATE accounts SET free = free - 1, frozen = frozen + 1 WHERE id = $1";
        run(tx, sql, id).await?;
        self.die_at(Point::InTry, id);
        self.die_after(Point::AfterTry, id, 1);
        Ok(())
    }

    async fn settle(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        self.die_at(Point::BeforeConfirm, id);
        run(tx, HELD_UP, id).await?;
        let sql = "UPDATE accounts SET frozen = frozen - 1, spent = spent + 1 WHERE id = $1";
        run(tx, sql, id).await?;
        self.die_at(Point::InConfirm, id);
        self.die_after(Point::AfterConfirm, id, 0);
        Ok(())
    }

    async fn release(&self, tx: &mut FencedTransaction, id: i64) -> Result<(), HandlerError> {
        self.die_at(Point::BeforeCancel, id);
        run(tx, HELD_UP, id).await?;
        let sql = "UPDATE accounts SET free = free + 1, frozen = frozen - 1 WHERE id = $1";
        run(tx, sql, id).await?;
        self.die_at(Point::InCancel, id);
        self.die_after(Point::AfterCancel, id, 0);
        Ok(())
    }

    fn is_at(&self, point: Point, id: i64) -> bool {
        matches!(self.life, Life::Until(last, number) if (last, number) == (point, id))
    }

    fn die_at(&self, point: Point, id: i64) {
        if self.is_at(point, id) {
            die();
        }
    }

    /// Dies when it can be seen that so many are frozen. The coordinator hears nothing from now on.
    fn die_after(&self, point: Point, id: i64, frozen: i64) {
        if !self.is_at(point, id) {
            return;
        }
        self.gate.shut();
        let pool = self.pool.clone();
        tokio::spawn(async move {
            let committed = eventually("it is committed", SOON, async || {
                let select = sqlx::query_scalar("SELECT frozen FROM accounts WHERE id = $1");
                let seen: i64 = select.bind(id).fetch_one(&pool).await.ok()?;
                (seen == frozen).then_some(())
            });
            committed.await.expect("a handler that returned commits");
            die();
        });
    }
}

/// Waits while whoever runs the service holds this number.
const HELD_UP: &str = "SELECT pg_advisory_xact_lock_shared($1)";

/// Serves until the standard input ends, if this process was started for that.
pub(crate) fn run_if_asked() {
    let Some(words) = service::asked() else {
        return;
    };
    let [coordinator, database, life] = &words[..] else {
        panic!("two URLs and a life, not {words:?}");
    };
    let life = Life::of_word(life).expect("a life");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let serving = runtime.block_on(async {
        let gate = Arc::new(Gate::default());
        let url = gate.before(coordinator).await?;
        let pool = PgPool::connect(database).await?;
        let freeze = Accounts::freeze_tcc(&Arc::new(Accounts { life, gate, pool }));
        let agent = RmAgent::builder("shop")
            .coordinator(url)
            .postgres(RESOURCE, database)
            .tcc(RESOURCE, &freeze)
            .limits(life.limits())
            .start()
            .await?;
        anyhow::Ok((agent, freeze))
    });
    let (_agent, freeze) = serving.expect("the service starts");
    service::serve(&runtime, |xid, number| {
        let freeze = freeze.clone();
        async move {
            let context = TransactionContext::new(xid);
            let tried = scope(Some(context), freeze.call(number)).await;
            tried.map_err(|error| error.to_string())
        }
    });
}
