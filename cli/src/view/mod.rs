//! The coordinator's answers as JSON and as tables. The field names are the
//! stable part of `--json`: times end in their unit, ids are hex text.

mod row_locks;
mod status;
mod transactions;

pub(crate) use row_locks::RowLocksView;
pub(crate) use status::StatusView;
pub(crate) use transactions::{DetailView, ListView};

use accede_proto::v1::{Decision, Mode, RepairVerb, RollBackReason, Status, roll_back_reason};

/// A transaction id as people see it.
pub(crate) fn xid(bits: u64) -> String {
    format!("{bits:016x}")
}

/// Who waits for row locks: a transaction, or a local one outside of any.
pub(crate) fn waiter(bits: u64) -> String {
    match bits {
        0 => "a local transaction".to_owned(),
        bits => xid(bits),
    }
}

/// Bytes of an id as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The word for a status, the same that `--status` takes.
pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Unspecified => "unknown",
        Status::Active => "active",
        Status::PreCommitted => "pre-committed",
        Status::Delegated => "delegated",
        Status::Committing => "committing",
        Status::Committed => "committed",
        Status::RollingBack => "rolling-back",
        Status::RolledBack => "rolled-back",
        Status::Stuck => "stuck",
    }
}

/// The word for a decision; `None` while there is none.
pub(crate) fn decision_word(decision: Decision) -> Option<&'static str> {
    match decision {
        Decision::Unspecified => None,
        Decision::Commit => Some("commit"),
        Decision::RollBack => Some("roll-back"),
    }
}

/// The word for a mode.
pub(crate) fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Unspecified => "unknown",
        Mode::At => "AT",
        Mode::Xa => "XA",
        Mode::Tcc => "TCC",
        Mode::Saga => "Saga",
        Mode::ThreePhase => "3PC",
    }
}

/// The word for a repair verb, the same that `tx repair` takes.
pub(crate) fn verb_word(verb: RepairVerb) -> &'static str {
    match verb {
        RepairVerb::Unspecified => "unknown",
        RepairVerb::Retry => "retry",
        RepairVerb::Apply => "apply",
        RepairVerb::Accept => "accept",
        RepairVerb::Skip => "skip",
    }
}

/// Why a transaction rolled back, as the end of a sentence.
pub(crate) fn roll_back_sentence(reason: &RollBackReason) -> String {
    use roll_back_reason::Code;
    let detail = reason.detail.trim();
    let with = |text: &str| match detail {
        "" => text.to_owned(),
        _ => format!("{text}: {detail}"),
    };
    match reason.code() {
        Code::Unspecified => with("for a reason this version does not know"),
        Code::Requested => with("the application asked for it"),
        Code::TimedOut => with("its time-out passed before a decision"),
        Code::BranchUnfinished => {
            with("commit was asked for, but a branch did not report its local commit in time")
        }
        Code::LeaseEnded => with("the process that began it died or was cut off"),
        Code::StepFailed => with("a step of its saga could not be done"),
        Code::BranchFailed => {
            with("a branch that was kept open could be neither prepared nor committed")
        }
        Code::LocalCommitUnknown => {
            with("an agent could not tell whether its local commit happened")
        }
    }
}

/// The word for a reason to roll back.
pub(crate) fn reason_word(reason: &RollBackReason) -> &'static str {
    use roll_back_reason::Code;
    match reason.code() {
        Code::Unspecified => "unknown",
        Code::Requested => "requested",
        Code::TimedOut => "timed-out",
        Code::BranchUnfinished => "branch-unfinished",
        Code::LeaseEnded => "lease-ended",
        Code::LocalCommitUnknown => "local-commit-unknown",
        Code::StepFailed => "step-failed",
        Code::BranchFailed => "branch-failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_roll_back_has_a_sentence_and_a_word() {
        use roll_back_reason::Code;
        let mut seen = std::collections::BTreeSet::new();
        for code in [
            Code::Requested,
            Code::TimedOut,
            Code::BranchUnfinished,
            Code::LeaseEnded,
            Code::LocalCommitUnknown,
            Code::StepFailed,
            Code::BranchFailed,
        ] {
            let reason = RollBackReason {
                code: code.into(),
                detail: "because".to_owned(),
            };
            assert!(roll_back_sentence(&reason).ends_with(": because"));
            assert!(seen.insert(reason_word(&reason)));
        }
        let unknown = RollBackReason {
            code: 99,
            detail: String::new(),
        };
        assert_eq!(reason_word(&unknown), "unknown");
        assert!(!roll_back_sentence(&unknown).ends_with(':'));
    }

    #[test]
    fn ids_are_hex() {
        assert_eq!(xid(0x1f), "000000000000001f");
        assert_eq!(waiter(0x1f), "000000000000001f");
        assert_eq!(waiter(0), "a local transaction");
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
