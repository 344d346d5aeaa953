//! Between the wire and the state machine. What comes in is checked here, so that nothing inside
//! sees an id that is none, or a name or list over its limit.

pub(crate) mod saga;

use std::sync::Arc;

use accede_core::{
    self as core, Attempt, BranchId, Epoch, Mode, Payload, Problem, ProcessId, Resource,
    RollBackReason, Xid, limits as core_limits,
};
use accede_proto::v1::{self, Refusal, branch_finished, refusal::Code, roll_back_reason};
use bytes::Bytes;

use crate::{limits, refusal, row_locks};

pub(crate) type Checked<T> = Result<T, Box<Refusal>>;

/// Reads an XID.
pub(crate) fn xid(bits: u64) -> Checked<Xid> {
    Xid::new(bits).ok_or_else(|| {
        Box::new(refusal::invalid(format!(
            "{bits:016x} is no transaction id: it must be above zero and below 2^63"
        )))
    })
}

/// An XID for a reader; 0 stands for a local transaction outside of any global one.
pub(crate) fn on_wire(xid: Xid) -> u64 {
    if xid.is_outside() { 0 } else { xid.get() }
}

/// Reads who asks about row locks: 0 stands for a local transaction outside of any global one.
fn asker(bits: u64, request: core::RequestId) -> Checked<Xid> {
    match bits {
        0 => Ok(Xid::outside(request)),
        bits => xid(bits),
    }
}

/// Reads a process's random number.
pub(crate) fn process(number: u64) -> Checked<ProcessId> {
    if number == 0 {
        return Err(Box::new(refusal::invalid(
            "the process's number is missing: a random number above zero, the same for the life of the process",
        )));
    }
    Ok(ProcessId(number))
}

/// Checks a name that is shown to people.
pub(crate) fn name(what: &str, text: String) -> Checked<String> {
    if text.len() > core_limits::MAX_NAME_BYTES {
        return Err(Box::new(refusal::too_large(
            &format!("the {what} (in bytes)"),
            text.len(),
            core_limits::MAX_NAME_BYTES,
        )));
    }
    Ok(text)
}

/// Cuts a text for people where it gets too long.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
    text
}

pub(crate) fn resource(text: &str) -> Checked<Resource> {
    if text.is_empty() {
        return Err(Box::new(refusal::invalid("the resource's name is missing")));
    }
    if text.len() > core_limits::MAX_NAME_BYTES {
        return Err(Box::new(refusal::too_large(
            "the resource's name (in bytes)",
            text.len(),
            core_limits::MAX_NAME_BYTES,
        )));
    }
    Ok(Arc::from(text))
}

fn branch(number: u32) -> Checked<BranchId> {
    if number == 0 {
        return Err(Box::new(refusal::invalid(
            "the branch's number is missing: branches count from 1",
        )));
    }
    Ok(BranchId(number))
}

fn request_id(id: Option<v1::RequestId>) -> Checked<core::RequestId> {
    let missing = || {
        Box::new(refusal::invalid(
            "the request id is missing: the process's number and a count, the same for repeats",
        ))
    };
    let id = id.ok_or_else(missing)?;
    Ok(core::RequestId {
        process: process(id.client)?,
        sequence: id.sequence,
    })
}

/// Checks the wire's cluster id against ours; empty: the caller does not know yet.
pub(crate) fn cluster(theirs: &[u8], ours: &[u8]) -> Checked<()> {
    if theirs.is_empty() || theirs == ours {
        return Ok(());
    }
    let text = |id: &[u8]| {
        <[u8; 16]>::try_from(id).map_or_else(
            |_| format!("of {} bytes instead of 16", id.len()),
            |id| uuid::Uuid::from_bytes(id).simple().to_string(),
        )
    };
    Err(Box::new(refusal::new(
        Code::OtherCluster,
        format!(
            "this coordinator belongs to cluster {}, the client to cluster {}; connect to the right coordinator",
            text(ours),
            text(theirs)
        ),
    )))
}

