//! One command to and from bytes.

use super::{
    DecodeError, Reader, Writer,
    lock::{get_lock_mode, put_lock_mode},
    saga::{get_start_saga, put_start_saga},
};
use crate::{
    command::{
        Begin, BindResource, Blocked, BranchDone, CheckLocks, Command, Commit, DoomBranch,
        EndLease, FinishBranch, LeaseWorker, NameAction, Outcome, Problem, RegisterBranch, Repair,
        RepairVerb, RollBack, TakeOffice, WithdrawBranch,
    },
    id::{Attempt, BranchId, Epoch, ProcessId, RequestId, WorkerId, Xid},
    lock_mode::{LockMode, RowLock},
    mode::Mode,
    payload::Payload,
    retention::{Retention, get_retention, put_retention},
};

/// Never renumbered, never reused.
mod tag {
    /// Read only: from before the leader's settings stood in it.
    pub(super) const TAKE_OFFICE_BARE: u8 = 1;
    pub(super) const LEASE_WORKER: u8 = 2;
    pub(super) const END_LEASE: u8 = 3;
    pub(super) const BEGIN: u8 = 4;
    pub(super) const BIND_RESOURCE: u8 = 5;
    pub(super) const REGISTER_BRANCH: u8 = 6;
    pub(super) const CHECK_LOCKS: u8 = 7;
    pub(super) const BRANCH_DONE: u8 = 8;
    pub(super) const WITHDRAW_BRANCH: u8 = 9;
    pub(super) const DOOM_BRANCH: u8 = 10;
    pub(super) const COMMIT: u8 = 11;
    pub(super) const ROLL_BACK: u8 = 12;
    pub(super) const FINISH_BRANCH: u8 = 13;
    pub(super) const EXPIRE: u8 = 14;
    pub(super) const REPAIR: u8 = 15;
    pub(super) const BLOCKED: u8 = 16;
    pub(super) const TAKE_OFFICE: u8 = 17;
    pub(super) const NAME_ACTION: u8 = 18;
    pub(super) const START_SAGA: u8 = 19;
}

/// The agent is the process that asks: its id is not written twice.
const AGENT_ASKS: u8 = 1;
/// The caller holds local locks.
const HOLDS_LOCAL_LOCKS: u8 = 2;
/// The keys are followed by the modes. Without it all locks are exclusive.
const HAS_MODES: u8 = 4;
/// The payload comes last.
const HAS_PAYLOAD: u8 = 8;
/// The caller can keep its local transaction open.
const CAN_KEEP_OPEN: u8 = 16;

/// A check's caller holds local locks.
const CHECK_HOLDS_LOCAL_LOCKS: u8 = 1;
/// A check passes shared locks.
const CHECK_SHARED: u8 = 2;

pub(crate) fn put_command(w: &mut Writer, command: &Command) {
    match command {
        Command::TakeOffice(TakeOffice { retention }) => {
            w.u8(tag::TAKE_OFFICE);
            put_retention(w, *retention);
        }
        Command::Expire => w.u8(tag::EXPIRE),
        Command::LeaseWorker(LeaseWorker {
            process,
            name,
            worker,
        }) => {
            w.u8(tag::LEASE_WORKER);
            w.fixed(process.0);
            w.str(name);
            w.option(*worker, |w, worker| w.varint(worker.0.into()));
        }
        Command::EndLease(EndLease { process, worker }) => {
            w.u8(tag::END_LEASE);
            w.fixed(process.0);
            w.varint(worker.0.into());
        }
        Command::Begin(Begin {
            process,
            xid,
            name,
            timeout_ms,
            parent,
        }) => {
            w.u8(tag::BEGIN);
            w.fixed(process.0);
            put_xid(w, *xid);
            w.str(name);
            w.varint((*timeout_ms).into());
            w.option(*parent, put_xid);
        }
        Command::BindResource(BindResource { resource, database }) => {
            w.u8(tag::BIND_RESOURCE);
            w.str(resource);
            w.raw(database);
        }
        Command::NameAction(NameAction { action }) => {
            w.u8(tag::NAME_ACTION);
            w.str(action);
        }
        Command::RegisterBranch(register) => put_register_branch(w, register),
        Command::CheckLocks(check) => put_check_locks(w, check),
        Command::BranchDone(BranchDone { xid, branch }) => {
            put_branch(w, tag::BRANCH_DONE, *xid, *branch);
        }
        Command::WithdrawBranch(WithdrawBranch { xid, request }) => {
            w.u8(tag::WITHDRAW_BRANCH);
            put_xid(w, *xid);
            put_request(w, *request);
        }
        Command::DoomBranch(DoomBranch {
            xid,
            branch,
            detail,
        }) => {
            put_branch(w, tag::DOOM_BRANCH, *xid, *branch);
            w.str(detail);
        }
        Command::Blocked(Blocked { xid }) => {
            w.u8(tag::BLOCKED);
            put_xid(w, *xid);
        }
        Command::Commit(Commit { xid }) => {
            w.u8(tag::COMMIT);
            put_xid(w, *xid);
        }
        Command::RollBack(RollBack { xid, detail }) => {
            w.u8(tag::ROLL_BACK);
            put_xid(w, *xid);
            w.str(detail);
        }
        Command::FinishBranch(FinishBranch {
            xid,
            branch,
            attempt,
            epoch,
            outcome,
        }) => {
            put_branch(w, tag::FINISH_BRANCH, *xid, *branch);
            w.varint(attempt.0.into());
            w.varint(epoch.0);
            put_outcome(w, outcome);
        }
        Command::Repair(Repair {
            xid,
            branch,
            verb,
            by,
            reason,
        }) => {
            w.u8(tag::REPAIR);
            put_xid(w, *xid);
            w.option(*branch, |w, branch| w.varint(branch.0.into()));
            put_repair_verb(w, *verb);
            w.str(by);
            w.str(reason);
        }
        Command::StartSaga(start) => {
            w.u8(tag::START_SAGA);
            put_start_saga(w, start);
        }
    }
}

