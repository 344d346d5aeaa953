//! Very many transactions of one branch each, over one session of each kind, as fast as the
//! coordinator takes them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use accede_proto::v1::{
    Begin, BranchDone, BranchEvent, BranchFinished, BranchRequest, CommitRequest, Decision, Empty,
    Mode, OpenBranchSession, OpenTransactionSession, Order, RegisterBranch, RenewLease, RequestId,
    Resource, TransactionEvent, TransactionRequest, branch_event, branch_finished, branch_request,
    branches_client::BranchesClient, transaction_event, transaction_request,
    transactions_client::TransactionsClient,
};
use anyhow::{Context as _, bail};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::agent::{AGENT, RESOURCES};

/// Transactions that are on their way at the same time.
const WINDOW: u64 = 2_000;
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(4);
/// Longest silence of the coordinator.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first client's process number.
const CLIENT: u64 = 78;

/// Clients that were made.
static MADE: AtomicU64 = AtomicU64::new(0);

/// What becomes of the transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Registered: their branch holds its row lock and is not done.
    Open,
    /// Committed, and their branch finished.
    Finished,
}

/// Both sessions with a coordinator. It bounds by itself how much is under way.
#[derive(Debug)]
pub struct Bulk {
    transactions: UnboundedSender<TransactionRequest>,
    branches: UnboundedSender<BranchRequest>,
    transaction_events: Streaming<TransactionEvent>,
    branch_events: Streaming<BranchEvent>,
    worker: u64,
    floor_ms: u64,
    next: u64,
}

/// How far a run is.
#[derive(Debug, Default)]
struct Progress {
    begun: u64,
    registered: u64,
    committed: u64,
    finished: u64,
}

impl Bulk {
    /// Opens both sessions and leases a worker id.
    ///
    /// # Errors
    /// If the coordinator refuses.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let (transactions, requests) = unbounded_channel();
        let open = OpenTransactionSession {
            client_name: "bulk".into(),
            // A process of its own: another one's lease would have it make the same XIDs again.
            client: CLIENT + MADE.fetch_add(1, Ordering::Relaxed),
            ..Default::default()
        };
        transactions.send(transaction(1, transaction_request::Body::Open(open)))?;
        let mut client = TransactionsClient::connect(url.to_owned()).await?;
        let requests = UnboundedReceiverStream::new(requests);
        let mut transaction_events = client.session(requests).await?.into_inner();

        let (branches, requests) = unbounded_channel();
        let open = OpenBranchSession {
            agent_name: "bulk".into(),
            agent: AGENT,
            resources: vec![Resource {
                name: RESOURCES[0].to_owned(),
                database_id: vec![1; 16].into(),
            }],
            cluster_id: Default::default(),
        };
        branches.send(branch(0, branch_request::Body::Open(open)))?;
        let mut client = BranchesClient::connect(url.to_owned()).await?;
        let requests = UnboundedReceiverStream::new(requests);
        let branch_events = client.session(requests).await?.into_inner();

        let first = transaction_events.message().await?.context("an answer")?;
        let Some(transaction_event::Body::Lease(lease)) = first.body else {
            bail!("expected a lease, not {first:?}");
        };
        Ok(Self {
            transactions,
            branches,
            transaction_events,
            branch_events,
            worker: lease.worker.into(),
            floor_ms: lease.floor_ms,
            next: 0,
        })
    }

    /// Runs that many transactions.
    ///
    /// # Errors
    /// If one of them does not come to where it should.
    pub async fn run(&mut self, count: u64, until: Until) -> anyhow::Result<()> {
        let mut progress = Progress::default();
        let mut renew = tokio::time::interval(RENEW);
        loop {
            let done = match until {
                Until::Open => progress.registered,
                Until::Finished => progress.committed.min(progress.finished),
            };
            if done >= count {
                return Ok(());
            }
            while progress.begun < count && progress.begun - done < WINDOW {
                self.begin()?;
                progress.begun += 1;
            }
            tokio::select! {
                event = self.branch_events.message() => {
                    let event = event?.context("the branch session ended")?;
                    self.on_branch(event, until, &mut progress)?;
                }
                event = self.transaction_events.message() => {
                    let event = event?.context("the transaction session ended")?;
                    on_transaction(event, &mut progress)?;
                }
                _ = renew.tick() => {
                    let worker = self.worker as u32;
                    let body = transaction_request::Body::Renew(RenewLease { worker });
                    self.transactions.send(transaction(0, body))?;
                }
                () = tokio::time::sleep(PATIENCE) => bail!("nothing comes after {progress:?}"),
            }
        }
    }

    fn xid(&self, number: u64) -> u64 {
        (self.floor_ms + number / 512) << 22 | (number % 512) << 13 | self.worker
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.next += 1;
        let (xid, sequence) = (self.xid(self.next), self.next);
        let begin = Begin {
            xid,
            name: "bulk".into(),
            timeout_ms: 3_600_000,
            parent: 0,
        };
        let body = transaction_request::Body::Begin(begin);
        self.transactions.send(transaction(0, body))?;
        let register = RegisterBranch {
            xid,
            request: Some(RequestId {
                client: AGENT,
                sequence,
            }),
            resource: RESOURCES[0].to_owned(),
            mode: Mode::At.into(),
            row_locks: vec![format!("stock/{sequence:020}").into_bytes().into()],
            wait_limit_ms: 5_000,
            holds_local_locks: true,
            agent: AGENT,
            ..Default::default()
        };
        let body = branch_request::Body::Register(register);
        self.branches.send(branch(sequence, body))?;
        Ok(())
    }

    fn on_branch(
        &self,
        event: BranchEvent,
        until: Until,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        match event.body {
            Some(branch_event::Body::Registered(registered)) => {
                progress.registered += 1;
                if until == Until::Finished {
                    let xid = self.xid(event.tag);
                    let done = BranchDone {
                        xid,
                        branch: registered.branch,
                    };
                    self.branches
                        .send(branch(0, branch_request::Body::Done(done)))?;
                    let commit = transaction_request::Body::Commit(CommitRequest { xid });
                    self.transactions.send(transaction(event.tag, commit))?;
                }
            }
            Some(branch_event::Body::Order(order)) => {
                let finished = branch_request::Body::Finished(finished(order));
                self.branches.send(branch(0, finished))?;
                progress.finished += 1;
            }
            Some(branch_event::Body::Attached(_)) => {}
            other => bail!("unexpected: {other:?}"),
        }
        Ok(())
    }
}

fn on_transaction(event: TransactionEvent, progress: &mut Progress) -> anyhow::Result<()> {
    match event.body {
        Some(transaction_event::Body::Outcome(outcome))
            if outcome.decision() == Decision::Commit =>
        {
            progress.committed += 1;
        }
        Some(transaction_event::Body::Lease(_) | transaction_event::Body::BegunThrough(_)) => {}
        other => bail!("unexpected: {other:?}"),
    }
    Ok(())
}

fn finished(order: Order) -> BranchFinished {
    BranchFinished {
        xid: order.xid,
        branch: order.branch,
        attempt: order.attempt,
        epoch: order.epoch,
        resource: order.resource,
        result: Some(branch_finished::Result::Finished(Empty {})),
    }
}

fn transaction(tag: u64, body: transaction_request::Body) -> TransactionRequest {
    TransactionRequest {
        tag,
        body: Some(body),
    }
}

fn branch(tag: u64, body: branch_request::Body) -> BranchRequest {
    BranchRequest {
        tag,
        body: Some(body),
    }
}
