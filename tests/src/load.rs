//! Business transactions over two branches, and the record of what their clients were told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use accede_proto::v1::{
    Action, BranchDone, Decision, GetOutcomeRequest, Mode, RegisterBranch, RequestId,
    branches_client::BranchesClient, transactions_client::TransactionsClient,
};
use accede_tm_client::{CommitError, Options, TransactionClient};
use rand::RngExt as _;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::agent::{AGENT, Done, RESOURCES};

/// What clients were told, by XID.
pub type Promises = Arc<Mutex<Vec<(u64, Decision)>>>;

/// Rows the load fights over: few enough that requests wait for each other.
const ROWS: u8 = 64;

/// Many clients at once; stops when dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    /// What they were told.
    pub promises: Promises,
}

impl Load {
    /// Starts `clients` of them against one coordinator.
    ///
    /// # Errors
    /// If the address is no URL.
    pub fn start(url: &str, clients: u64, promises: Promises) -> anyhow::Result<Self> {
        let transactions = TransactionClient::builder(url)
            .name("load")
            .begin_patience(Duration::from_secs(20))
            .decision_patience(Duration::from_secs(20))
            .build()?;
        let channel = Endpoint::from_shared(url.to_owned())?.connect_lazy();
        let stop = Arc::new(AtomicBool::new(false));
        let numbers = Arc::new(AtomicU64::new(rand::rng().random::<u32>().into()));
        // Its own: what a load before it left undecided holds its rows until its lease has ended.
        let shelf = rand::rng().random();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let mut client = Client {
                shelf,
                transactions: transactions.clone(),
                branches: BranchesClient::new(channel.clone()),
                numbers: Arc::clone(&numbers),
            };
            let (stop, promises) = (Arc::clone(&stop), Arc::clone(&promises));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(promise) = client.one_transaction().await {
                        promises.lock().expect("no holder panics").push(promise);
                    }
                }
            });
        }
        Ok(Self {
            stop,
            tasks,
            promises,
        })
    }

    /// Lets every client finish what it began.
    pub async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends every client where it stands.
    pub async fn abort(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Client {
    shelf: [u8; 4],
    transactions: TransactionClient,
    branches: BranchesClient<Channel>,
    numbers: Arc<AtomicU64>,
}

impl Client {
    /// What the client was told in the end; `None` if nothing certain.
    async fn one_transaction(&mut self) -> Option<(u64, Decision)> {
        let options = Options::new("crash").timeout(Duration::from_secs(20));
        let transaction = self.transactions.begin(options).await.ok()?;
        let xid = transaction.xid().as_u64();
        let (row, fails) = (
            rand::rng().random_range(0..ROWS),
            rand::rng().random_ratio(1, 5),
        );
        for (branch, resource) in (1..).zip(RESOURCES) {
            if !self.branch(xid, branch, resource, row).await {
                let rolled_back = transaction.roll_back("a branch was refused").await;
                return rolled_back.ok().map(|_| (xid, Decision::RollBack));
            }
        }
        if fails {
            let rolled_back = transaction.roll_back("the business says no").await;
            return rolled_back.ok().map(|_| (xid, Decision::RollBack));
        }
        match transaction.commit().await {
            Ok(_) => Some((xid, Decision::Commit)),
            Err(CommitError::RolledBack { .. }) => Some((xid, Decision::RollBack)),
            Err(_) => None,
        }
    }

    async fn branch(&mut self, xid: u64, branch: u32, resource: &str, row: u8) -> bool {
        let register = RegisterBranch {
            xid,
            request: Some(RequestId {
                client: AGENT,
                sequence: self.numbers.fetch_add(1, Ordering::Relaxed),
            }),
            resource: resource.to_owned(),
            mode: Mode::At.into(),
            row_locks: vec![[&self.shelf[..], &[row]].concat().into()],
            wait_limit_ms: 2_000,
            holds_local_locks: true,
            agent: AGENT,
            ..Default::default()
        };
        // The same request again is the same request: it may have arrived.
        for _ in 0..50 {
            match self.branches.register(register.clone()).await {
                Ok(registered) => {
                    assert_eq!(
                        registered.into_inner().branch,
                        branch,
                        "branches are numbered in order"
                    );
                    return self.done(xid, branch).await;
                }
                Err(status) if status.metadata().contains_key("accede-refusal") => return false,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        false
    }

    async fn done(&mut self, xid: u64, branch: u32) -> bool {
        for _ in 0..50 {
            match self.branches.done(BranchDone { xid, branch }).await {
                Ok(_) => return true,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        false
    }
}

/// Questions that are open at the same time.
const ASKERS: usize = 32;

/// Every promise that the coordinator does not keep.
///
/// # Errors
/// If it cannot be asked.
pub async fn broken_promises(
    url: &str,
    promises: &[(u64, Decision)],
) -> anyhow::Result<Vec<String>> {
    let client = TransactionsClient::connect(url.to_owned()).await?;
    let mut askers = JoinSet::new();
    for part in promises.chunks(promises.len().div_ceil(ASKERS).max(1)) {
        let (mut client, part) = (client.clone(), part.to_vec());
        askers.spawn(async move {
            let mut broken = Vec::new();
            for (xid, promised) in part {
                let outcome = client.get_outcome(GetOutcomeRequest { xid }).await;
                match outcome {
                    Ok(found) if found.get_ref().decision() == promised => {}
                    other => broken.push(format!(
                        "{xid:016x}: promised {promised:?}, found {other:?}"
                    )),
                }
            }
            broken
        });
    }
    Ok(askers.join_all().await.into_iter().flatten().collect())
}

/// Every branch that was finished against what its client was told.
///
/// # Panics
/// If another holder of the lock panicked.
#[must_use]
pub fn torn_branches(promises: &[(u64, Decision)], done: &Done) -> Vec<String> {
    let done = done.lock().expect("no holder panics");
    let promised: std::collections::HashMap<_, _> = promises.iter().copied().collect();
    let torn = done.iter().filter_map(|((xid, branch), action)| {
        let expected = match promised.get(xid)? {
            Decision::Commit => Action::Commit,
            _ => Action::RollBack,
        };
        let ok = *action == expected;
        (!ok).then(|| format!("branch {branch} of {xid:016x}: {action:?}, promised {expected:?}"))
    });
    torn.collect()
}