pub(crate) fn get_command(r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    Ok(match r.u8()? {
        tag::TAKE_OFFICE_BARE => Command::TakeOffice(TakeOffice {
            retention: Retention::UNWRITTEN,
        }),
        tag::TAKE_OFFICE => Command::TakeOffice(TakeOffice {
            retention: get_retention(r)?,
        }),
        tag::EXPIRE => Command::Expire,
        tag::LEASE_WORKER => Command::LeaseWorker(LeaseWorker {
            process: get_process(r)?,
            name: r.string()?,
            worker: r.option(get_worker)?,
        }),
        tag::END_LEASE => Command::EndLease(EndLease {
            process: get_process(r)?,
            worker: get_worker(r)?,
        }),
        tag::BEGIN => Command::Begin(Begin {
            process: get_process(r)?,
            xid: get_xid(r)?,
            name: r.shared_str()?,
            timeout_ms: r.small("time-out in milliseconds")?,
            parent: r.option(get_xid)?,
        }),
        tag::BIND_RESOURCE => Command::BindResource(BindResource {
            resource: r.shared_str()?,
            database: r.array()?,
        }),
        tag::NAME_ACTION => Command::NameAction(NameAction {
            action: r.shared_str()?,
        }),
        tag::REGISTER_BRANCH => get_register_branch(r)?,
        tag::CHECK_LOCKS => get_check_locks(r)?,
        tag::BRANCH_DONE => Command::BranchDone(BranchDone {
            xid: get_xid(r)?,
            branch: get_branch_id(r)?,
        }),
        tag::WITHDRAW_BRANCH => Command::WithdrawBranch(WithdrawBranch {
            xid: get_asker(r)?,
            request: get_request(r)?,
        }),
        tag::DOOM_BRANCH => Command::DoomBranch(DoomBranch {
            xid: get_xid(r)?,
            branch: get_branch_id(r)?,
            detail: r.string()?,
        }),
        tag::BLOCKED => Command::Blocked(Blocked { xid: get_xid(r)? }),
        tag::COMMIT => Command::Commit(Commit { xid: get_xid(r)? }),
        tag::ROLL_BACK => Command::RollBack(RollBack {
            xid: get_xid(r)?,
            detail: r.string()?,
        }),
        tag::FINISH_BRANCH => Command::FinishBranch(FinishBranch {
            xid: get_xid(r)?,
            branch: get_branch_id(r)?,
            attempt: Attempt(r.small("attempt")?),
            epoch: Epoch(r.varint()?),
            outcome: get_outcome(r)?,
        }),
        tag::REPAIR => Command::Repair(Repair {
            xid: get_xid(r)?,
            branch: r.option(get_branch_id)?,
            verb: get_repair_verb(r)?,
            by: r.string()?,
            reason: r.string()?,
        }),
        tag::START_SAGA => get_start_saga(r)?,
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "command",
                tag,
            });
        }
    })
}