pub(crate) fn begin(begin: v1::Begin, process: ProcessId) -> Checked<core::Begin> {
    let xid = xid(begin.xid)?;
    begin_parts(xid, begin.name, begin.timeout_ms, begin.parent, process)
}

pub(crate) fn begin_parts(
    xid: Xid,
    text: String,
    timeout_ms: u32,
    parent: u64,
    process: ProcessId,
) -> Checked<core::Begin> {
    if timeout_ms == 0 {
        return Err(Box::new(refusal::invalid(format!(
            "transaction {xid} has no time-out; give one of at least 1 ms"
        ))));
    }
    if timeout_ms > core_limits::MAX_TIMEOUT_MS {
        return Err(Box::new(refusal::too_large(
            "the time-out (in ms)",
            timeout_ms as usize,
            core_limits::MAX_TIMEOUT_MS as usize,
        )));
    }
    Ok(core::Begin {
        process,
        xid,
        name: name("transaction's name", text)?.into(),
        timeout_ms,
        parent: if parent == 0 {
            None
        } else {
            Some(self::xid(parent)?)
        },
    })
}

pub(crate) fn register(
    wire: &v1::RegisterBranch,
    agent: ProcessId,
    resource: Resource,
) -> Checked<core::RegisterBranch> {
    // Before it is copied.
    if wire.payload.len() > core_limits::MAX_PAYLOAD_BYTES {
        return Err(Box::new(refusal::too_large(
            "the branch's payload (in bytes)",
            wire.payload.len(),
            core_limits::MAX_PAYLOAD_BYTES,
        )));
    }
    Ok(core::RegisterBranch {
        xid: xid(wire.xid)?,
        request: request_id(wire.request)?,
        agent,
        resource,
        mode: registered_mode(wire)?,
        locks: row_locks::wanted(wire)?,
        payload: Payload::from(&wire.payload[..]),
        wait_limit_ms: wire.wait_limit_ms.min(core_limits::MAX_LOCK_WAIT_MS),
        holds_local_locks: wire.holds_local_locks,
        can_keep_open: wire.can_keep_open,
    })
}

fn registered_mode(wire: &v1::RegisterBranch) -> Checked<Mode> {
    match wire.mode() {
        v1::Mode::At => Ok(Mode::At),
        v1::Mode::Xa => Ok(Mode::Xa),
        v1::Mode::Tcc => Ok(Mode::Tcc),
        v1::Mode::Saga => Ok(Mode::Saga),
        v1::Mode::ThreePhase => Ok(Mode::ThreePhase),
        v1::Mode::Unspecified => {
            let known =
                Mode::ALL.map(|known| format!("{} ({})", known.as_str(), mode(known) as i32));
            Err(Box::new(refusal::invalid(format!(
                "mode {} is not known to this coordinator; it knows {}",
                wire.mode,
                known.join(", ")
            ))))
        }
    }
}

pub(crate) fn check_locks(
    wire: &v1::CheckRowLocks,
    resource: Resource,
) -> Checked<core::CheckLocks> {
    let request = request_id(wire.request)?;
    Ok(core::CheckLocks {
        xid: asker(wire.xid, request)?,
        request,
        resource,
        locks: row_locks::keys(&wire.row_locks)?,
        shared: wire.shared,
        wait_limit_ms: wire.wait_limit_ms.min(core_limits::MAX_LOCK_WAIT_MS),
        holds_local_locks: wire.holds_local_locks,
    })
}

pub(crate) fn done(wire: v1::BranchDone) -> Checked<core::BranchDone> {
    Ok(core::BranchDone {
        xid: xid(wire.xid)?,
        branch: branch(wire.branch)?,
    })
}

