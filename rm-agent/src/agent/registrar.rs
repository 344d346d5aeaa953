//! The registrar over the session with the coordinator.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use accede_link::session::{
    BranchFrames, Call, DeliverySlot, Session, SessionError, SessionStatus,
};
use accede_proto::{
    Xid,
    v1::{
        self, BranchBlocked, BranchDone, BranchDoomed, BranchWithdrawn, CheckRowLocks,
        EscrowRowLock, Mode, RegisterBranch, RequestId, branch_event::Body as Answer,
        branch_request::Body as Ask,
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    limits::{ANSWER_MARGIN, MAX_DETAIL_BYTES, XA_BEHIND, XA_BEHIND_LONGEST},
    resource::{Resource, ResourceState},
};
use crate::{
    clock,
    registrar::{
        EscrowLock, LockKey, RefusalCode, Refused, Registered, Registrar, Registration, RowCheck,
        may_join,
    },
};

/// Stands on the wire for a local transaction outside of any global one.
const OUTSIDE: u64 = 0;

type Slot = DeliverySlot<BranchFrames>;

/// Registers branches over the agent's session.
///
/// For each branch, room for the message that ends phase one (done, withdrawn or
/// doomed) is taken before it registers: memory is bounded by holding
/// registrations back, and the message itself neither waits nor gets lost.
pub(super) struct SessionRegistrar {
    resources: Arc<[Arc<Resource>]>,
    /// Set once the first database is known and the session has started.
    session: watch::Receiver<Option<Session<BranchFrames>>>,
    agent: u64,
    last_request: AtomicU64,
    registered: Mutex<HashMap<(Xid, u32), Branch>>,
    /// Told when the last registered branch has told how it ended.
    idle: Notify,
}

/// A registered branch whose local transaction has not ended.
struct Branch {
    slot: Slot,
    request: RequestId,
    resource: Arc<str>,
}

/// Tells the coordinator that a request is given up, unless it is disarmed.
struct Withdrawal(Option<(Option<Xid>, Branch)>);

impl Withdrawal {
    fn disarm(mut self) -> Option<Branch> {
        self.0.take().map(|(_, branch)| branch)
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some((xid, branch)) = self.0.take() {
            branch.withdraw(xid);
        }
    }
}

impl Branch {
    fn withdraw(self, xid: Option<Xid>) {
        let body = Ask::Withdrawn(BranchWithdrawn {
            xid: xid.map_or(OUTSIDE, Xid::as_u64),
            request: Some(self.request),
            resource: self.resource.as_ref().to_owned(),
        });
        deliver(self.slot, body, xid);
    }
}

fn deliver(slot: Slot, body: Ask, xid: Option<Xid>) {
    if let Err(error) = slot.deliver(body) {
        // Without the message the coordinator never counts the branch as done:
        // the transaction rolls back, at its deadline at the latest.
        tracing::warn!(?xid, %error, "cannot tell the coordinator how a branch ended");
    }
}

impl SessionRegistrar {
    pub(super) fn new(
        resources: Arc<[Arc<Resource>]>,
        session: watch::Receiver<Option<Session<BranchFrames>>>,
        agent: u64,
    ) -> Self {
        Self {
            resources,
            session,
            agent,
            last_request: AtomicU64::new(0),
            registered: Mutex::new(HashMap::new()),
            idle: Notify::new(),
        }
    }

    /// Branches that are registered and have not told how they ended.
    pub(super) fn open_branches(&self) -> usize {
        self.registered.lock().len()
    }

    /// Waits until every registered branch has told how it ended.
    pub(super) async fn idle(&self) {
        loop {
            let told = self.idle.notified();
            if self.open_branches() == 0 {
                return;
            }
            told.await;
        }
    }

    fn resource(&self, name: &str) -> Option<&Resource> {
        let known = self.resources.iter().find(|known| &*known.name == name);
        known.map(AsRef::as_ref)
    }

    async fn until_caught_up(&self, name: &str) {
        let Some(resource) = self.resource(name) else {
            return;
        };
        let mut behind = resource.behind.subscribe();
        let caught_up = behind.wait_for(|behind| *behind < XA_BEHIND);
        if timeout(XA_BEHIND_LONGEST, caught_up).await.is_err() {
            tracing::warn!(
                resource = name,
                "{XA_BEHIND} prepared transactions and more wait to be ended since \
                 {XA_BEHIND_LONGEST:?}; a new branch goes on all the same"
            );
        }
    }

    fn next_request(&self) -> RequestId {
        RequestId {
            client: self.agent,
            sequence: self.last_request.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Waits until the resource may be used and there is room for the message
    /// that ends the branch.
    async fn admit(&self, resource: &str) -> Result<(Session<BranchFrames>, Slot), Refused> {
        let found = self.resource(resource).ok_or_else(|| {
            Refused::new(
                RefusalCode::ResourceUnknown,
                format!("this agent has no resource {resource:?}"),
            )
        })?;
        let mut state = found.state();
        let settled = state.wait_for(|state| {
            matches!(
                state,
                ResourceState::Attached | ResourceState::Refused { .. }
            )
        });
        if let ResourceState::Refused { problem } = &*settled.await.map_err(|_| shut_down())? {
            return Err(Refused::new(RefusalCode::ResourceMismatch, problem.clone()));
        }
        let mut session = self.session.clone();
        let session = session
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|session| session.clone())
            .ok_or_else(shut_down)?;
        let slot = session.delivery_slot().await.map_err(|e| refused(&e))?;
        Ok((session, slot))
    }

    /// Admits a request and makes its call, all within its patience.
    async fn ask(
        &self,
        xid: Option<Xid>,
        resource: &Arc<str>,
        wait_limit: Duration,
        body: impl FnOnce(RequestId, u32) -> Ask,
    ) -> Result<(Answer, Withdrawal), Refused> {
        let patience = wait_limit.saturating_add(ANSWER_MARGIN);
        let started = clock::now();
        let (session, slot) = timeout(patience, self.admit(resource))
            .await
            .map_err(|_| self.not_attached(resource, patience))??;
        let request = self.next_request();
        let withdrawal = Withdrawal(Some((
            xid,
            Branch {
                slot,
                request,
                resource: Arc::clone(resource),
            },
        )));
        let remaining = patience.saturating_sub(clock::now().saturating_duration_since(started));
        // The coordinator must answer before this side gives up.
        let wait_limit = remaining.saturating_sub(ANSWER_MARGIN);
        let body = body(request, millis(wait_limit));
        match session.call(body, Call::idempotent(remaining)).await {
            Ok(answer) => Ok((answer, withdrawal)),
            Err(error) => {
                // What was refused or never sent needs no withdrawal.
                if !matches!(error, SessionError::Unknown { .. }) {
                    withdrawal.disarm();
                }
                Err(refused(&error))
            }
        }
    }

    fn not_attached(&self, resource: &str, patience: Duration) -> Refused {
        let state = self
            .resource(resource)
            .map(|known| known.state().borrow().clone());
        let why = match state {
            Some(ResourceState::Attached) => {
                return Refused::new(
                    RefusalCode::Overloaded,
                    format!("too many branches of this process are open (waited {patience:?})"),
                );
            }
            Some(ResourceState::Unavailable { problem }) => problem.map_or_else(
                || "its database was not reached yet".to_owned(),
                |problem| format!("its database cannot be reached: {problem}"),
            ),
            Some(ResourceState::Wrong { problem } | ResourceState::Refused { problem }) => problem,
            Some(ResourceState::Known) | None => self.coordinator_problem(),
        };
        Refused::new(
            RefusalCode::Unreachable,
            format!("resource {resource:?} is not attached to a coordinator: {why}"),
        )
    }

    fn coordinator_problem(&self) -> String {
        let session = self.session.borrow().clone();
        match session.map(|session| session.status().borrow().clone()) {
            Some(SessionStatus::Connecting {
                problem: Some(problem),
                ..
            }) => problem.to_string(),
            _ => "the coordinator has not answered yet".to_owned(),
        }
    }

    async fn register_branch(&self, registration: Registration) -> Result<Registered, Refused> {
        let (xid, resource) = (registration.xid, &registration.resource);
        may_join(xid, resource)?;
        let (answer, withdrawal) = self
            .ask(
                Some(xid),
                resource,
                registration.wait_limit,
                |request, wait_limit_ms| {
                    Ask::Register(RegisterBranch {
                        xid: xid.as_u64(),
                        request: Some(request),
                        resource: resource.as_ref().to_owned(),
                        mode: registration.mode.into(),
                        row_locks: row_locks(&registration.row_locks),
                        escrow_row_locks: registration.escrow_locks.iter().map(escrow).collect(),
                        payload: registration.payload,
                        wait_limit_ms,
                        holds_local_locks: matches!(registration.mode, Mode::At | Mode::Xa),
                        agent: self.agent,
                        can_keep_open: registration.can_keep_open,
                        ..Default::default()
                    })
                },
            )
            .await?;
        let Answer::Registered(registered) = answer else {
            return Err(unexpected(&answer));
        };
        if let Some(branch) = withdrawal.disarm() {
            let before = self
                .registered
                .lock()
                .insert((xid, registered.branch), branch);
            if before.is_some() {
                tracing::error!(%xid, branch = registered.branch,
                    "the coordinator gave the same branch number twice");
            }
        }
        Ok(Registered {
            branch: registered.branch,
            give_up: Duration::from_millis(registered.give_up_ms.into()),
            keep_open: registered.keep_open,
        })
    }

    async fn check(&self, check: RowCheck) -> Result<(), Refused> {
        let (answer, withdrawal) = self
            .ask(
                check.xid,
                &check.resource,
                check.wait_limit,
                |request, wait_limit_ms| {
                    Ask::CheckLocks(CheckRowLocks {
                        xid: check.xid.map_or(OUTSIDE, Xid::as_u64),
                        request: Some(request),
                        resource: check.resource.as_ref().to_owned(),
                        row_locks: row_locks(&check.row_locks),
                        wait_limit_ms,
                        holds_local_locks: true,
                        ..Default::default()
                    })
                },
            )
            .await?;
        let Answer::LocksFree(_) = answer else {
            return Err(unexpected(&answer));
        };
        withdrawal.disarm();
        Ok(())
    }

    fn take(&self, xid: Xid, branch: u32) -> Option<Branch> {
        let mut registered = self.registered.lock();
        let taken = registered.remove(&(xid, branch));
        if registered.is_empty() {
            self.idle.notify_waiters();
        }
        drop(registered);
        if taken.is_none() {
            tracing::error!(%xid, branch, "a branch ended that was not registered or had ended");
        }
        taken
    }
}

impl Registrar for SessionRegistrar {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        Box::pin(self.register_branch(registration))
    }

    fn caught_up<'a>(&'a self, resource: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.until_caught_up(resource))
    }

    fn check_locks(&self, check: RowCheck) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(self.check(check))
    }

    fn done(&self, xid: Xid, branch: u32) {
        if let Some(taken) = self.take(xid, branch) {
            let xid_bits = xid.as_u64();
            let body = Ask::Done(BranchDone {
                xid: xid_bits,
                branch,
            });
            deliver(taken.slot, body, Some(xid));
        }
    }

    fn withdrawn(&self, xid: Xid, branch: u32) {
        if let Some(taken) = self.take(xid, branch) {
            taken.withdraw(Some(xid));
        }
    }

    fn blocked(&self, xid: Xid) {
        let session = self.session.borrow().clone();
        let connected = |session: &Session<BranchFrames>| {
            matches!(*session.status().borrow(), SessionStatus::Connected { .. })
        };
        // Without a connection or room it is not kept: what is old by then would only disturb.
        if let Some(session) = session.filter(connected)
            && let Ok(slot) = session.try_send_slot()
        {
            let xid_bits = xid.as_u64();
            let body = Ask::Blocked(BranchBlocked { xid: xid_bits });
            if let Err(error) = slot.send(body) {
                tracing::debug!(%xid, %error, "cannot tell the coordinator of a blocked transaction");
            }
        }
    }

    fn over(&self, xid: Xid, branch: u32) {
        // Its slot is free again.
        drop(self.take(xid, branch));
    }

    fn doomed(&self, xid: Xid, branch: u32, mut detail: String) {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
        if let Some(taken) = self.take(xid, branch) {
            let body = Ask::Doomed(BranchDoomed {
                xid: xid.as_u64(),
                branch,
                detail,
            });
            deliver(taken.slot, body, Some(xid));
        }
    }
}

