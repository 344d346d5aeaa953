//! What can go wrong, sorted by what the caller can do.

use std::{fmt, time::Duration};

use accede_link::{
    context::NoTransaction,
    session::{ConnectProblem, SessionError},
};
use accede_proto::{
    Xid,
    v1::{self, refusal::Code},
};

use crate::{Committed, NoXid, RolledBack};

/// Everything that starting, joining and ending transactions can end with.
///
/// The error type of a function under `#[global_transaction]` must be able to
/// hold it: `From<accede_tm_client::Error>`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The commit did not come back as committed; see there.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The rollback did not come back as rolled back; see there.
    #[error(transparent)]
    RollBack(#[from] RollBackError),
    /// Retry later: no transaction can be begun now. Nothing was done.
    #[error("cannot begin a transaction: {reason} (waited {waited:?}){}", because(.problem.as_ref()))]
    CannotBegin {
        /// What is missing.
        reason: NoXid,
        /// How long the call waited for a lease.
        waited: Duration,
        /// Why there is no connection to the coordinator, if there is none.
        problem: Option<ConnectProblem>,
    },
    /// Retry later: too many begins are not logged by the coordinator yet.
    /// Nothing was done.
    #[error(
        "cannot begin a transaction: {unlogged} begins wait for the coordinator already; retry later"
    )]
    TooManyBegins {
        /// The bound that was reached.
        unlogged: usize,
    },
    /// The client was shut down; make a new one. Nothing was done.
    #[error("the transaction client was shut down")]
    ShutDown,
    /// Correct the program: an option is out of its bounds. Nothing was done.
    #[error("{option} {problem}")]
    InvalidOption {
        /// Which one.
        option: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// Correct the program or the caller: [`Propagation::Mandatory`](crate::Propagation)
    /// and no transaction. Nothing was done.
    #[error("{name:?} must run inside a transaction: {source}")]
    Required {
        /// The work that was asked for.
        name: String,
        /// Where a transaction can get lost.
        source: NoTransaction,
    },
    /// Correct the program or the caller: [`Propagation::Never`](crate::Propagation)
    /// and a transaction. Nothing was done.
    #[error("{name:?} must not run inside a transaction, but was called in {xid}")]
    Forbidden {
        /// The work that was asked for.
        name: String,
        /// The caller's transaction.
        xid: Xid,
    },
    /// Correct the program: a hook for a transaction that this client did not begin, or that has
    /// ended. Who began it knows when it ends: give the hook there.
    #[error(
        "transaction {xid} was not begun by this client, or has ended: only who begins it can run hooks"
    )]
    BegunElsewhere {
        /// The caller's transaction.
        xid: Xid,
    },
    /// Correct the program: hooks are for a few things around a transaction. This one was not taken.
    #[error("transaction {xid} has {limit} hooks already")]
    TooManyHooks {
        /// The caller's transaction.
        xid: Xid,
        /// The most that it may have.
        limit: usize,
    },
    /// Retry later: the coordinator did not tell where the transaction stands.
    #[error("cannot tell the outcome of transaction {xid}: {reason}; ask again")]
    OutcomeUnavailable {
        /// Which one.
        xid: Xid,
        /// What happened instead of an answer.
        reason: String,
    },
    /// Correct the configuration: see the message.
    #[error("{0}")]
    Configuration(SessionError),
}

fn because(problem: Option<&ConnectProblem>) -> String {
    problem.map_or_else(String::new, |problem| format!("; {problem}"))
}

/// A commit that did not come back as committed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It was decided to roll back: nothing of it is or stays permanent.
    #[error("{0}")]
    RolledBack(RolledBack),
    /// A hook before the commit failed, so it was rolled back (if the coordinator could not be
    /// told, by its time-out): nothing of it stays permanent.
    #[error("transaction {xid} was rolled back, a hook prevented its commit: {reason}")]
    Prevented {
        /// Which one.
        xid: Xid,
        /// What the hook said.
        reason: String,
    },
    /// The coordinator never began it, so no branch could join: nothing of it is
    /// permanent.
    #[error("transaction {xid} was never begun: {refusal}")]
    NeverBegun {
        /// Which one.
        xid: Xid,
        /// Why not.
        refusal: Refusal,
    },
    /// **Not known**: committed, rolled back or still undecided. Neither repeat the
    /// work nor treat it as failed before
    /// [`TransactionClient::outcome`](crate::TransactionClient::outcome) has told.
    #[error("whether transaction {xid} committed is not known: {reason}; ask for its outcome")]
    Unknown {
        /// Which one.
        xid: Xid,
        /// What happened instead of an answer.
        reason: String,
    },
    /// It ended so long ago that the coordinator has forgotten how.
    #[error("transaction {xid} ended long ago, how is forgotten")]
    Forgotten {
        /// Which one.
        xid: Xid,
    },
    /// The coordinator refused to decide; the transaction will be rolled back
    /// when its time-out passes. Correct what the refusal names.
    #[error("the commit of transaction {xid} was refused: {refusal}")]
    Refused {
        /// Which one.
        xid: Xid,
        /// Why.
        refusal: Refusal,
    },
}

impl CommitError {
    /// The transaction that it is about.
    #[must_use]
    pub fn xid(&self) -> Xid {
        match self {
            Self::RolledBack(back) => back.xid,
            Self::Prevented { xid, .. }
            | Self::NeverBegun { xid, .. }
            | Self::Unknown { xid, .. }
            | Self::Forgotten { xid }
            | Self::Refused { xid, .. } => *xid,
        }
    }