pub(crate) fn withdrawn(wire: &v1::BranchWithdrawn) -> Checked<core::WithdrawBranch> {
    let request = request_id(wire.request)?;
    Ok(core::WithdrawBranch {
        xid: asker(wire.xid, request)?,
        request,
    })
}

pub(crate) fn doomed(wire: v1::BranchDoomed) -> Checked<core::DoomBranch> {
    Ok(core::DoomBranch {
        xid: xid(wire.xid)?,
        branch: branch(wire.branch)?,
        detail: cut(wire.detail, limits::DETAIL_BYTES),
    })
}

pub(crate) fn blocked(wire: v1::BranchBlocked) -> Checked<core::Blocked> {
    Ok(core::Blocked {
        xid: xid(wire.xid)?,
    })
}

pub(crate) fn roll_back(wire: v1::RollBackRequest) -> Checked<core::RollBack> {
    Ok(core::RollBack {
        xid: xid(wire.xid)?,
        detail: cut(wire.reason, limits::DETAIL_BYTES),
    })
}

/// Reads what came of an order; `None`: the agent still works on it.
pub(crate) fn finished(wire: v1::BranchFinished) -> Checked<(core::FinishBranch, bool)> {
    use branch_finished::Result as Wire;
    let (outcome, in_progress) = match wire.result {
        Some(Wire::Finished(_)) => (core::Outcome::Finished, false),
        Some(Wire::InProgress(_)) => (core::Outcome::Finished, true),
        Some(Wire::Failed(failure)) => (core::Outcome::Failed(problem(failure)), false),
        Some(Wire::Unavailable(failure)) => (core::Outcome::Unavailable(problem(failure)), false),
        Some(Wire::Stuck(failure)) => (core::Outcome::Stuck(problem(failure)), false),
        Some(Wire::PreCommitted(_)) => (core::Outcome::PreCommitted, false),
        Some(Wire::Prepared(_)) => (core::Outcome::Prepared, false),
        Some(Wire::Ran(ran)) => (saga::ran(&ran), false),
        Some(Wire::Refused(failure)) => (core::Outcome::Refused(problem(failure)), false),
        None => {
            return Err(Box::new(refusal::invalid(
                "the result of the order is missing or of a kind that this coordinator does not know",
            )));
        }
    };
    let finish = core::FinishBranch {
        xid: xid(wire.xid)?,
        branch: branch(wire.branch)?,
        attempt: Attempt(wire.attempt),
        epoch: Epoch(wire.epoch),
        outcome,
    };
    Ok((finish, in_progress))
}

fn problem(wire: v1::PhaseTwoFailure) -> Problem {
    let most = core_limits::MAX_PROBLEM_BYTES;
    Problem {
        reason: cut(wire.reason, most),
        difference: cut(wire.difference, most),
        // Half a statement is worse than none.
        repair_statement: if wire.repair_statement.len() > most {
            String::new()
        } else {
            wire.repair_statement
        },
    }
}

pub(crate) fn repair(wire: v1::RepairRequest) -> Checked<core::Repair> {
    let verb = match wire.verb() {
        v1::RepairVerb::Retry => core::RepairVerb::Retry,
        v1::RepairVerb::Apply => core::RepairVerb::Apply,
        v1::RepairVerb::Accept => core::RepairVerb::Accept,
        v1::RepairVerb::Skip => core::RepairVerb::Skip,
        v1::RepairVerb::Unspecified => {
            return Err(Box::new(refusal::invalid(
                "the repair names no verb: retry, apply, accept or skip",
            )));
        }
    };
    if wire.by.is_empty() || wire.reason.is_empty() {
        return Err(Box::new(refusal::invalid(
            "a repair goes on record: say who asks for it and why",
        )));
    }
    let long = wire.by.len().max(wire.reason.len());
    if long > limits::DETAIL_BYTES {
        let what = "who asks or the reason (in bytes)";
        return Err(Box::new(refusal::too_large(
            what,
            long,
            limits::DETAIL_BYTES,
        )));
    }
    Ok(core::Repair {
        xid: xid(wire.xid)?,
        branch: (wire.branch != 0).then_some(BranchId(wire.branch)),
        verb,
        by: wire.by,
        reason: wire.reason,
    })
}

