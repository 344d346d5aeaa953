//! The service of operators: what the command line asks.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use accede_core::{self as core, BranchId, Reply, State, Timestamp, Transaction, Xid};
use accede_proto::v1::{
    self, AttachedAgent, BranchDetail, CoordinatorStatus, GetStatusRequest, GetTransactionRequest,
    ListRowLocksRequest, ListRowLocksResponse, ListTransactionsRequest, ListTransactionsResponse,
    PhaseTwoProblem, RepairRequest, RepairResponse, ResourceStatus, TransactionDetail,
    TransactionSummary, operator_server::Operator,
};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::refused;
use crate::{
    clock::{self, millis},
    convert,
    hub::Hub,
    limits::{LIST_DEFAULT, LIST_MOST, SCAN_CHUNK},
    metrics::{STATUSES, by_status},
    orders::Whereabouts,
    refusal, row_locks,
};

/// The `Operator` service.
pub(crate) struct OperatorDoor {
    hub: Arc<Hub>,
}

impl OperatorDoor {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn status(&self) -> CoordinatorStatus {
        let hub = &self.hub;
        let log = hub.log.stats();
        let (counts, resources, epoch) = {
            let state = hub.state.read();
            let databases = state
                .resources()
                .map(|(name, database)| (name.clone(), Some(*database)));
            let actions = state.actions().map(|action| (action.clone(), None));
            let resources: Vec<_> = databases.chain(actions).collect();
            (state.counts(), resources, state.epoch())
        };
        let transactions: HashMap<String, u64> = STATUSES
            .iter()
            .zip(by_status(&counts))
            .map(|(status, count)| ((*status).to_owned(), count))
            .collect();
        CoordinatorStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: hub.cluster.clone(),
            data_dir: hub.config.data_dir.display().to_string(),
            leader: hub.office().is_some(),
            epoch: epoch.0,
            uptime_ms: millis(clock::now() - hub.started),
            log_index: log.durable_index,
            applied_index: log.applied_index,
            snapshot_index: log.snapshot_index,
            forced_writes: log.forced_writes,
            transactions,
            row_locks: counts.row_locks,
            waiting_requests: counts.waiting,
            workers: counts.workers,
            agents: self.agents(),
            resources: resources
                .into_iter()
                .map(|(name, database)| self.resource(&name, database))
                .collect(),
            log_bytes: log.segments * hub.config.segment_bytes + log.snapshot_bytes,
            payload_bytes: counts.payload_bytes,
        }
    }

    fn agents(&self) -> Vec<AttachedAgent> {
        let agents = self.hub.orders.agents().into_iter();
        agents
            .map(|agent| AttachedAgent {
                name: agent.name,
                agent: agent.agent.0,
                resources: agent
                    .resources
                    .iter()
                    .map(|name| (**name).to_owned())
                    .collect(),
                attached_for_ms: millis(agent.attached_for),
                open_orders: agent.open_orders,
            })
            .collect()
    }

    fn resource(&self, name: &str, database: Option<core::DatabaseId>) -> ResourceStatus {
        let (agents, waiting) = self.hub.orders.of_resource(name);
        ResourceStatus {
            name: name.to_owned(),
            database_id: database.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id)),
            attached_agents: u32::try_from(agents).unwrap_or(u32::MAX),
            waiting_orders: u32::try_from(waiting).unwrap_or(u32::MAX),
        }
    }

    /// Shows the transactions above `after` until `see` breaks off, in portions, so that others get
    /// at the state in between.
    async fn scan(
        &self,
        mut after: Option<Xid>,
        mut see: impl FnMut(&State, &Transaction) -> ControlFlow<()>,
    ) {
        loop {
            let mut looked_at = 0;
            {
                let state = self.hub.state.read();
                for transaction in state.transactions_after(after).take(SCAN_CHUNK) {
                    looked_at += 1;
                    after = Some(transaction.xid());
                    if see(&state, transaction).is_break() {
                        return;
                    }
                }
            }
            if looked_at < SCAN_CHUNK {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn list(&self, wanted: &ListTransactionsRequest) -> ListTransactionsResponse {
        let limit = limit(wanted.limit);
        let now = self.hub.clock.at();
        let mut found = ListTransactionsResponse::default();
        self.scan(Xid::new(wanted.after), |_, transaction| {
            if !matches(transaction, wanted, now) {
                return ControlFlow::Continue(());
            }
            if found.transactions.len() >= limit {
                found.more = true;
                return ControlFlow::Break(());
            }
            found.transactions.push(summary(transaction, now));
            ControlFlow::Continue(())
        })
        .await;
        found
    }

    async fn row_locks(
        &self,
        wanted: &ListRowLocksRequest,
        only: Option<Xid>,
    ) -> ListRowLocksResponse {
        let limit = limit(wanted.limit);
        let now = self.hub.clock.at();
        let mut found = ListRowLocksResponse::default();
        self.scan(None, |state, transaction| {
            if transaction.status().has_ended() {
                return ControlFlow::Continue(());
            }
            for row in state.row_locks_of(transaction.xid()) {
                if !wants_row(wanted, only, &row) {
                    continue;
                }
                if found.row_locks.len() >= limit {
                    found.more = true;
                    return ControlFlow::Break(());
                }
                found.row_locks.push(row_locks::status(&row, now));
            }
            ControlFlow::Continue(())
        })
        .await;
        found
    }

    fn detail(&self, state: &State, xid: Xid) -> Option<TransactionDetail> {
        let transaction = state.transaction(xid)?;
        let now = self.hub.clock.at();
        let waiting = state.waiting(xid).into_iter();
        Some(TransactionDetail {
            summary: Some(summary(transaction, now)),
            branches: transaction
                .branches()
                .iter()
                .map(|branch| self.branch(transaction, branch, now))
                .collect(),
            waiting: waiting
                .map(|request| v1::WaitingRequest {
                    resource: (*request.resource).to_owned(),
                    row_locks: u32::try_from(request.row_locks).unwrap_or(u32::MAX),
                    blocked_by: request
                        .blocked_by
                        .iter()
                        .copied()
                        .map(convert::on_wire)
                        .collect(),
                    waiting_for_ms: now.since(request.since),
                    gives_up_in_ms: request.until.since(now),
                })
                .collect(),
            repairs: transaction
                .repairs()
                .iter()
                .map(|repair| v1::RepairRecord {
                    branch: repair.branch.0,
                    verb: convert::repair_verb(repair.verb).into(),
                    by: repair.by.clone(),
                    reason: repair.reason.clone(),
                    wall_ms: repair.wall.0,
                })
                .collect(),
            parent: transaction.parent().map_or(0, Xid::get),
            commit_waiting: transaction.commit_asked() && transaction.decision().is_none(),
            worker: u32::from(xid.worker().0),
        })
    }

    fn branch(&self, of: &Transaction, branch: &core::Branch, now: Timestamp) -> BranchDetail {
        let xid = of.xid();
        let step = of.saga().and_then(|saga| saga.step_of(branch.id()));
        let (agent, waits) = match self.hub.orders.whereabouts(xid, branch.id()) {
            Whereabouts::Sent(agent) => (agent, false),
            Whereabouts::Waits => (String::new(), true),
            Whereabouts::None => {
                let called = self.hub.callbacks.whereabouts(xid, branch.id());
                (called.unwrap_or_default(), false)
            }
        };
        BranchDetail {
            branch: branch.id().0,
            resource: (**branch.resource()).to_owned(),
            mode: convert::mode(branch.mode()).into(),
            status: branch.status().as_str().to_owned(),
            row_locks: u32::try_from(branch.row_locks()).unwrap_or(u32::MAX),
            attempt: branch.attempt().0,
            failures: branch.failures(),
            next_attempt_in_ms: branch.next_attempt_at().map_or(0, |at| at.since(now)),
            problem: branch.problem().map(|problem| PhaseTwoProblem {
                kind: branch.status().as_str().to_owned(),
                reason: problem.reason.clone(),
                difference: problem.difference.clone(),
                repair_statement: problem.repair_statement.clone(),
            }),
            waiting_for_agent: waits,
            agent,
            payload_bytes: u32::try_from(branch.payload().len()).unwrap_or(u32::MAX),
            step: step.map_or_else(String::new, |step| step.name().to_owned()),
            direction: step
                .map_or("", |_| convert::saga::direction(branch))
                .to_owned(),
        }
    }
}

fn limit(asked: u32) -> usize {
    match asked {
        0 => LIST_DEFAULT,
        limit => (limit as usize).min(LIST_MOST),
    }
}

fn wants_row(wanted: &ListRowLocksRequest, only: Option<Xid>, row: &core::RowLockStatus) -> bool {
    let concerns = |xid| {
        let held = row.holders.iter().any(|holder| holder.xid == xid);
        held || row.waiting.iter().any(|waiter| waiter.xid == xid)
    };
    (wanted.resource.is_empty() || *wanted.resource == *row.resource)
        && (!wanted.waited_for || !row.waiting.is_empty())
        && only.is_none_or(concerns)
}

fn matches(transaction: &Transaction, wanted: &ListTransactionsRequest, now: Timestamp) -> bool {
    let status = i32::from(convert::status(transaction.status()));
    (wanted.statuses.is_empty() || wanted.statuses.contains(&status))
        && now.since(transaction.began_at()) >= wanted.older_than_ms
}

fn summary(transaction: &Transaction, now: Timestamp) -> TransactionSummary {
    let unfinished = transaction
        .branches()
        .iter()
        .filter(|branch| !branch.status().is_over())
        .count();
    let decision = transaction.decision();
    let modes: BTreeSet<core::Mode> = transaction
        .branches()
        .iter()
        .map(core::Branch::mode)
        .collect();
    TransactionSummary {
        xid: transaction.xid().get(),
        name: transaction.name().to_owned(),
        status: convert::status(transaction.status()).into(),
        decision: decision
            .map_or(v1::Decision::Unspecified, convert::decision)
            .into(),
        reason: transaction.reason().map(convert::reason),
        age_ms: now.since(transaction.began_at()),
        branches: u32::try_from(transaction.branches().len()).unwrap_or(u32::MAX),
        unfinished_branches: u32::try_from(unfinished).unwrap_or(u32::MAX),
        began_wall_ms: transaction.began_wall().0,
        remaining_ms: if decision.is_some() {
            0
        } else {
            transaction.deadline().since(now)
        },
        modes: modes
            .into_iter()
            .map(|mode| convert::mode(mode).into())
            .collect(),
    }
}

#[tonic::async_trait]
impl Operator for OperatorDoor {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<CoordinatorStatus>, Status> {
        Ok(Response::new(self.status()))
    }

    async fn list_transactions(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await))
    }

    async fn get_transaction(
        &self,
        request: Request<GetTransactionRequest>,
    ) -> Result<Response<TransactionDetail>, Status> {
        let xid = convert::xid(request.into_inner().xid).map_err(refused)?;
        // Everything that was asked before is in the answer.
        self.hub
            .read(|_| ())
            .await
            .map_err(|trouble| refusal::status(&refusal::of_trouble(&trouble)))?;
        let state = self.hub.state.read();
        match self.detail(&state, xid) {
            Some(detail) => Ok(Response::new(detail)),
            None => Err(match convert::outcome(&state, xid) {
                Err(refusal) => refusal::status(&refusal),
                Ok(_) => Status::internal("the transaction is there and is not, which is a bug"),
            }),
        }
    }

    async fn list_row_locks(
        &self,
        request: Request<ListRowLocksRequest>,
    ) -> Result<Response<ListRowLocksResponse>, Status> {
        let wanted = request.get_ref();
        let only = match wanted.xid {
            0 => None,
            xid => Some(convert::xid(xid).map_err(refused)?),
        };
        Ok(Response::new(self.row_locks(wanted, only).await))
    }

    async fn repair(
        &self,
        request: Request<RepairRequest>,
    ) -> Result<Response<RepairResponse>, Status> {
        let repair = convert::repair(request.into_inner()).map_err(refused)?;
        let xid = repair.xid;
        tracing::info!(
            %xid,
            branch = repair.branch.map(|branch| branch.0),
            verb = ?repair.verb,
            by = %repair.by,
            reason = %repair.reason,
            "an operator repairs a transaction"
        );
        let take = |reply| match reply {
            Reply::Repaired(branches) => Ok(branches),
            other => Err(other),
        };
        let repaired = self
            .hub
            .ask_for(core::Command::Repair(repair), (Some(xid), None), take)
            .await
            .map_err(refused)?;
        Ok(Response::new(RepairResponse {
            branches: repaired
                .into_iter()
                .map(|BranchId(number)| number)
                .collect(),
        }))
    }
}