fn escrow(lock: &EscrowLock) -> EscrowRowLock {
    let columns = lock.columns.iter().map(|change| v1::ColumnDelta {
        column: (*change.column).to_owned(),
        delta: change.delta,
        value: change.value,
        lower: Some(change.lower),
        upper: Some(change.upper),
    });
    EscrowRowLock {
        row: Bytes::copy_from_slice(&lock.key),
        columns: columns.collect(),
    }
}

fn row_locks(keys: &[LockKey]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::copy_from_slice(key)).collect()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn shut_down() -> Refused {
    Refused::new(
        RefusalCode::ShuttingDown,
        "this process's agent is shut down",
    )
}

fn unexpected(answer: &Answer) -> Refused {
    tracing::error!(?answer, "the coordinator's answer does not fit the request");
    Refused::new(
        RefusalCode::Other,
        "the coordinator's answer does not fit the request; is its version newer than this agent's?",
    )
}

/// What a branch is told when its request had no good answer.
pub(super) fn refused(error: &SessionError) -> Refused {
    let code = match error {
        SessionError::Refused(refusal) => return Refused::from(refusal),
        SessionError::NotSent { .. } => RefusalCode::Unreachable,
        SessionError::Unknown { .. } => RefusalCode::UnknownOutcome,
        SessionError::Busy { .. } => RefusalCode::Overloaded,
        SessionError::TooLarge { .. } => RefusalCode::TooLarge,
        SessionError::Closed => RefusalCode::ShuttingDown,
        _ => RefusalCode::Other,
    };
    Refused::new(code, error.to_string())
}
