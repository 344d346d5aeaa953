//! Where a transaction stands and what was decided.

use std::fmt;

use accede_proto::{
    Xid,
    v1::{self, Decision, Status, roll_back_reason::Code},
};

/// Where a transaction stands: the answer to
/// [`TransactionClient::outcome`](crate::TransactionClient::outcome).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Not decided. It still can be committed or rolled back; ask again later.
    Active,
    /// Decided: all its branches are or will be permanent.
    Committed(Committed),
    /// Decided: all its branches are or will be undone.
    RolledBack(RolledBack),
    /// Its begin has not reached the coordinator and may never do so; nothing was changed.
    NotBegun,
    /// It ended so long ago that the coordinator has forgotten how.
    Forgotten,
}

/// A transaction that was decided to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Which one.
    pub xid: Xid,
    /// How far its branches are.
    pub phase_two: PhaseTwo,
}

/// A transaction that was decided to roll back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Which one.
    pub xid: Xid,
    /// Why.
    pub cause: RollBackCause,
    /// More about why, for people; for [`RollBackCause::Requested`] what the
    /// application said.
    pub detail: String,
    /// How far its branches are.
    pub phase_two: PhaseTwo,
}

/// How far the branches of a decided transaction are. The decision stands in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PhaseTwo {
    /// The coordinator still finishes branches, by itself.
    Running,
    /// Every branch is finished.
    Finished,
    /// At least one branch needs a person: `accede tx why <xid>`.
    Stuck,
}

/// Why a transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RollBackCause {
    /// The application asked for it.
    Requested,
    /// The deadline passed before a decision.
    TimedOut,
    /// Commit was asked, but a branch never reported that its local commit is
    /// done: a call whose outcome its caller did not wait for, or a dead service.
    BranchUnfinished,
    /// The process that began it lost its lease: it died, was paused or cut off.
    LeaseEnded,
    /// A service could not tell whether its local commit happened.
    LocalCommitUnknown,
    /// A step of its saga could not be done.
    StepFailed,
    /// A branch of XA could be neither prepared nor committed after all.
    BranchFailed,
    /// A cause that this version does not know.
    Other,
}

impl RollBackCause {
    /// Whether the same work may succeed when it is done again in a new transaction.
    #[must_use]
    pub fn may_be_tried_again(self) -> bool {
        !matches!(self, Self::Requested)
    }
}

impl fmt::Display for RollBackCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "the application asked for it",
            Self::TimedOut => "its time-out passed before a decision",
            Self::BranchUnfinished => "a branch never reported that its local commit is done",
            Self::LeaseEnded => "the process that began it lost its lease",
            Self::LocalCommitUnknown => {
                "a service could not tell whether its local commit happened"
            }
            Self::StepFailed => "a step of its saga could not be done",
            Self::BranchFailed => "a branch could be neither prepared nor committed",
            Self::Other => "a cause that this version does not know",
        })
    }
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "transaction {} was rolled back: {}",
            self.xid, self.cause
        )?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl RolledBack {
    fn from_wire(xid: Xid, outcome: v1::Outcome, phase_two: PhaseTwo) -> Self {
        Self::of_reason(xid, outcome.reason, phase_two)
    }

    pub(crate) fn of_reason(
        xid: Xid,
        reason: Option<v1::RollBackReason>,
        phase_two: PhaseTwo,
    ) -> Self {
        let (code, detail) =
            reason.map_or_else(Default::default, |reason| (reason.code(), reason.detail));
        let cause = match code {
            Code::Requested => RollBackCause::Requested,
            Code::TimedOut => RollBackCause::TimedOut,
            Code::BranchUnfinished => RollBackCause::BranchUnfinished,
            Code::LeaseEnded => RollBackCause::LeaseEnded,
            Code::LocalCommitUnknown => RollBackCause::LocalCommitUnknown,
            Code::StepFailed => RollBackCause::StepFailed,
            Code::BranchFailed => RollBackCause::BranchFailed,
            Code::Unspecified => RollBackCause::Other,
        };
        Self {
            xid,
            cause,
            detail,
            phase_two,
        }
    }
}

