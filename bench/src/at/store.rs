//! What is run on a database, in its own SQL.

mod mariadb;
mod postgres;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use accede_proto::Xid;
use accede_rm_agent::{Registrar, Registration, RmAgent};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::{
    local::LocalRegistrar,
    server::{Kind, ROWS},
};
use crate::coordinator::Coordinator;

/// The name of the database at the coordinator.
pub(super) const RESOURCE: &str = "bench-db";
/// A step through all rows that meets none twice.
const STRIDE: i64 = 7_919;
const _: () = assert!(ROWS == 10_000 && STRIDE % 2 != 0 && STRIDE % 5 != 0);
/// How long the way by hand waits for a row lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Rows of a batch.
pub(super) const BATCH: i64 = 1_000;

/// A kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Changes one row, any of them.
    Random,
    /// Adds [`BATCH`] rows.
    Insert1000,
    /// Changes [`BATCH`] rows.
    Update1000,
}

/// One statement.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Change(i64),
    /// The ids of the new rows.
    AddBatch(Range<i64>),
    ChangeBatch(Range<i64>),
}

impl Work {
    /// As the workload is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Insert1000 => "insert_1000",
            Self::Update1000 => "update_1000",
        }
    }

    /// A statement of this kind.
    pub(super) fn job(self) -> Job {
        static NEXT: AtomicI64 = AtomicI64::new(1);
        match self {
            Self::Random => Job::Change(rand::random_range(1..=ROWS)),
            Self::Insert1000 => {
                let first = NEXT.fetch_add(BATCH, Relaxed);
                Job::AddBatch(first..first + BATCH)
            }
            Self::Update1000 => {
                let first = rand::random_range(0..ROWS / BATCH) * BATCH + 1;
                Job::ChangeBatch(first..first + BATCH)
            }
        }
    }
}

impl Job {
    /// Changes one row. Each has its turn before any comes again, in a scattered order.
    pub(super) fn change_another() -> Self {
        static NEXT: AtomicI64 = AtomicI64::new(0);
        Self::Change(NEXT.fetch_add(STRIDE, Relaxed) % ROWS + 1)
    }
}

/// Pools of connections to one database: sqlx's own and an AT pool.
pub(super) trait Store: Send + Sync {
    /// Runs it in a plain local transaction.
    fn plain(&self, job: Job) -> BoxFuture<'_, sqlx::Result<()>>;

    /// Runs it as a branch of the global transaction that the task works for.
    fn branch(&self, job: Job) -> BoxFuture<'_, sqlx::Result<()>>;

    /// Runs it as a branch of this transaction.
    fn branch_in(&self, xid: Xid, job: Job) -> BoxFuture<'_, sqlx::Result<()>>;

    /// Changes one row, step by step: locks and reads it, changes it, reads it again, registers
    /// the branch, writes an undo record, commits.
    fn by_hand<'a>(
        &'a self,
        registrar: &'a dyn Registrar,
        xid: Xid,
        product: i64,
    ) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Clears away what finished branches have left.
    fn tidy(&self) -> BoxFuture<'_, sqlx::Result<()>>;

    /// Whether some branch is not finished.
    fn is_undo_left(&self) -> BoxFuture<'_, sqlx::Result<bool>>;

    /// Waits until the AT pool's only connection is given back: the pool tests it first.
    fn settled(&self) -> BoxFuture<'_, ()>;

    /// Closes the connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A store whose branches register with the coordinator.
///
/// # Errors
/// When the agent does not start.
pub(super) async fn with_agent(
    kind: Kind,
    url: &str,
    connections: u32,
    coordinator: &Coordinator,
) -> anyhow::Result<(RmAgent, Arc<dyn Store>)> {
    let agent = RmAgent::builder("bench").coordinator(&coordinator.address);
    match kind {
        Kind::Postgres => postgres::with_agent(agent, url, connections).await,
        Kind::MariaDb => mariadb::with_agent(agent, url, connections).await,
    }
}

/// A store whose branches are registered in this process, and the task that finishes them over
/// connections of its own; it ends with the store.
///
/// # Errors
/// When a URL cannot be used.
pub(super) fn local(
    kind: Kind,
    url: &str,
    connections: u32,
    phase_two: &str,
) -> anyhow::Result<(Arc<dyn Store>, JoinHandle<()>)> {
    let (registrar, task) = match kind {
        Kind::Postgres => LocalRegistrar::start(postgres::finisher(phase_two)?),
        Kind::MariaDb => LocalRegistrar::start(mariadb::finisher(phase_two)?),
    };
    let store: Arc<dyn Store> = match kind {
        Kind::Postgres => Arc::new(postgres::local(registrar, url, connections)?),
        Kind::MariaDb => Arc::new(mariadb::local(registrar, url, connections)?),
    };
    Ok((store, task))
}

/// What a branch that changes one row by hand registers.
fn registration(xid: Xid, product: i64) -> Registration {
    Registration {
        xid,
        resource: RESOURCE.into(),
        row_locks: vec![format!("stock:{product}").into_bytes().into()],
        mode: accede_proto::v1::Mode::At,
        escrow_locks: Vec::new(),
        payload: Default::default(),
        wait_limit: LOCK_WAIT,
        can_keep_open: false,
    }
}

/// A row as a hand-made undo record holds it.
fn image(fields: [(&str, &str, serde_json::Value); 5]) -> serde_json::Value {
    let fields = fields.map(|(name, kind, value)| {
        serde_json::json!({"name": name, "keyType": "NULL", "type": kind, "value": value})
    });
    serde_json::json!({"rows": [{"fields": fields}], "tableName": "stock"})
}