/// Reads which database a resource is; `None`: it is an action.
pub(crate) fn database_id(bytes: &[u8], resource: &str) -> Checked<Option<core::DatabaseId>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| {
        Box::new(refusal::invalid(format!(
            "the database id of resource {resource:?} has {} bytes instead of 16, or none for an action",
            bytes.len()
        )))
    })
}

// From here on: what goes out.

pub(crate) fn lease(lease: &core::Lease, cluster: &Bytes) -> v1::Lease {
    v1::Lease {
        worker: u32::from(lease.worker.0),
        floor_ms: lease.floor_ms,
        ceiling_ms: lease.ceiling_ms,
        ttl_ms: lease.ttl_ms,
        cluster_id: cluster.clone(),
        begun_through: lease.begun_through.map_or(0, Xid::get),
    }
}

pub(crate) fn registered(branch: BranchId, give_up_ms: u32, keep_open: bool) -> v1::Registered {
    v1::Registered {
        branch: branch.0,
        give_up_ms,
        keep_open,
    }
}

pub(crate) fn decision(decision: core::Decision) -> v1::Decision {
    match decision {
        core::Decision::Commit => v1::Decision::Commit,
        core::Decision::RollBack => v1::Decision::RollBack,
    }
}

pub(crate) fn status(status: core::Status) -> v1::Status {
    match status {
        core::Status::Active => v1::Status::Active,
        core::Status::PreCommitted => v1::Status::PreCommitted,
        core::Status::Delegated => v1::Status::Delegated,
        core::Status::Committing => v1::Status::Committing,
        core::Status::Committed => v1::Status::Committed,
        core::Status::RollingBack => v1::Status::RollingBack,
        core::Status::RolledBack => v1::Status::RolledBack,
        core::Status::Stuck(_) => v1::Status::Stuck,
    }
}

pub(crate) fn reason(reason: &RollBackReason) -> v1::RollBackReason {
    use roll_back_reason::Code;
    let (code, detail) = match reason {
        RollBackReason::Requested(said) => (Code::Requested, said.clone()),
        RollBackReason::TimedOut => (Code::TimedOut, String::new()),
        RollBackReason::BranchUnfinished(branch) => (
            Code::BranchUnfinished,
            format!(
                "branch {} did not report its local commit in time",
                branch.0
            ),
        ),
        RollBackReason::LeaseEnded => (Code::LeaseEnded, String::new()),
        RollBackReason::StepFailed(_, said) => (Code::StepFailed, said.clone()),
        RollBackReason::BranchFailed(branch, said) => {
            (Code::BranchFailed, format!("branch {}: {said}", branch.0))
        }
        RollBackReason::LocalCommitUnknown(branch, said) => (
            Code::LocalCommitUnknown,
            format!("branch {}: {said}", branch.0),
        ),
    };
    v1::RollBackReason {
        code: code.into(),
        detail,
    }
}

/// What was decided, as the answer to a commit or roll back.
pub(crate) fn decided(
    xid: Xid,
    decided: core::Decision,
    why: Option<&RollBackReason>,
) -> v1::Outcome {
    let status = match decided {
        core::Decision::Commit => v1::Status::Committing,
        core::Decision::RollBack => v1::Status::RollingBack,
    };
    v1::Outcome {
        xid: xid.get(),
        status: status.into(),
        decision: decision(decided).into(),
        reason: why.map(reason),
    }
}

