//! What comes back from a command. A refusal is an answer, not an error.

use alloc::{string::String, vec::Vec};

use crate::{
    id::{BranchId, DatabaseId, Epoch, Resource, Timestamp, WorkerId, Xid},
    saga::StepResult,
};

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Applied; there is nothing more to say.
    Ok,
    /// To `TakeOffice`: effects of this epoch may be carried out.
    InOffice(Epoch),
    /// To `LeaseWorker`.
    Leased(Lease),
    /// To `RegisterBranch`: commit locally within `give_up_ms`, then send `BranchDone`.
    Registered {
        /// The branch's number.
        branch: BranchId,
        /// Milliseconds, counted from when the caller sent the request.
        give_up_ms: u32,
        /// The local transaction shall be kept open until an order comes; no `BranchDone` is
        /// awaited.
        keep_open: bool,
    },
    /// To `CheckLocks`: no other transaction holds the rows.
    LocksFree,
    /// Not yet: the answer follows as [`crate::Effect::Answer`] with the same [`Waiter`].
    Waiting(Waiter),
    /// To `Commit` and `RollBack`: what was decided, now or before.
    Decided(Decision, Option<RollBackReason>),
    /// To `StartSaga`: every step is done. The transaction is decided to commit if it was to commit
    /// by itself, else perhaps not yet; one that rolls back is answered as `Decided`.
    SagaDone(Vec<StepResult>, Option<Decision>),
    /// To `Repair`: the branches it resolved.
    Repaired(Vec<BranchId>),
    /// To `Expire`: more is due; send another one.
    MoreIsDue,
    /// Not done; nothing changed.
    Refused(Rejection),
}

/// Who waits for an answer that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiter {
    /// Everyone who sent this register, check or plan.
    Request(Xid, crate::RequestId),
    /// Everyone who asked for this transaction's commit.
    Commit(Xid),
}

/// The right to make XIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The worker id.
    pub worker: WorkerId,
    /// First usable time part.
    pub floor_ms: u64,
    /// First time part that is not usable.
    pub ceiling_ms: u64,
    /// Milliseconds it lives, counted from when the holder asked.
    pub ttl_ms: u32,
    /// The worker's highest logged XID under this or earlier leases.
    pub begun_through: Option<Xid>,
}

/// The two ways a transaction can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Everywhere.
    Commit,
    /// Nowhere.
    RollBack,
}

/// Why a transaction rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollBackReason {
    /// The application asked for it and said this.
    Requested(String),
    /// The deadline passed before a decision.
    TimedOut,
    /// Commit was asked, but this branch did not report its local commit in time.
    BranchUnfinished(BranchId),
    /// Its worker's lease ended: the process died or was cut off.
    LeaseEnded,
    /// The agent of this branch could not tell whether its local commit happened.
    LocalCommitUnknown(BranchId, String),
    /// The step of a saga that is this branch could not be done.
    StepFailed(BranchId, String),
    /// This branch was kept open, and could be neither prepared nor committed.
    BranchFailed(BranchId, String),
}

/// Why a command was not carried out, in order of precedence: the first that applies is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A part of the request is over its limit. The caller must make it smaller.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The lock keys are not sorted or one stands twice, or another part has no sense.
    Malformed(&'static str),
    /// The worker's lease is unknown, has ended or belongs to another process: take a new one.
    LeaseEnded,
    /// All worker ids are taken; try again when one has ended.
    NoWorkerLeft,
    /// The XID is outside its worker's leased range, or not above its earlier ones.
    OutsideLease,
    /// Too many transactions are open; try again later.
    TooManyOpen {
        /// How many may be open.
        limit: u64,
    },
    /// The worker has not begun this XID.
    NotBegun,
    /// It ended too long ago to know how.
    Forgotten,
    /// The same request id came before with other content. The caller has a bug.
    DifferentContent,
    /// The request was withdrawn before.
    Withdrawn,
    /// The transaction has another plan, and has one at most.
    OtherSaga,
    /// The transaction is decided; nothing can join or change it.
    AlreadyDecided(Decision),
    /// A commit was asked for; no branch can join.
    CommitAsked,
    /// The resource was never bound to a database here, nor named as an action.
    ResourceUnknown,
    /// The resource is an action: databases, row locks and branches of AT and XA have no place
    /// there.
    ResourceIsAction,
    /// The resource is a database: it cannot be an action's name, nor have branches of TCC, Saga
    /// or 3PC.
    ResourceIsDatabase,
    /// A step's action was never served by an agent, or the name is a database's.
    ActionUnknown {
        /// The name.
        action: Resource,
    },
    /// The resource's name belongs to another database, or the database to another name.
    ResourceMismatch {
        /// The name in the existing binding.
        resource: Resource,
        /// The database in the existing binding.
        database: DatabaseId,
    },
    /// The transaction has as many branches or requests as it may have.
    TooManyBranches {
        /// How many it may have.
        limit: u64,
    },
    /// The payloads of all open branches take as much as they may; try again later.
    PayloadsFull {
        /// How many bytes they may take.
        limit: u64,
    },
    /// Too many requests wait; try again later.
    TooManyWaiting {
        /// How many may wait.
        limit: u64,
    },
    /// A holder is rolling back or stuck and needs the caller's local locks: release them, then
    /// try again.
    HolderRollingBack {
        /// The holder.
        holder: Xid,
    },
    /// A holder stands still in a database and may need the caller's local locks or connection:
    /// release them, then try again.
    HolderBlocked {
        /// The transaction in the way.
        holder: Xid,
    },
    /// Waiting would close this cycle of transactions, each waiting for the next and the last for
    /// the first.
    Deadlock {
        /// Begins with the refused one.
        cycle: Vec<Xid>,
    },
    /// Not granted within the wait limit, or waiting was not wanted.
    LockWaitTimedOut {
        /// The transaction in the way.
        holder: Xid,
    },
    /// There is no such branch.
    BranchUnknown,
    /// The branch is in a state that does not allow this.
    BranchState(&'static str),
    /// Repair: the branch is not stuck.
    NotStuck,
}

/// How a transaction stands, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is known: look at the transaction.
    Known,
    /// Above what its worker has begun.
    NotBegun,
    /// At or below what its worker has begun, and absent.
    Forgotten,
}

/// The next time at which an `Expire` would change something.
pub type NextDeadline = Option<Timestamp>;
