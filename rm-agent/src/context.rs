//! Where the transaction that a call belongs to comes from.

use std::time::Duration;

use accede_link::context::TransactionContext;

use crate::global_lock;

/// What a local transaction is that begins now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Runs untouched.
    Plain,
    /// Is outside of any global transaction and looks at row locks before it commits; it waits
    /// so long at most, or as long as its pool says.
    Checked(Option<Duration>),
    /// Is a branch.
    Branch(TransactionContext),
}

impl Kind {
    /// As the running task wants it.
    pub(crate) fn of_task() -> Self {
        match (accede_link::context::current(), global_lock::limit()) {
            (Some(context), _) => Self::Branch(context),
            (None, Some(limit)) => Self::Checked(limit),
            (None, None) => Self::Plain,
        }
    }

    /// Outside of any global transaction; a branch inside of one, which must not wait for itself.
    pub(crate) fn checked() -> Self {
        match Self::of_task() {
            Self::Plain => Self::Checked(None),
            other => other,
        }
    }

    /// How long it waits for locks, if it may not run untouched.
    pub(crate) fn patience(self, of_pool: Duration) -> Duration {
        let limit = match self {
            Self::Plain => None,
            Self::Checked(limit) => limit,
            Self::Branch(context) => context.remaining(),
        };
        limit.map_or(of_pool, |limit| limit.min(of_pool))
    }

    /// The global transaction that it belongs to.
    pub(crate) fn xid(self) -> Option<accede_proto::Xid> {
        match self {
            Self::Plain | Self::Checked(_) => None,
            Self::Branch(context) => Some(context.xid()),
        }
    }
}
