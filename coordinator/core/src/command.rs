//! What can be asked of the state machine: one plain struct per verb.

use alloc::{string::String, sync::Arc, vec::Vec};

use crate::{
    id::{
        Attempt, BranchId, DatabaseId, Epoch, LockKey, ProcessId, RequestId, Resource, Timestamp,
        WallTime, WorkerId, Xid,
    },
    lock_mode::RowLock,
    mode::Mode,
    payload::Payload,
    retention::Retention,
    saga::StepPlan,
};

/// One command of the log with what its leader stamped on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The log index of the batch that holds it; several entries share one.
    pub index: u64,
    /// When the leader stamped it; never decreases along the log.
    pub at: Timestamp,
    /// Wall time at the leader, for display and lease floors.
    pub wall: WallTime,
    /// What to do.
    pub command: Command,
}

/// Everything that changes the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// First entry of every leader, before it carries out any effect.
    TakeOffice(TakeOffice),
    /// A process wants to make XIDs, or to keep making them.
    LeaseWorker(LeaseWorker),
    /// A process ends its lease; its undecided transactions roll back.
    EndLease(EndLease),
    /// A transaction was announced.
    Begin(Begin),
    /// A name is tied to a database.
    BindResource(BindResource),
    /// A name is an action's.
    NameAction(NameAction),
    /// A branch joins with all its row locks, or not at all.
    RegisterBranch(RegisterBranch),
    /// Wait until no other transaction holds some rows.
    CheckLocks(CheckLocks),
    /// A branch's local commit is durable.
    BranchDone(BranchDone),
    /// A branch's local transaction certainly rolled back, or its request was given up.
    WithdrawBranch(WithdrawBranch),
    /// Whether a branch's local commit happened is unknown.
    DoomBranch(DoomBranch),
    /// A transaction's work stands still in a database: those who wait for it must let go.
    Blocked(Blocked),
    /// Decide to commit, if every branch is done.
    Commit(Commit),
    /// Decide to roll back.
    RollBack(RollBack),
    /// What came of an order.
    FinishBranch(FinishBranch),
    /// Time has passed: everything due at the entry's time happens.
    Expire,
    /// An operator resolves a stuck branch.
    Repair(Repair),
    /// A transaction gets a plan whose steps are done for it.
    StartSaga(StartSaga),
}

impl Command {
    /// The transaction that it is about, if it names one.
    #[must_use]
    pub fn xid(&self) -> Option<Xid> {
        match self {
            Self::Begin(c) => Some(c.xid),
            Self::RegisterBranch(c) => Some(c.xid),
            Self::CheckLocks(c) => Some(c.xid),
            Self::BranchDone(c) => Some(c.xid),
            Self::WithdrawBranch(c) => Some(c.xid),
            Self::DoomBranch(c) => Some(c.xid),
            Self::Blocked(c) => Some(c.xid),
            Self::Commit(c) => Some(c.xid),
            Self::RollBack(c) => Some(c.xid),
            Self::FinishBranch(c) => Some(c.xid),
            Self::Repair(c) => Some(c.xid),
            Self::StartSaga(c) => Some(c.xid),
            Self::TakeOffice(_)
            | Self::LeaseWorker(_)
            | Self::EndLease(_)
            | Self::BindResource(_)
            | Self::NameAction(_)
            | Self::Expire => None,
        }
    }
}

impl Command {
    /// Bytes of branches' payloads in it.
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self {
            Self::RegisterBranch(c) => c.payload.len() as u64,
            Self::StartSaga(c) => c.steps.iter().map(|step| step.input.len() as u64).sum(),
            _ => 0,
        }
    }
}

/// A leader begins its office, with its settings for what all replicas must do alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakeOffice {
    /// How long ended transactions stay known; out of bounds, the nearest bound counts.
    pub retention: Retention,
}

/// Takes a worker id, or renews the lease on `worker` if this process holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWorker {
    /// The process that asks.
    pub process: ProcessId,
    /// Shown to operators.
    pub name: String,
    /// The id it believes it holds.
    pub worker: Option<WorkerId>,
}

/// Ends the lease on `worker` if `process` holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndLease {
    /// The holder.
    pub process: ProcessId,
    /// Its id.
    pub worker: WorkerId,
}

/// Opens a transaction whose XID a leased worker made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The process that holds the lease.
    pub process: ProcessId,
    /// Strictly above all of its worker's earlier ones.
    pub xid: Xid,
    /// Shown to operators.
    pub name: Arc<str>,
    /// Milliseconds until it rolls back undecided.
    pub timeout_ms: u32,
    /// The suspended transaction around it.
    pub parent: Option<Xid>,
}

/// Ties a resource name to a database, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindResource {
    /// The operator's name.
    pub resource: Resource,
    /// What the database says of itself.
    pub database: DatabaseId,
}

/// Makes a name an action's: of something that agents do, in no database that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAction {
    /// For example `account.freeze`.
    pub action: Resource,
}

