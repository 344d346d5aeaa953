//! One branch on its way through phase one.

use accede_core::{BranchId, RequestId, Xid};

use crate::{database::LocalId, message::Peer, work::Work};

/// One branch on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: (Peer, u64),
    pub(super) xid: Xid,
    pub(super) work: Work,
    pub(super) attempts: u32,
    pub(super) local: LocalId,
    /// Statements that are done.
    pub(super) done: usize,
    /// A branch that registered before its local transaction began, and its give-up time.
    pub(super) granted: Option<(RequestId, BranchId, u64)>,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between two attempts.
    Pausing,
    /// Takes local locks.
    Locking,
    /// Waits for the answer to its request, which was first sent then.
    Asking { request: RequestId, since: u64 },
    /// The message with COMMIT is on its way or being answered.
    Committing {
        request: RequestId,
        branch: BranchId,
        give_up_at: u64,
    },
}

impl Job {
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.phase, Phase::Committing { .. })
    }

    pub(super) fn asking(&self) -> Option<RequestId> {
        match self.phase {
            Phase::Asking { request, .. } => Some(request),
            _ => None,
        }
    }
}
