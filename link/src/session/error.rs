//! What can go wrong between a client and the coordinator.

use std::{fmt, time::Duration};

use accede_proto::v1::Refusal;

/// Why a request has no good answer, sorted by what the caller can do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The coordinator said no and changed nothing. What helps is in the
    /// refusal's code.
    #[error("the coordinator refused: {}", .0.message)]
    Refused(Refusal),
    /// Retry later: the request certainly never left this process.
    #[error(
        "no connection to the coordinator within {waited:?}, nothing was sent{}; start it or check its address, then retry",
        because(.problem.as_ref())
    )]
    NotSent {
        /// How long the call waited.
        waited: Duration,
        /// What the last attempt to connect ran into.
        problem: Option<ConnectProblem>,
    },
    /// Ask again with the same id: the request may or may not have been carried out.
    #[error("what became of the request is not known: {reason}; ask again with the same id")]
    Unknown {
        /// What happened instead of an answer.
        reason: String,
    },
    /// Retry later: too many requests of this process are open, nothing was sent.
    #[error("{open} requests to the coordinator are open already, nothing was sent; retry later")]
    Busy {
        /// The bound that was reached.
        open: usize,
    },
    /// Give up: the request is larger than a frame may be. Nothing was sent.
    #[error("the request has {bytes} bytes, a frame may have at most {limit}; make it smaller")]
    TooLarge {
        /// Encoded length of the request.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Give up: the session was closed by this process. Nothing was sent.
    #[error("the session with the coordinator is closed, nothing was sent")]
    Closed,
    /// Fix the configuration: this is no address of a coordinator.
    #[error("{address:?} is no coordinator address: {reason}; give one like http://127.0.0.1:7700")]
    InvalidAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Fix the configuration: the list of addresses is empty.
    #[error("no coordinator address was given; give at least one, like http://127.0.0.1:7700")]
    NoAddress,
}

fn because(problem: Option<&ConnectProblem>) -> String {
    problem.map_or_else(String::new, |problem| format!(" ({problem})"))
}

/// Why there is no connection at the moment. The session keeps trying.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectProblem {
    /// Nothing answered, or the connection broke.
    #[error("{address}: {reason}")]
    Unreachable {
        /// The address that was tried.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// The coordinator refused to open the session.
    #[error("{address} refused the session: {}", .refusal.message)]
    Refused {
        /// The address that was tried.
        address: String,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// Whatever answers there does not speak this protocol.
    #[error("{address} does not answer like a coordinator: {reason}")]
    NotACoordinator {
        /// The address that was tried.
        address: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The coordinator belongs to another cluster than this process or its data.
    /// Nothing is sent to it: data of two clusters must not mix.
    #[error(
        "{address} belongs to another cluster ({theirs}) than this process ({ours}); correct the coordinator addresses"
    )]
    OtherCluster {
        /// The address that was tried.
        address: String,
        /// The cluster that this process belongs to.
        ours: String,
        /// The cluster that answered, or what it said.
        theirs: String,
    },
    /// This process asked for a new opening; the session connects again at once.
    #[error("the session with {address} is opened anew")]
    OpenedAnew {
        /// The address of the connection that ended for it.
        address: String,
    },
    /// The client's own side did not accept the opening answer.
    #[error("the session with {address} was not accepted: {reason}")]
    NotAccepted {
        /// The address that was tried.
        address: String,
        /// Why not.
        reason: String,
    },
}

/// The id of a cluster of coordinators: 16 bytes, shown like a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// Takes the id's bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the wire form; `None` when it has not 16 bytes.
    #[must_use]
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_reads_like_a_uuid() {
        let id = ClusterId::from_wire(&[0xab; 16]).expect("16 bytes");
        assert_eq!(id.to_string(), "abababab-abab-abab-abab-abababababab");
        assert_eq!(ClusterId::from_wire(id.as_bytes()), Some(id));
        assert_eq!(ClusterId::from_wire(&[1; 15]), None);
    }

    #[test]
    fn messages_name_the_thing_and_what_to_do() {
        let not_sent = SessionError::NotSent {
            waited: Duration::from_secs(3),
            problem: Some(ConnectProblem::Unreachable {
                address: "http://127.0.0.1:7700".into(),
                reason: "connection refused".into(),
            }),
        };
        let text = not_sent.to_string();
        assert!(
            text.contains("nothing was sent (http://127.0.0.1:7700: connection refused)"),
            "{text}"
        );
        let unknown = SessionError::Unknown {
            reason: "the connection broke".into(),
        };
        assert!(unknown.to_string().contains("ask again with the same id"));
    }
}
