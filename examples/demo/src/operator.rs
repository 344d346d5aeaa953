//! Asks the coordinator where transactions stand, as an operator would.

use std::time::Duration;

use accede_proto::v1::{
    BranchDetail, CoordinatorStatus, Decision, GetStatusRequest, GetTransactionRequest,
    ListTransactionsRequest, Status as Stand, TransactionDetail, operator_client::OperatorClient,
};
use anyhow::{Context as _, Result, bail, ensure};
use tonic::transport::{Channel, Endpoint};

use crate::wait::{InVain, until};

/// How long a transaction may take to get where it must: longer than its
/// time-out and the coordinator's grace period after a restart.
const STAND_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Whether it is a step of a service that the coordinator calls by its URL.
fn is_callback(branch: &BranchDetail) -> bool {
    branch.resource.contains("://")
}

/// The coordinator's operator interface.
#[derive(Clone)]
pub(crate) struct Operator {
    client: OperatorClient<Channel>,
}

impl Operator {
    pub(crate) fn new(url: String) -> Result<Self> {
        let endpoint = Endpoint::from_shared(url)?.timeout(ANSWER_LIMIT);
        Ok(Self {
            client: OperatorClient::new(endpoint.connect_lazy()),
        })
    }

    pub(crate) async fn status(&self) -> Result<CoordinatorStatus> {
        let answer = self.client.clone().get_status(GetStatusRequest {}).await;
        Ok(answer.context("the coordinator's status")?.into_inner())
    }

    pub(crate) async fn transaction(&self, xid: &str) -> Result<TransactionDetail> {
        let request = GetTransactionRequest {
            xid: u64::from_str_radix(xid, 16)?,
        };
        let answer = self.client.clone().get_transaction(request).await;
        let detail = answer
            .with_context(|| format!("transaction {xid}"))?
            .into_inner();
        ensure!(detail.summary.is_some(), "an answer without a summary");
        Ok(detail)
    }

    /// Fails while a transaction is not ended, a lock is held or a request waits.
    pub(crate) async fn nothing_open(&self) -> Result<()> {
        let statuses = [
            Stand::Active,
            Stand::PreCommitted,
            Stand::Committing,
            Stand::RollingBack,
            Stand::Stuck,
        ];
        let request = ListTransactionsRequest {
            statuses: statuses.map(i32::from).to_vec(),
            ..ListTransactionsRequest::default()
        };
        let answer = self.client.clone().list_transactions(request).await?;
        if let Some(open) = answer.into_inner().transactions.first() {
            bail!(
                "transaction {:016x} is still {}",
                open.xid,
                open.status().as_str_name()
            );
        }
        let status = self.status().await?;
        ensure!(
            status.row_locks == 0,
            "{} row locks are held",
            status.row_locks
        );
        ensure!(
            status.waiting_requests == 0,
            "{} requests wait for row locks",
            status.waiting_requests
        );
        Ok(())
    }

    /// Waits until so many branches of the transaction are known to be done, no matter which steps
    /// of a saga only tell an observer.
    pub(crate) async fn until_done(&self, xid: &str, branches: u32) -> Result<()> {
        until(
            format_args!("{branches} branches of {xid} are done"),
            STAND_LIMIT,
            async || {
                let detail = self.transaction(xid).await?;
                let done = detail
                    .branches
                    .iter()
                    .filter(|branch| branch.status == "done" && !is_callback(branch));
                let done = done.count();
                ensure!(done == branches as usize, "{done} are");
                Ok(())
            },
        )
        .await
    }

    /// Waits until the coordinator has ordered this step of a saga from a service.
    pub(crate) async fn until_runs(&self, xid: &str, step: &str) -> Result<()> {
        until(
            format_args!("step {step} of {xid} is under way"),
            STAND_LIMIT,
            async || {
                let detail = self.transaction(xid).await?;
                let branch = detail.branches.iter().find(|branch| branch.step == step);
                let is_ordered = branch.is_some_and(|branch| branch.attempt > 0);
                ensure!(is_ordered, "it is not");
                Ok(())
            },
        )
        .await
    }

    /// Waits until the transaction stands there; the other decision is final.
    pub(crate) async fn until_stands(&self, xid: &str, wanted: Stand) -> Result<TransactionDetail> {
        let excluded = match wanted {
            Stand::Committing | Stand::Committed => Decision::RollBack,
            _ => Decision::Commit,
        };
        until(
            format_args!("transaction {xid} is {}", wanted.as_str_name()),
            STAND_LIMIT,
            async || {
                let detail = self.transaction(xid).await?;
                let summary = detail.summary.clone().unwrap_or_default();
                if summary.decision() == excluded {
                    let why = summary.reason.unwrap_or_default();
                    return Err(InVain(format!(
                        "transaction {xid} was decided the other way: {} {}",
                        why.code().as_str_name(),
                        why.detail
                    ))
                    .into());
                }
                ensure!(
                    summary.status() == wanted,
                    "it is {}",
                    summary.status().as_str_name()
                );
                Ok(detail)
            },
        )
        .await
    }
}