fn put_register_branch(w: &mut Writer, register: &RegisterBranch) {
    let RegisterBranch {
        xid,
        request,
        agent,
        resource,
        mode,
        locks,
        payload,
        wait_limit_ms,
        holds_local_locks,
        can_keep_open,
    } = register;
    let agent_asks = *agent == request.process;
    w.u8(tag::REGISTER_BRANCH);
    put_xid(w, *xid);
    put_request(w, *request);
    let has_modes = locks.iter().any(|lock| lock.mode != LockMode::Exclusive);
    w.u8(flags([
        (agent_asks, AGENT_ASKS),
        (*holds_local_locks, HOLDS_LOCAL_LOCKS),
        (has_modes, HAS_MODES),
        (!payload.is_empty(), HAS_PAYLOAD),
        (*can_keep_open, CAN_KEEP_OPEN),
    ]));
    if !agent_asks {
        w.fixed(agent.0);
    }
    w.str(resource);
    put_mode(w, *mode);
    w.list(locks, |w, lock| w.bytes(&lock.key));
    if has_modes {
        locks.iter().for_each(|lock| put_lock_mode(w, &lock.mode));
    }
    w.varint((*wait_limit_ms).into());
    if !payload.is_empty() {
        w.bytes(payload);
    }
}

fn get_register_branch(r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    let xid = get_xid(r)?;
    let request = get_request(r)?;
    let known = AGENT_ASKS | HOLDS_LOCAL_LOCKS | HAS_MODES | HAS_PAYLOAD | CAN_KEEP_OPEN;
    let flags = get_flags(r, "set of register flags", known)?;
    let agent = if flags & AGENT_ASKS != 0 {
        request.process
    } else {
        get_process(r)?
    };
    let resource = r.shared_str()?;
    let mode = get_mode(r)?;
    let mut locks = r.list(|r| r.shared_bytes().map(RowLock::from))?;
    if flags & HAS_MODES != 0 {
        for lock in &mut locks {
            lock.mode = get_lock_mode(r)?;
        }
    }
    let wait_limit_ms = r.small("wait limit in milliseconds")?;
    let payload = match flags & HAS_PAYLOAD {
        0 => Payload::default(),
        _ => Payload::from(r.bytes()?),
    };
    Ok(Command::RegisterBranch(RegisterBranch {
        xid,
        request,
        agent,
        resource,
        mode,
        locks,
        payload,
        wait_limit_ms,
        holds_local_locks: flags & HOLDS_LOCAL_LOCKS != 0,
        can_keep_open: flags & CAN_KEEP_OPEN != 0,
    }))
}

pub(crate) fn put_mode(w: &mut Writer, mode: Mode) {
    w.u8(match mode {
        Mode::At => 1,
        Mode::Xa => 2,
        Mode::Tcc => 3,
        Mode::Saga => 4,
        Mode::ThreePhase => 5,
    });
}

pub(crate) fn get_mode(r: &mut Reader<'_>) -> Result<Mode, DecodeError> {
    Ok(match r.u8()? {
        1 => Mode::At,
        2 => Mode::Xa,
        3 => Mode::Tcc,
        4 => Mode::Saga,
        5 => Mode::ThreePhase,
        tag => return Err(DecodeError::UnknownTag { what: "mode", tag }),
    })
}

fn put_check_locks(w: &mut Writer, check: &CheckLocks) {
    let CheckLocks {
        xid,
        request,
        resource,
        locks,
        shared,
        wait_limit_ms,
        holds_local_locks,
    } = check;
    w.u8(tag::CHECK_LOCKS);
    put_xid(w, *xid);
    put_request(w, *request);
    w.u8(flags([
        (*holds_local_locks, CHECK_HOLDS_LOCAL_LOCKS),
        (*shared, CHECK_SHARED),
    ]));
    w.str(resource);
    w.list(locks, |w, key| w.bytes(key));
    w.varint((*wait_limit_ms).into());
}

fn get_check_locks(r: &mut Reader<'_>) -> Result<Command, DecodeError> {
    let xid = get_asker(r)?;
    let request = get_request(r)?;
    let known = CHECK_HOLDS_LOCAL_LOCKS | CHECK_SHARED;
    let flags = get_flags(r, "set of check flags", known)?;
    Ok(Command::CheckLocks(CheckLocks {
        xid,
        request,
        resource: r.shared_str()?,
        locks: r.list(Reader::shared_bytes)?,
        shared: flags & CHECK_SHARED != 0,
        wait_limit_ms: r.small("wait limit in milliseconds")?,
        holds_local_locks: flags & CHECK_HOLDS_LOCAL_LOCKS != 0,
    }))
}

pub(super) fn flags<const N: usize>(flags: [(bool, u8); N]) -> u8 {
    flags
        .iter()
        .filter(|(set, _)| *set)
        .fold(0, |all, (_, flag)| all | flag)
}

