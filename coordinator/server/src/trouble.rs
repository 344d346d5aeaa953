//! Why a request did not reach the state machine, or its answer is not known.

use accede_core::Reply;
use accede_log::ProposeError;

/// What is told instead of a reply. Nothing here is the request's own fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Shed: the queue holds too much. Nothing was done; try again later.
    Overloaded,
    /// It may or may not be in the log: ask again with the same id.
    Unknown(String),
    /// Another daemon leads, or none. Nothing was done.
    NotLeader(Option<u64>),
    /// The daemon is shutting down. Nothing was done.
    ShuttingDown,
}

/// What a caller gets.
pub(crate) type Answer = Result<Reply, Trouble>;

impl From<ProposeError> for Trouble {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader(leader),
            ProposeError::Overloaded { .. } => Self::Overloaded,
            // Not queued, but the daemon is about to end: its successor knows best.
            other => Self::Unknown(other.to_string()),
        }
    }
}
