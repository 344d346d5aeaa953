//! The records of a transaction and its branches.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use crate::{
    command::{Problem, RepairVerb},
    effect::{Action, Order},
    id::{Attempt, BranchId, Epoch, ProcessId, RequestId, Resource, Timestamp, WallTime, Xid},
    lock_mode::RowLock,
    mode::Mode,
    payload::Payload,
    reply::{Decision, Rejection, RollBackReason},
    row_lock::TicketId,
    saga::Saga,
    status::{BranchEvent, BranchStatus, Event, Status},
};

/// A global transaction, from its begin until it is forgotten.
///
/// It owns its branches and the answers to their requests. Always true: decided exactly when
/// [`Status::decision`] says so; a reason exactly when it is decided to roll back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub(crate) xid: Xid,
    pub(crate) name: Arc<str>,
    pub(crate) parent: Option<Xid>,
    pub(crate) began_at: Timestamp,
    pub(crate) began_wall: WallTime,
    pub(crate) deadline: Timestamp,
    pub(crate) status: Status,
    pub(crate) reason: Option<RollBackReason>,
    /// Commit was asked and waits for branches until then.
    pub(crate) commit_until: Option<Timestamp>,
    /// Branches of 3PC have until then to hear of its commit. Exactly while it is pre-committed.
    pub(crate) pre_commit_until: Option<Timestamp>,
    /// The lease of its worker ended; the next `Expire` rolls it back.
    pub(crate) lease_ended: bool,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) branches: Vec<Branch>,
    pub(crate) requests: Vec<Request>,
    pub(crate) repairs: Vec<RepairRecord>,
    pub(crate) saga: Option<Box<Saga>>,
}

/// What became of a register or check, kept so that a repeat gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    /// Digest of what was asked.
    pub(crate) content: u64,
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Waiting(TicketId),
    Registered {
        branch: BranchId,
        /// As it was when it was first given: an answer does not change.
        give_up_ms: u32,
        keep_open: bool,
    },
    LocksFree,
    Refused(Rejection),
    /// Taken back; the content may never have been seen.
    Withdrawn,
}

/// An operator's decision about a branch, on record until the transaction is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairRecord {
    /// The branch.
    pub branch: BranchId,
    /// What was done.
    pub verb: RepairVerb,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub wall: WallTime,
}

impl Transaction {
    /// Its id.
    #[must_use]
    pub fn xid(&self) -> Xid {
        self.xid
    }
    /// What the application calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The suspended transaction around it.
    #[must_use]
    pub fn parent(&self) -> Option<Xid> {
        self.parent
    }
    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }
    /// What was decided, if it was.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        self.status.decision()
    }
    /// Why it rolled back, if it did.
    #[must_use]
    pub fn reason(&self) -> Option<&RollBackReason> {
        self.reason.as_ref()
    }
    /// When its begin was logged.
    #[must_use]
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }
    /// When its begin was logged, for display.
    #[must_use]
    pub fn began_wall(&self) -> WallTime {
        self.began_wall
    }
    /// When it rolls back if it is still undecided.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }
    /// When its last branch was finished.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }
    /// A commit was asked for and waits for branches.
    #[must_use]
    pub fn commit_asked(&self) -> bool {
        self.commit_until.is_some() || self.status == Status::Delegated
    }
    /// Its branches; branch n stands at n − 1.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }
    /// What operators did to it, oldest first.
    #[must_use]
    pub fn repairs(&self) -> &[RepairRecord] {
        &self.repairs
    }

    /// Its plan, if it has one.
    #[must_use]
    pub fn saga(&self) -> Option<&Saga> {
        self.saga.as_deref()
    }

    /// It goes on when its worker is gone, and commits by itself.
    pub(crate) fn commits_by_itself(&self) -> bool {
        self.saga().is_some_and(Saga::commit_when_done)
    }

    /// No step of its plan is left to do.
    pub(crate) fn plan_is_done(&self) -> bool {
        self.saga().is_none_or(Saga::is_done)
    }

    /// Whether a branch is a step of its plan.
    pub(crate) fn is_step(&self, id: BranchId) -> bool {
        self.saga().is_some_and(|saga| saga.step_of(id).is_some())
    }

    /// The order for a branch's newest attempt.
    pub(crate) fn order(&self, branch: &Branch, epoch: Epoch) -> Order {
        Order {
            xid: self.xid,
            branch: branch.id,
            resource: branch.resource.clone(),
            mode: branch.mode,
            agent: branch.agent,
            action: branch.action,
            attempt: branch.attempt,
            epoch,
            was_done: branch.was_done,
            payload: branch.payload.clone(),
            step: self.saga().and_then(|saga| saga.order(branch.id)),
        }
    }

    /// A branch that joins now may keep its local transaction open: it has no other one, and none
    /// is known to follow.
    pub(crate) fn can_begin_open(&self) -> bool {
        !self.commit_asked()
            && self.saga.is_none()
            && self.branches.iter().all(|b| b.status.is_over())
    }

    /// Its only live branch, if that one is kept open and was not told to prepare: it can commit in
    /// one phase.
    pub(crate) fn only_kept_open(&self) -> Option<BranchId> {
        let mut live = self.branches.iter().filter(|b| !b.status.is_over());
        match (live.next(), live.next()) {
            (Some(branch), None) if branch.is_kept_open() => Some(branch.id),
            _ => None,
        }
    }

    /// A branch is preparing what it had kept open.
    pub(crate) fn awaits_vote(&self) -> bool {
        self.branches.iter().any(Branch::is_preparing)
    }

    pub(crate) fn branch(&self, id: BranchId) -> Option<&Branch> {
        self.branches.get(id.0.checked_sub(1)? as usize)
    }

    pub(crate) fn branch_mut(&mut self, id: BranchId) -> Option<&mut Branch> {
        self.branches.get_mut(id.0.checked_sub(1)? as usize)
    }

    pub(crate) fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.iter().find(|r| r.id == id)
    }

    pub(crate) fn request_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.requests.iter_mut().find(|r| r.id == id)
    }

    /// Changes the status; panics where the transition does not exist, which is a bug.
    pub(crate) fn turn(&mut self, event: Event) {
        let Some(next) = self.status.next(event) else {
            panic!(
                "transaction {}: {event:?} cannot follow {:?}",
                self.xid, self.status
            );
        };
        self.status = next;
    }

    /// The branch that keeps a commit from being decided, if there is one.
    pub(crate) fn unfinished_branch(&self) -> Option<BranchId> {
        self.branches
            .iter()
            .find(|b| !matches!(b.status, BranchStatus::Done | BranchStatus::Withdrawn))
            .map(|b| b.id)
    }
}

