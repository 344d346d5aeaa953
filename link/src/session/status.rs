//! Whether a session is connected, for health checks and logs.

use tokio::time::Instant;

use super::{ClusterId, ConnectProblem};

/// Where a session stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SessionStatus {
    /// There is no connection; the session keeps trying.
    Connecting {
        /// What the last attempt ran into; `None` before the first one has failed.
        problem: Option<ConnectProblem>,
        /// When the connection was lost or the session started.
        since: Instant,
    },
    /// The opening answer came; requests flow.
    Connected {
        /// The coordinator's address.
        address: String,
        /// The coordinator's cluster.
        cluster: ClusterId,
    },
    /// Closed by this process.
    Closed,
}

impl SessionStatus {
    /// Whether requests flow now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}