/// Reads what the coordinator said about `xid`; a sentence for people when that
/// makes no sense.
pub(crate) fn from_wire(xid: Xid, outcome: v1::Outcome) -> Result<Outcome, String> {
    if outcome.xid != xid.as_u64() {
        return Err(format!(
            "the answer is about transaction {:016x}",
            outcome.xid
        ));
    }
    let phase_two = match outcome.status() {
        Status::Committed | Status::RolledBack => PhaseTwo::Finished,
        Status::Stuck => PhaseTwo::Stuck,
        Status::Active
        | Status::Delegated
        | Status::PreCommitted
        | Status::Committing
        | Status::RollingBack
        | Status::Unspecified => PhaseTwo::Running,
    };
    match (outcome.decision(), outcome.status()) {
        (Decision::Commit, _) => Ok(Outcome::Committed(Committed { xid, phase_two })),
        (Decision::RollBack, _) => Ok(Outcome::RolledBack(RolledBack::from_wire(
            xid, outcome, phase_two,
        ))),
        (Decision::Unspecified, Status::Active | Status::Delegated) => Ok(Outcome::Active),
        (Decision::Unspecified, status) => Err(format!(
            "the answer says {} without a decision",
            status.as_str_name()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid() -> Xid {
        Xid::from_u64(77).expect("an id")
    }

    fn wire(status: Status, decision: Decision, code: Code) -> v1::Outcome {
        v1::Outcome {
            xid: 77,
            status: status.into(),
            decision: decision.into(),
            reason: Some(v1::RollBackReason {
                code: code.into(),
                detail: "d".into(),
            }),
        }
    }

    #[test]
    fn every_cause_has_its_name() {
        let causes = [
            (
                Code::Requested,
                RollBackCause::Requested,
                "asked for it (d)",
            ),
            (Code::TimedOut, RollBackCause::TimedOut, "time-out"),
            (
                Code::BranchUnfinished,
                RollBackCause::BranchUnfinished,
                "never reported",
            ),
            (
                Code::LeaseEnded,
                RollBackCause::LeaseEnded,
                "lost its lease",
            ),
            (
                Code::LocalCommitUnknown,
                RollBackCause::LocalCommitUnknown,
                "could not tell",
            ),
            (
                Code::BranchFailed,
                RollBackCause::BranchFailed,
                "neither prepared nor",
            ),
            (Code::Unspecified, RollBackCause::Other, "does not know"),
        ];
        for (code, cause, text) in causes {
            let answer = wire(Status::RolledBack, Decision::RollBack, code);
            let Ok(Outcome::RolledBack(back)) = from_wire(xid(), answer) else {
                panic!("decided to roll back");
            };
            assert_eq!((back.cause, back.phase_two), (cause, PhaseTwo::Finished));
            assert!(back.to_string().contains(text), "{back}");
            assert_eq!(
                cause.may_be_tried_again(),
                cause != RollBackCause::Requested
            );
        }
    }

    #[test]
    fn the_decision_counts_not_the_status() {
        for (status, phase_two) in [
            (Status::PreCommitted, PhaseTwo::Running),
            (Status::Committing, PhaseTwo::Running),
            (Status::Committed, PhaseTwo::Finished),
            (Status::Stuck, PhaseTwo::Stuck),
        ] {
            let answer = wire(status, Decision::Commit, Code::Unspecified);
            let expected = Outcome::Committed(Committed {
                xid: xid(),
                phase_two,
            });
            assert_eq!(from_wire(xid(), answer), Ok(expected));
        }
        for status in [Status::Active, Status::Delegated] {
            let open = wire(status, Decision::Unspecified, Code::Unspecified);
            assert_eq!(from_wire(xid(), open), Ok(Outcome::Active));
        }
    }

    #[test]
    fn nonsense_is_named() {
        let odd = wire(Status::Stuck, Decision::Unspecified, Code::Unspecified);
        let error = from_wire(xid(), odd).expect_err("no decision");
        assert!(error.contains("STATUS_STUCK without a decision"), "{error}");
        let other = wire(Status::Active, Decision::Unspecified, Code::Unspecified);
        let error = from_wire(Xid::from_u64(78).expect("an id"), other).expect_err("another");
        assert!(error.contains("000000000000004d"), "{error}");
    }
}