    /// Whether the transaction may have committed all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Forgotten { .. })
    }
}

/// A rollback that did not come back as rolled back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollBackError {
    /// It was decided to commit before.
    #[error("transaction {} is committed, it cannot be rolled back", .0.xid)]
    Committed(Committed),
    /// Not known. The transaction's time-out rolls it back if nothing else does.
    #[error(
        "whether transaction {xid} is rolled back yet is not known: {reason}; its time-out does it if nothing else does"
    )]
    Unknown {
        /// Which one.
        xid: Xid,
        /// What happened instead of an answer.
        reason: String,
    },
    /// It ended so long ago that the coordinator has forgotten how.
    #[error("transaction {xid} ended long ago, how is forgotten")]
    Forgotten {
        /// Which one.
        xid: Xid,
    },
    /// The coordinator refused; the transaction's time-out rolls it back.
    #[error("the rollback of transaction {xid} was refused: {refusal}")]
    Refused {
        /// Which one.
        xid: Xid,
        /// Why.
        refusal: Refusal,
    },
}

/// What the coordinator said when it did not carry out a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub code: Code,
    /// For people: names the thing, the reason and what to do.
    pub message: String,
}

impl Refusal {
    pub(crate) fn from_wire(refusal: v1::Refusal) -> Self {
        Self {
            code: refusal.code(),
            message: refusal.message,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            f.write_str(self.code.as_str_name())
        } else {
            f.write_str(&self.message)
        }
    }
}

/// So that a gRPC handler may be a transaction: rolled back is `ABORTED`, not
/// known is `UNKNOWN`, nothing done and retry later is `UNAVAILABLE`.
impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Commit(
                CommitError::RolledBack(_)
                | CommitError::Prevented { .. }
                | CommitError::NeverBegun { .. },
            ) => Self::aborted(text),
            Error::Commit(CommitError::Unknown { .. } | CommitError::Forgotten { .. })
            | Error::RollBack(RollBackError::Unknown { .. } | RollBackError::Forgotten { .. }) => {
                Self::unknown(text)
            }
            Error::CannotBegin { .. }
            | Error::TooManyBegins { .. }
            | Error::ShutDown
            | Error::OutcomeUnavailable { .. } => Self::unavailable(text),
            Error::Required { .. }
            | Error::Forbidden { .. }
            | Error::RollBack(RollBackError::Committed(_)) => Self::failed_precondition(text),
            Error::Commit(CommitError::Refused { .. })
            | Error::RollBack(RollBackError::Refused { .. })
            | Error::InvalidOption { .. }
            | Error::BegunElsewhere { .. }
            | Error::TooManyHooks { .. }
            | Error::Configuration(_) => Self::internal(text),
        }
    }
}

/// Can hold what starting and ending a transaction may end with. Implemented for
/// every type with `From<accede_tm_client::Error>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot hold the errors of a global transaction",
    label = "the error type must implement `From<accede_tm_client::Error>`",
    note = "a commit that rolled back or is not known must be told: with thiserror, add a variant \
            like `Transaction(#[from] accede_tm_client::Error)`"
)]
pub trait HoldsTransactionError {
    /// Wraps the error.
    fn from_transaction(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Error>> HoldsTransactionError for E {
    fn from_transaction(error: Error) -> Self {
        E::from(error)
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code as GrpcCode, Status};

    use super::*;

    #[test]
    fn a_grpc_caller_hears_what_it_can_do() {
        let xid = Xid::from_u64(0x4d).expect("an id");
        let refusal = Refusal {
            code: Code::Invalid,
            message: String::new(),
        };
        let reason = || "no answer".to_owned();
        let cases: [(Error, GrpcCode, &str); 8] = [
            (
                CommitError::Unknown {
                    xid,
                    reason: reason(),
                }
                .into(),
                GrpcCode::Unknown,
                "whether transaction 000000000000004d committed is not known",
            ),
            (
                CommitError::Forgotten { xid }.into(),
                GrpcCode::Unknown,
                "ended long ago",
            ),
            (
                CommitError::NeverBegun {
                    xid,
                    refusal: refusal.clone(),
                }
                .into(),
                GrpcCode::Aborted,
                "never begun: INVALID",
            ),
            (
                CommitError::Refused { xid, refusal }.into(),
                GrpcCode::Internal,
                "was refused",
            ),
            (
                RollBackError::Unknown {
                    xid,
                    reason: reason(),
                }
                .into(),
                GrpcCode::Unknown,
                "its time-out does it",
            ),
            (
                Error::OutcomeUnavailable {
                    xid,
                    reason: reason(),
                },
                GrpcCode::Unavailable,
                "ask again",
            ),
            (
                Error::Forbidden {
                    name: "n".into(),
                    xid,
                },
                GrpcCode::FailedPrecondition,
                "must not run inside",
            ),
            (
                Error::CannotBegin {
                    reason: NoXid::RangeUsedUp,
                    waited: Duration::from_secs(5),
                    problem: None,
                },
                GrpcCode::Unavailable,
                "all ids of the lease are used (waited 5s)",
            ),
        ];
        for (error, code, text) in cases {
            let status = Status::from(error);
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(text), "{status}");
        }
    }
}