/// One participant's part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    pub(crate) id: BranchId,
    pub(crate) resource: Resource,
    pub(crate) mode: Mode,
    pub(crate) agent: ProcessId,
    pub(crate) status: BranchStatus,
    pub(crate) was_done: bool,
    /// The row locks it holds; empty once they are released.
    pub(crate) locks: Vec<RowLock>,
    /// For its orders; empty once nothing is owed to it.
    pub(crate) payload: Payload,
    /// What the newest order asked for.
    pub(crate) action: Action,
    pub(crate) attempt: Attempt,
    /// Failures in a row that count against the retry budget.
    pub(crate) failures: u32,
    /// Times in a row that the database could not be reached.
    pub(crate) outages: u32,
    pub(crate) next_attempt_at: Option<Timestamp>,
    pub(crate) problem: Option<Box<Problem>>,
}

impl Branch {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> BranchId {
        self.id
    }
    /// What it changes.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }
    /// How it is finished.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
    /// The agent that registered it; 0 for a step of a saga, which any agent of its action does.
    #[must_use]
    pub fn agent(&self) -> ProcessId {
        self.agent
    }
    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> BranchStatus {
        self.status
    }
    /// Its local commit was reported.
    #[must_use]
    pub fn was_done(&self) -> bool {
        self.was_done
    }
    /// How many row locks it holds.
    #[must_use]
    pub fn row_locks(&self) -> usize {
        self.locks.len()
    }
    /// What it was registered with; empty once it is over.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
    /// The newest attempt to finish it; 0 when none was made.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }
    /// What the newest order asked for; `Commit` when there was none.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }
    /// Failures in a row that count against the retry budget.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
    /// When the next attempt is made; `None` when an order is out or none is owed.
    #[must_use]
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        self.next_attempt_at
    }
    /// Why the newest attempt did not work.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_deref()
    }

    /// Changes the status; panics where the transition does not exist, which is a bug.
    pub(crate) fn turn(&mut self, event: BranchEvent) {
        let Some(next) = self.status.next(event) else {
            panic!(
                "branch {:?} of {}: {event:?} cannot follow {:?}",
                self.id, self.resource, self.status
            );
        };
        self.status = next;
    }

    /// One more attempt in a row has failed, while the database was up. How many those are.
    pub(crate) fn count_failure(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.outages = 0;
        self.failures
    }

    /// An order is out, or owed to an agent that is not attached.
    pub(crate) fn is_ordered(&self) -> bool {
        let owed =
            self.status == BranchStatus::Finishing || self.is_running() || self.is_preparing();
        owed && self.next_attempt_at.is_none()
    }

    /// Of XA: its local transaction waits for what comes next.
    pub(crate) fn is_kept_open(&self) -> bool {
        self.status == BranchStatus::KeptOpen && self.action != Action::Prepare
    }

    /// Of XA: it was kept open, and has been told to prepare.
    pub(crate) fn is_preparing(&self) -> bool {
        self.status == BranchStatus::KeptOpen && self.action == Action::Prepare
    }

    /// A step of a saga that is started and not done.
    pub(crate) fn is_running(&self) -> bool {
        self.status == BranchStatus::Registered && self.action == Action::Run
    }
}
