//! What the coordinator says when it does not carry out a branch's request.

use std::{fmt, time::Duration};

use accede_proto::{Xid, v1};

/// Why the coordinator refused; one name per reason, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The request breaks a rule of the protocol; the caller must change it.
    Invalid,
    /// The request is larger than the coordinator accepts.
    TooLarge,
    /// The transaction was never begun at this coordinator.
    NotBegun,
    /// The transaction ended so long ago that its outcome is no longer known.
    Forgotten,
    /// The transaction is decided; no branch may join it any more.
    AlreadyDecided,
    /// The same request id came before with other content: a bug of the caller.
    DifferentContent,
    /// The request was withdrawn by its own agent.
    Withdrawn,
    /// A row lock is held by a transaction that is rolling back and needs the
    /// local locks of this branch: roll back locally, then run it again.
    HolderRollingBack,
    /// A row lock is held by a transaction that stands still in a database and may
    /// need the local locks or the connection of this branch: roll back locally,
    /// then run it again.
    HolderBlocked,
    /// Waiting would close a cycle. Roll the whole transaction back.
    Deadlock,
    /// Another transaction kept a row lock for longer than the wait limit.
    LockWaitTimedOut,
    /// The coordinator is busy; run the local transaction again a little later.
    Overloaded,
    /// The agent's or worker's lease has ended.
    LeaseEnded,
    /// The resource name belongs to another database.
    ResourceMismatch,
    /// The coordinator does not know the resource.
    ResourceUnknown,
    /// The member that was asked does not lead.
    NotLeader,
    /// What became of the request is unknown.
    UnknownOutcome,
    /// The branch is not in a state that allows the request.
    BranchState,
    /// Too many transactions, branches or waiting requests.
    LimitReached,
    /// The coordinator is shutting down.
    ShuttingDown,
    /// The agent belongs to another cluster.
    OtherCluster,
    /// No coordinator could be reached in time; never sent by one.
    Unreachable,
    /// A code of a newer protocol that this version does not know.
    Other,
}

impl RefusalCode {
    /// Whether the same local transaction, rolled back and run again, may succeed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::HolderRollingBack
                | Self::HolderBlocked
                | Self::Overloaded
                | Self::NotLeader
                | Self::UnknownOutcome
        )
    }
}

impl From<v1::refusal::Code> for RefusalCode {
    fn from(code: v1::refusal::Code) -> Self {
        use v1::refusal::Code;
        match code {
            // No branch starts a saga.
            Code::Unspecified | Code::OtherSaga => Self::Other,
            Code::Invalid => Self::Invalid,
            Code::TooLarge => Self::TooLarge,
            Code::NotBegun => Self::NotBegun,
            Code::Forgotten => Self::Forgotten,
            Code::AlreadyDecided => Self::AlreadyDecided,
            Code::DifferentContent => Self::DifferentContent,
            Code::Withdrawn => Self::Withdrawn,
            Code::HolderRollingBack => Self::HolderRollingBack,
            Code::HolderBlocked => Self::HolderBlocked,
            Code::Deadlock => Self::Deadlock,
            Code::LockWaitTimedOut => Self::LockWaitTimedOut,
            Code::Overloaded => Self::Overloaded,
            Code::LeaseEnded => Self::LeaseEnded,
            Code::ResourceMismatch => Self::ResourceMismatch,
            Code::ResourceUnknown => Self::ResourceUnknown,
            Code::NotLeader => Self::NotLeader,
            Code::UnknownOutcome => Self::UnknownOutcome,
            Code::BranchState => Self::BranchState,
            Code::LimitReached => Self::LimitReached,
            Code::ShuttingDown => Self::ShuttingDown,
            Code::OtherCluster => Self::OtherCluster,
        }
    }
}

/// A request of a branch that the coordinator did not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub code: RefusalCode,
    /// For people: names the thing, the reason and what to do.
    pub message: String,
    /// How long to wait before a retry can help, if the coordinator said so.
    pub retry_after: Option<Duration>,
    /// The transaction in the way, if there is one.
    pub holder: Option<Xid>,
}

impl Refused {
    /// A refusal with nothing but a reason.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
            holder: None,
        }
    }

    /// Whether the same local transaction, rolled back and run again, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }
}

impl From<&v1::Refusal> for Refused {
    fn from(refusal: &v1::Refusal) -> Self {
        let code =
            v1::refusal::Code::try_from(refusal.code).map_or(RefusalCode::Other, RefusalCode::from);
        Self {
            code,
            message: refusal.message.clone(),
            retry_after: (refusal.retry_after_ms > 0)
                .then(|| Duration::from_millis(refusal.retry_after_ms.into())),
            holder: Xid::from_u64(refusal.holder),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the coordinator refused ({:?}): {}",
            self.code, self.message
        )?;
        if let Some(holder) = self.holder {
            write!(f, " (in the way: transaction {holder})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_wire_form() {
        let refused = Refused::from(&v1::Refusal {
            code: v1::refusal::Code::HolderRollingBack.into(),
            message: "row is busy".to_owned(),
            retry_after_ms: 20,
            holder: 77,
            ..v1::Refusal::default()
        });
        assert!(refused.is_retryable());
        assert_eq!(refused.retry_after, Some(Duration::from_millis(20)));
        assert_eq!(
            refused.to_string(),
            "the coordinator refused (HolderRollingBack): row is busy \
             (in the way: transaction 000000000000004d)"
        );
    }

    #[test]
    fn unknown_codes_are_not_retried() {
        let refused = Refused::from(&v1::Refusal {
            code: 9_999,
            ..v1::Refusal::default()
        });
        assert_eq!(refused.code, RefusalCode::Other);
        assert!(!refused.is_retryable());
    }
}