pub(super) fn get_flags(
    r: &mut Reader<'_>,
    what: &'static str,
    known: u8,
) -> Result<u8, DecodeError> {
    let flags = r.u8()?;
    if flags & !known != 0 {
        return Err(DecodeError::UnknownTag { what, tag: flags });
    }
    Ok(flags)
}

fn put_outcome(w: &mut Writer, outcome: &Outcome) {
    let (tag, problem) = match outcome {
        Outcome::Finished => return w.u8(1),
        Outcome::Failed(problem) => (2, problem),
        Outcome::Unavailable(problem) => (3, problem),
        Outcome::Stuck(problem) => (4, problem),
        Outcome::PreCommitted => return w.u8(8),
        Outcome::Prepared => return w.u8(9),
        Outcome::Ran(result) => {
            w.u8(5);
            return w.bytes(result);
        }
        Outcome::Refused(problem) => (6, problem),
        Outcome::Later(problem, after_ms) => {
            w.u8(7);
            put_problem(w, problem);
            return w.varint((*after_ms).into());
        }
    };
    w.u8(tag);
    put_problem(w, problem);
}

fn get_outcome(r: &mut Reader<'_>) -> Result<Outcome, DecodeError> {
    Ok(match r.u8()? {
        1 => Outcome::Finished,
        2 => Outcome::Failed(get_problem(r)?),
        3 => Outcome::Unavailable(get_problem(r)?),
        4 => Outcome::Stuck(get_problem(r)?),
        8 => Outcome::PreCommitted,
        9 => Outcome::Prepared,
        5 => Outcome::Ran(Payload::from(r.bytes()?)),
        6 => Outcome::Refused(get_problem(r)?),
        7 => Outcome::Later(get_problem(r)?, r.small("time in milliseconds")?),
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "outcome",
                tag,
            });
        }
    })
}

pub(crate) fn put_problem(w: &mut Writer, problem: &Problem) {
    let Problem {
        reason,
        difference,
        repair_statement,
    } = problem;
    w.str(reason);
    w.str(difference);
    w.str(repair_statement);
}

pub(crate) fn get_problem(r: &mut Reader<'_>) -> Result<Problem, DecodeError> {
    Ok(Problem {
        reason: r.string()?,
        difference: r.string()?,
        repair_statement: r.string()?,
    })
}

pub(crate) fn put_repair_verb(w: &mut Writer, verb: RepairVerb) {
    w.u8(match verb {
        RepairVerb::Retry => 1,
        RepairVerb::Apply => 2,
        RepairVerb::Accept => 3,
        RepairVerb::Skip => 4,
    });
}

pub(crate) fn get_repair_verb(r: &mut Reader<'_>) -> Result<RepairVerb, DecodeError> {
    Ok(match r.u8()? {
        1 => RepairVerb::Retry,
        2 => RepairVerb::Apply,
        3 => RepairVerb::Accept,
        4 => RepairVerb::Skip,
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "repair verb",
                tag,
            });
        }
    })
}

fn put_branch(w: &mut Writer, tag: u8, xid: Xid, branch: BranchId) {
    w.u8(tag);
    put_xid(w, xid);
    w.varint(branch.0.into());
}

pub(crate) fn put_xid(w: &mut Writer, xid: Xid) {
    w.fixed(xid.get());
}

pub(crate) fn get_xid(r: &mut Reader<'_>) -> Result<Xid, DecodeError> {
    Xid::new(r.fixed()?).ok_or(DecodeError::OutOfRange {
        what: "transaction id",
    })
}

/// A transaction, or what stands for a local one outside of any.
pub(crate) fn get_asker(r: &mut Reader<'_>) -> Result<Xid, DecodeError> {
    Xid::of_asker(r.fixed()?).ok_or(DecodeError::OutOfRange {
        what: "transaction id",
    })
}

pub(crate) fn put_request(w: &mut Writer, request: RequestId) {
    w.fixed(request.process.0);
    w.varint(request.sequence);
}

pub(crate) fn get_request(r: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    Ok(RequestId {
        process: get_process(r)?,
        sequence: r.varint()?,
    })
}

pub(crate) fn get_process(r: &mut Reader<'_>) -> Result<ProcessId, DecodeError> {
    r.fixed().map(ProcessId)
}

pub(crate) fn get_branch_id(r: &mut Reader<'_>) -> Result<BranchId, DecodeError> {
    r.small("branch number").map(BranchId)
}

pub(crate) fn get_worker(r: &mut Reader<'_>) -> Result<WorkerId, DecodeError> {
    match r.small("worker id").map(WorkerId)? {
        worker if worker <= WorkerId::MAX => Ok(worker),
        _ => Err(DecodeError::OutOfRange { what: "worker id" }),
    }
}