/// Where a transaction stands.
pub(crate) fn outcome(state: &core::State, xid: Xid) -> Result<v1::Outcome, Refusal> {
    let Some(transaction) = state.transaction(xid) else {
        let why = match state.whereabouts(xid) {
            core::Whereabouts::NotBegun => core::Rejection::NotBegun,
            core::Whereabouts::Known | core::Whereabouts::Forgotten => core::Rejection::Forgotten,
        };
        return Err(refusal::of_rejection(&why, Some(xid), None));
    };
    Ok(v1::Outcome {
        xid: xid.get(),
        status: status(transaction.status()).into(),
        decision: transaction
            .decision()
            .map_or(v1::Decision::Unspecified, decision)
            .into(),
        reason: transaction.reason().map(reason),
    })
}

/// Which of these transactions have ended.
pub(crate) fn ended(state: &core::State, xids: &[Xid]) -> v1::Ended {
    use v1::ended::State as Wire;
    let state = |xid: &Xid| match state.transaction(*xid) {
        Some(transaction) if transaction.ended_at().is_some() => Wire::Ended,
        Some(_) => Wire::Open,
        None => match state.whereabouts(*xid) {
            core::Whereabouts::NotBegun => Wire::NeverBegun,
            core::Whereabouts::Known | core::Whereabouts::Forgotten => Wire::Ended,
        },
    };
    v1::Ended {
        states: xids.iter().map(|xid| state(xid).into()).collect(),
    }
}

/// How these transactions stand, for participants of 3PC.
pub(crate) fn standing(state: &core::State, xids: &[Xid]) -> v1::Standing {
    use core::alone::{Knows, Standing};
    use v1::standing::State as Wire;
    let wire = |xid: &Xid| match state.standing(*xid) {
        // Silence is what nobody can answer.
        Standing::Known(Knows::Undecided | Knows::Silence) => Wire::Undecided,
        Standing::Known(Knows::PreCommitted) => Wire::PreCommitted,
        Standing::Known(Knows::Committing) => Wire::Committing,
        Standing::Known(Knows::RollingBack) => Wire::RollingBack,
        Standing::NeverBegun => Wire::NeverBegun,
        Standing::Forgotten => Wire::Forgotten,
    };
    v1::Standing {
        states: xids.iter().map(|xid| wire(xid).into()).collect(),
    }
}

pub(crate) fn order(order: &core::Order) -> v1::Order {
    let action = match order.action {
        core::Action::Commit => v1::Action::Commit,
        core::Action::RollBack => v1::Action::RollBack,
        core::Action::RollBackForced => v1::Action::RollBackForced,
        core::Action::Accept => v1::Action::Accept,
        core::Action::PreCommit => v1::Action::PreCommit,
        core::Action::Run => v1::Action::Run,
        core::Action::Prepare => v1::Action::Prepare,
        core::Action::CommitOnePhase => v1::Action::CommitOnePhase,
    };
    v1::Order {
        xid: order.xid.get(),
        branch: order.branch.0,
        resource: (*order.resource).to_owned(),
        mode: mode(order.mode).into(),
        action: action.into(),
        attempt: order.attempt.0,
        epoch: order.epoch.0,
        was_done: order.was_done,
        payload: Bytes::copy_from_slice(&order.payload),
        step: order.step.as_deref().map(saga::step_order),
    }
}

pub(crate) fn mode(mode: Mode) -> v1::Mode {
    match mode {
        Mode::At => v1::Mode::At,
        Mode::Xa => v1::Mode::Xa,
        Mode::Tcc => v1::Mode::Tcc,
        Mode::Saga => v1::Mode::Saga,
        Mode::ThreePhase => v1::Mode::ThreePhase,
    }
}

pub(crate) fn repair_verb(verb: core::RepairVerb) -> v1::RepairVerb {
    match verb {
        core::RepairVerb::Retry => v1::RepairVerb::Retry,
        core::RepairVerb::Apply => v1::RepairVerb::Apply,
        core::RepairVerb::Accept => v1::RepairVerb::Accept,
        core::RepairVerb::Skip => v1::RepairVerb::Skip,
    }
}