/// A branch and all its row locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBranch {
    /// The transaction to join.
    pub xid: Xid,
    /// Names this request and its repeats.
    pub request: RequestId,
    /// The agent that holds the local transaction.
    pub agent: ProcessId,
    /// The database or the action.
    pub resource: Resource,
    /// How the branch is finished.
    pub mode: Mode,
    /// Sorted by key, none twice; none at all where the mode takes none.
    pub locks: Vec<RowLock>,
    /// Comes back with every order; empty where the mode takes none.
    pub payload: Payload,
    /// Milliseconds the request may wait in the lock queues.
    pub wait_limit_ms: u32,
    /// The caller's open local transaction holds database locks on these rows.
    pub holds_local_locks: bool,
    /// Of XA: the caller can keep its local transaction open, with all its statements done, until
    /// it is ordered to prepare or to commit it.
    pub can_keep_open: bool,
}

/// Waits until no other transaction holds the rows, without taking them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLocks {
    /// The transaction that reads; [`Xid::outside`] for a local one outside of any.
    pub xid: Xid,
    /// Names this request and its repeats.
    pub request: RequestId,
    /// The database.
    pub resource: Resource,
    /// Sorted, none twice.
    pub locks: Vec<LockKey>,
    /// Whoever only reads does not mind others who hold the rows shared.
    pub shared: bool,
    /// Milliseconds the request may wait in the lock queues.
    pub wait_limit_ms: u32,
    /// The caller's open local transaction holds database locks on these rows.
    pub holds_local_locks: bool,
}

/// A branch's local commit is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchDone {
    /// Its transaction.
    pub xid: Xid,
    /// Its number.
    pub branch: BranchId,
}

/// Takes a request back: one under way is refused when it arrives, a waiting one leaves the
/// queues, a granted one is undone (its local transaction rolled back for certain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawBranch {
    /// Its transaction.
    pub xid: Xid,
    /// The request to take back.
    pub request: RequestId,
}

/// Whether a branch's local commit happened is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoomBranch {
    /// Its transaction.
    pub xid: Xid,
    /// Its number.
    pub branch: BranchId,
    /// Shown to people.
    pub detail: String,
}

/// A statement of the transaction waits for a database's lock, or its next branch for a
/// connection. Who holds that is not known here; it may be a local transaction that waits here
/// for this one. Sent again as long as the wait lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The transaction that stands still.
    pub xid: Xid,
}

/// Asks for the decision to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The transaction.
    pub xid: Xid,
}

/// Asks for the decision to roll back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollBack {
    /// The transaction.
    pub xid: Xid,
    /// What the application said; shown to people.
    pub detail: String,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishBranch {
    /// Its transaction.
    pub xid: Xid,
    /// Its number.
    pub branch: BranchId,
    /// The order's attempt.
    pub attempt: Attempt,
    /// The order's epoch.
    pub epoch: Epoch,
    /// How it went.
    pub outcome: Outcome,
}

/// How an attempt to finish a branch went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable in the participant's database.
    Finished,
    /// May work later; counts against the retry budget.
    Failed(Problem),
    /// The database cannot be reached; counts against nothing.
    Unavailable(Problem),
    /// Will never work by itself.
    Stuck(Problem),
    /// To the order to pre-commit: durable in the participant's database.
    PreCommitted,
    /// A step of a saga is done, durably, and returned this.
    Ran(Payload),
    /// A step of a saga cannot be done, and did nothing. Of XA, to the orders to prepare and to
    /// commit in one phase: it is rolled back, and will never commit.
    Refused(Problem),
    /// As failed, and not to be tried again before so many milliseconds have passed.
    Later(Problem, u32),
    /// To the order to prepare: durable in the participant's database.
    Prepared,
}

/// Why an attempt did not work, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// One sentence: what is in the way and what can be done.
    pub reason: String,
    /// Column by column, what differs from what the branch left.
    pub difference: String,
    /// SQL that would restore the rows.
    pub repair_statement: String,
}

/// Stores a plan with a transaction and starts it: the steps become branches, each when those it
/// waits for are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSaga {
    /// The transaction; it must have no other plan.
    pub xid: Xid,
    /// Names this request and its repeats.
    pub request: RequestId,
    /// At least one.
    pub steps: Vec<StepPlan>,
    /// The transaction commits by itself as soon as every step is done and no other branch is
    /// unfinished. It is not rolled back when the lease of its worker ends.
    pub commit_when_done: bool,
}

/// An operator resolves a stuck branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The transaction.
    pub xid: Xid,
    /// One branch, or every stuck one.
    pub branch: Option<BranchId>,
    /// What to do with it.
    pub verb: RepairVerb,
    /// Who says so.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What an operator can do with a stuck branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairVerb {
    /// New attempts with a fresh retry budget.
    Retry,
    /// Run the prepared repair: undo whatever the rows hold now.
    Apply,
    /// Keep the rows as they are and drop the undo record.
    Accept,
    /// Finish without this branch.
    Skip,
}
