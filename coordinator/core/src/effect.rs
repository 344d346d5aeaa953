//! What must happen outside as the result of a command. Only the leader carries effects out, and
//! every effect may be carried out twice.

use alloc::{boxed::Box, vec::Vec};

use crate::{
    id::{Attempt, BranchId, Epoch, ProcessId, Resource, Xid},
    mode::Mode,
    payload::Payload,
    reply::{Decision, Reply, Waiter},
    saga::{StepOrder, StepOver},
};

/// One thing to do outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell an agent to finish a branch; the outcome comes back as `FinishBranch`.
    Order(Order),
    /// Take back an order that no agent has taken yet: its branch is finished otherwise.
    DropOrder {
        /// The transaction.
        xid: Xid,
        /// The branch.
        branch: BranchId,
    },
    /// Answer those who were told [`Reply::Waiting`]. Nobody left to answer is no error.
    Answer {
        /// Who waits.
        waiter: Waiter,
        /// What to tell them.
        reply: Reply,
    },
    /// A transaction was decided: for logs and metrics.
    Decided {
        /// The transaction.
        xid: Xid,
        /// How.
        decision: Decision,
    },
    /// All branches of a transaction are finished: for logs and metrics.
    Ended {
        /// The transaction.
        xid: Xid,
        /// How it was decided.
        decision: Decision,
    },
    /// An attempt to do a step of a saga is over: for logs and metrics.
    StepOver {
        /// The transaction.
        xid: Xid,
        /// The step's branch.
        branch: BranchId,
        /// How it went.
        how: StepOver,
    },
    /// A branch needs a person: for logs and alarms.
    Stuck {
        /// The transaction.
        xid: Xid,
        /// The branch.
        branch: BranchId,
    },
}

/// Finish a branch this way. Goes to the agent that registered it, else to any agent of the
/// resource; waits visibly while there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The transaction.
    pub xid: Xid,
    /// The branch.
    pub branch: BranchId,
    /// Where it is.
    pub resource: Resource,
    /// How its kind is finished.
    pub mode: Mode,
    /// The agent that registered it.
    pub agent: ProcessId,
    /// What to do.
    pub action: Action,
    /// Which attempt this is.
    pub attempt: Attempt,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The branch reported its phase one: what that left must exist. [`Mode`] says what it means
    /// if not.
    pub was_done: bool,
    /// What it was registered with; the input of a saga's step.
    pub payload: Payload,
    /// For steps of a saga.
    pub step: Option<Box<StepOrder>>,
}

/// What an order asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make it final: drop what only a rollback would need, confirm what was tried.
    Commit,
    /// Undo, cancel or compensate; in AT only if the rows are as the branch left them.
    RollBack,
    /// Undo whatever the rows hold now; an operator said so.
    RollBackForced,
    /// Keep things as they are and drop what a rollback needs; an operator said so.
    Accept,
    /// Of 3PC: hear that every branch is done and the commit decided; the order to commit follows.
    PreCommit,
    /// Do a step of a saga, before any decision.
    Run,
    /// Of XA, before any decision: prepare the local transaction that was kept open.
    Prepare,
    /// Of XA: commit the local transaction that was kept open, in one phase. The answer decides.
    CommitOnePhase,
}

/// The effects of one command, in order.
pub type Effects = Vec<Effect>;
