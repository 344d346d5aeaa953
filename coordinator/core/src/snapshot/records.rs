//! One record of the state to and from bytes.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use super::{WITH_PAYLOADS, WITH_PRE_COMMIT, WITH_ROW_LOCK_MODES, WITH_SAGAS};
use crate::{
    codec::{
        DecodeError, Reader, Writer, get_asker, get_branch_id, get_command, get_mode, get_problem,
        get_process, get_repair_verb, get_request, get_row_lock, get_step, get_xid, is_acyclic,
        put_command, put_mode, put_problem, put_repair_verb, put_request, put_row_lock, put_step,
        put_xid,
    },
    command::Command,
    effect::Action,
    id::{Attempt, Timestamp, WallTime},
    lock_mode::RowLock,
    payload::Payload,
    reply::{Decision, Rejection, RollBackReason},
    row_lock::{Ticket, TicketId, Wanted},
    saga::{Saga, Step},
    state::Parked,
    status::{BranchStatus, Status},
    transaction::{Answer, Branch, RepairRecord, Request, Transaction},
    worker::{Holder, Worker},
};

type Get<T> = Result<T, DecodeError>;

pub(super) fn put_worker_record(w: &mut Writer, worker: &Worker) {
    w.varint(worker.floor_ms);
    w.varint(worker.ceiling_ms);
    w.option(worker.lease.as_ref(), |w, holder| {
        w.fixed(holder.process.0);
        w.str(&holder.name);
        w.varint(holder.until.0);
    });
    w.option(worker.begun_through, put_xid);
}

pub(super) fn get_worker_record(r: &mut Reader<'_>) -> Get<Worker> {
    Ok(Worker {
        floor_ms: r.varint()?,
        ceiling_ms: r.varint()?,
        lease: r.option(|r| {
            Ok(Holder {
                process: get_process(r)?,
                name: Arc::from(r.str()?),
                until: Timestamp(r.varint()?),
            })
        })?,
        begun_through: r.option(get_xid)?,
        undecided: Default::default(),
    })
}

pub(super) fn put_transaction(w: &mut Writer, t: &Transaction) {
    put_xid(w, t.xid);
    w.str(&t.name);
    w.option(t.parent, put_xid);
    w.varint(t.began_at.0);
    w.varint(t.began_wall.0);
    w.varint(t.deadline.0);
    w.u8(status_tag(t.status));
    w.option(t.reason.as_ref(), put_reason);
    w.option(t.commit_until, |w, at| w.varint(at.0));
    w.option(t.pre_commit_until, |w, at| w.varint(at.0));
    w.bool(t.lease_ended);
    w.option(t.ended_at, |w, at| w.varint(at.0));
    w.list(&t.branches, put_branch);
    w.list(&t.requests, put_request_record);
    w.list(&t.repairs, put_repair);
    w.option(t.saga(), put_saga);
}

pub(super) fn get_transaction(r: &mut Reader<'_>, version: u8) -> Get<Transaction> {
    let transaction = Transaction {
        xid: get_xid(r)?,
        name: r.shared_str()?,
        parent: r.option(get_xid)?,
        began_at: Timestamp(r.varint()?),
        began_wall: WallTime(r.varint()?),
        deadline: Timestamp(r.varint()?),
        status: get_status(r)?,
        reason: r.option(get_reason)?,
        commit_until: r.option(|r| r.varint().map(Timestamp))?,
        pre_commit_until: match version {
            WITH_PRE_COMMIT.. => r.option(|r| r.varint().map(Timestamp))?,
            _ => None,
        },
        lease_ended: r.bool()?,
        ended_at: r.option(|r| r.varint().map(Timestamp))?,
        branches: r.list(|r| get_branch(r, version))?,
        requests: r.list(get_request_record)?,
        repairs: r.list(get_repair)?,
        saga: match version {
            WITH_SAGAS.. => r.option(get_saga)?.map(Box::new),
            _ => None,
        },
    };
    let numbered = |(i, branch): (usize, &Branch)| branch.id.0 as usize == i + 1;
    if !transaction.branches.iter().enumerate().all(numbered) {
        return Err(DecodeError::OutOfRange {
            what: "branch number",
        });
    }
    if !transaction
        .saga()
        .is_none_or(|saga| is_sound(saga, &transaction))
    {
        return Err(DecodeError::OutOfRange { what: "saga" });
    }
    Ok(transaction)
}

/// Its steps wait for earlier ones, and each branch that one became is a branch, and its own.
fn is_sound(saga: &Saga, transaction: &Transaction) -> bool {
    let mut started: Vec<_> = saga.steps.iter().filter_map(|step| step.branch).collect();
    let known = started.iter().all(|id| transaction.branch(*id).is_some());
    let steps = started.len();
    started.sort_unstable();
    started.dedup();
    known && started.len() == steps && is_acyclic(saga.steps.iter().map(|step| &step.plan.after))
}

fn put_saga(w: &mut Writer, saga: &Saga) {
    put_request(w, saga.request);
    w.fixed(saga.content);
    w.bool(saga.commit_when_done);
    w.list(&saga.steps, |w, step| {
        put_step(w, &step.plan);
        w.option(step.branch, |w, branch| w.varint(branch.0.into()));
        w.option(step.result.as_deref(), Writer::bytes);
        w.option(step.answer_by, |w, at| w.varint(at.0));
    });
}

fn get_saga(r: &mut Reader<'_>) -> Get<Saga> {
    Ok(Saga {
        request: get_request(r)?,
        content: r.fixed()?,
        commit_when_done: r.bool()?,
        steps: r.list(|r| {
            Ok(Step {
                plan: get_step(r)?,
                branch: r.option(get_branch_id)?,
                result: r.option(|r| r.bytes().map(Payload::from))?,
                answer_by: r.option(|r| r.varint().map(Timestamp))?,
            })
        })?,
    })
}

fn status_tag(status: Status) -> u8 {
    match status {
        Status::Active => 1,
        Status::Committing => 2,
        Status::Committed => 3,
        Status::RollingBack => 4,
        Status::RolledBack => 5,
        Status::Stuck(Decision::Commit) => 6,
        Status::Stuck(Decision::RollBack) => 7,
        Status::PreCommitted => 8,
        Status::Delegated => 9,
    }
}

fn get_status(r: &mut Reader<'_>) -> Get<Status> {
    Ok(match r.u8()? {
        1 => Status::Active,
        2 => Status::Committing,
        3 => Status::Committed,
        4 => Status::RollingBack,
        5 => Status::RolledBack,
        6 => Status::Stuck(Decision::Commit),
        7 => Status::Stuck(Decision::RollBack),
        8 => Status::PreCommitted,
        9 => Status::Delegated,
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "status",
                tag,
            });
        }
    })
}

fn put_decision(w: &mut Writer, decision: Decision) {
    w.bool(decision == Decision::Commit);
}

fn get_decision(r: &mut Reader<'_>) -> Get<Decision> {
    Ok(if r.bool()? {
        Decision::Commit
    } else {
        Decision::RollBack
    })
}

fn put_reason(w: &mut Writer, reason: &RollBackReason) {
    match reason {
        RollBackReason::Requested(detail) => {
            w.u8(1);
            w.str(detail);
        }
        RollBackReason::TimedOut => w.u8(2),
        RollBackReason::BranchUnfinished(branch) => {
            w.u8(3);
            w.varint(branch.0.into());
        }
        RollBackReason::LeaseEnded => w.u8(4),
        RollBackReason::LocalCommitUnknown(branch, detail) => {
            w.u8(5);
            w.varint(branch.0.into());
            w.str(detail);
        }
        RollBackReason::StepFailed(branch, detail) => {
            w.u8(6);
            w.varint(branch.0.into());
            w.str(detail);
        }
        RollBackReason::BranchFailed(branch, detail) => {
            w.u8(7);
            w.varint(branch.0.into());
            w.str(detail);
        }
    }
}

fn get_reason(r: &mut Reader<'_>) -> Get<RollBackReason> {
    Ok(match r.u8()? {
        1 => RollBackReason::Requested(r.string()?),
        2 => RollBackReason::TimedOut,
        3 => RollBackReason::BranchUnfinished(get_branch_id(r)?),
        4 => RollBackReason::LeaseEnded,
        5 => RollBackReason::LocalCommitUnknown(get_branch_id(r)?, r.string()?),
        6 => RollBackReason::StepFailed(get_branch_id(r)?, r.string()?),
        7 => RollBackReason::BranchFailed(get_branch_id(r)?, r.string()?),
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "reason",
                tag,
            });
        }
    })
}

fn put_branch(w: &mut Writer, b: &Branch) {
    w.varint(b.id.0.into());
    w.str(&b.resource);
    put_mode(w, b.mode);
    w.fixed(b.agent.0);
    w.u8(match b.status {
        BranchStatus::Registered => 1,
        BranchStatus::Done => 2,
        BranchStatus::Withdrawn => 3,
        BranchStatus::Finishing => 4,
        BranchStatus::Finished => 5,
        BranchStatus::Stuck => 6,
        BranchStatus::Accepted => 7,
        BranchStatus::Skipped => 8,
        BranchStatus::PreCommitted => 9,
        BranchStatus::KeptOpen => 10,
    });
    w.bool(b.was_done);
    w.list(&b.locks, put_row_lock);
    w.bytes(&b.payload);
    w.u8(match b.action {
        Action::Commit => 1,
        Action::RollBack => 2,
        Action::RollBackForced => 3,
        Action::Accept => 4,
        Action::PreCommit => 6,
        Action::Run => 5,
        Action::Prepare => 7,
        Action::CommitOnePhase => 8,
    });
    w.varint(b.attempt.0.into());
    w.varint(b.failures.into());
    w.varint(b.outages.into());
    w.option(b.next_attempt_at, |w, at| w.varint(at.0));
    w.option(b.problem.as_deref(), put_problem);
}

fn get_branch(r: &mut Reader<'_>, version: u8) -> Get<Branch> {
    Ok(Branch {
        id: get_branch_id(r)?,
        resource: r.shared_str()?,
        mode: get_mode(r)?,
        agent: get_process(r)?,
        status: get_branch_status(r)?,
        was_done: r.bool()?,
        locks: match version {
            WITH_ROW_LOCK_MODES.. => r.list(get_row_lock)?,
            _ => r.list(|r| r.shared_bytes().map(RowLock::from))?,
        },
        payload: match version {
            WITH_PAYLOADS.. => Payload::from(r.bytes()?),
            _ => Payload::default(),
        },
        action: match r.u8()? {
            1 => Action::Commit,
            2 => Action::RollBack,
            3 => Action::RollBackForced,
            4 => Action::Accept,
            6 => Action::PreCommit,
            5 => Action::Run,
            7 => Action::Prepare,
            8 => Action::CommitOnePhase,
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "action",
                    tag,
                });
            }
        },
        attempt: Attempt(r.small("attempt")?),
        failures: r.small("number of failures")?,
        outages: r.small("number of outages")?,
        next_attempt_at: r.option(|r| r.varint().map(Timestamp))?,
        problem: r.option(get_problem)?.map(Box::new),
    })
}

fn get_branch_status(r: &mut Reader<'_>) -> Get<BranchStatus> {
    Ok(match r.u8()? {
        1 => BranchStatus::Registered,
        2 => BranchStatus::Done,
        3 => BranchStatus::Withdrawn,
        4 => BranchStatus::Finishing,
        5 => BranchStatus::Finished,
        6 => BranchStatus::Stuck,
        7 => BranchStatus::Accepted,
        8 => BranchStatus::Skipped,
        9 => BranchStatus::PreCommitted,
        10 => BranchStatus::KeptOpen,
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "branch status",
                tag,
            });
        }
    })
}

fn put_request_record(w: &mut Writer, request: &Request) {
    put_request(w, request.id);
    w.fixed(request.content);
    match &request.answer {
        Answer::Waiting(ticket) => {
            w.u8(1);
            w.varint(ticket.0);
        }
        Answer::Registered {
            branch,
            give_up_ms,
            keep_open,
        } => {
            w.u8(if *keep_open { 6 } else { 2 });
            w.varint(branch.0.into());
            w.varint((*give_up_ms).into());
        }
        Answer::LocksFree => w.u8(3),
        Answer::Withdrawn => w.u8(4),
        Answer::Refused(rejection) => {
            w.u8(5);
            put_rejection(w, rejection);
        }
    }
}

fn get_request_record(r: &mut Reader<'_>) -> Get<Request> {
    Ok(Request {
        id: get_request(r)?,
        content: r.fixed()?,
        answer: match r.u8()? {
            1 => Answer::Waiting(TicketId(r.varint()?)),
            tag @ (2 | 6) => Answer::Registered {
                branch: get_branch_id(r)?,
                give_up_ms: r.small("time in milliseconds")?,
                keep_open: tag == 6,
            },
            3 => Answer::LocksFree,
            4 => Answer::Withdrawn,
            5 => Answer::Refused(get_rejection(r)?),
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "answer",
                    tag,
                });
            }
        },
    })
}

/// Only the refusals that are remembered have a byte form.
fn put_rejection(w: &mut Writer, rejection: &Rejection) {
    match rejection {
        Rejection::CommitAsked => w.u8(1),
        Rejection::ResourceUnknown => w.u8(2),
        Rejection::HolderRollingBack { holder } => {
            w.u8(3);
            put_xid(w, *holder);
        }
        Rejection::Deadlock { cycle } => {
            w.u8(4);
            w.list(cycle, |w, xid| put_xid(w, *xid));
        }
        Rejection::LockWaitTimedOut { holder } => {
            w.u8(5);
            put_xid(w, *holder);
        }
        Rejection::AlreadyDecided(decision) => {
            w.u8(6);
            put_decision(w, *decision);
        }
        Rejection::HolderBlocked { holder } => {
            w.u8(7);
            put_xid(w, *holder);
        }
        Rejection::ResourceIsAction => w.u8(8),
        Rejection::ResourceIsDatabase => w.u8(9),
        other @ (Rejection::TooLarge { .. }
        | Rejection::Malformed(_)
        | Rejection::LeaseEnded
        | Rejection::NoWorkerLeft
        | Rejection::OutsideLease
        | Rejection::TooManyOpen { .. }
        | Rejection::NotBegun
        | Rejection::Forgotten
        | Rejection::DifferentContent
        | Rejection::Withdrawn
        | Rejection::ResourceMismatch { .. }
        | Rejection::TooManyBranches { .. }
        | Rejection::PayloadsFull { .. }
        | Rejection::TooManyWaiting { .. }
        | Rejection::BranchUnknown
        | Rejection::BranchState(_)
        | Rejection::NotStuck
        | Rejection::OtherSaga
        | Rejection::ActionUnknown { .. }) => unreachable!("{other:?} is never remembered"),
    }
}

fn get_rejection(r: &mut Reader<'_>) -> Get<Rejection> {
    Ok(match r.u8()? {
        1 => Rejection::CommitAsked,
        2 => Rejection::ResourceUnknown,
        3 => Rejection::HolderRollingBack {
            holder: get_xid(r)?,
        },
        4 => Rejection::Deadlock {
            cycle: r.list(get_asker)?,
        },
        5 => Rejection::LockWaitTimedOut {
            holder: get_asker(r)?,
        },
        6 => Rejection::AlreadyDecided(get_decision(r)?),
        7 => Rejection::HolderBlocked {
            holder: get_xid(r)?,
        },
        8 => Rejection::ResourceIsAction,
        9 => Rejection::ResourceIsDatabase,
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "refusal",
                tag,
            });
        }
    })
}

fn put_repair(w: &mut Writer, repair: &RepairRecord) {
    w.varint(repair.branch.0.into());
    put_repair_verb(w, repair.verb);
    w.str(&repair.by);
    w.str(&repair.reason);
    w.varint(repair.wall.0);
}

fn get_repair(r: &mut Reader<'_>) -> Get<RepairRecord> {
    Ok(RepairRecord {
        branch: get_branch_id(r)?,
        verb: get_repair_verb(r)?,
        by: r.string()?,
        reason: r.string()?,
        wall: WallTime(r.varint()?),
    })
}

pub(super) fn put_ticket(w: &mut Writer, id: TicketId, ticket: &Ticket) {
    w.varint(id.0);
    w.varint(ticket.since.0);
    w.varint(ticket.until.0);
    let command = match &ticket.wanted {
        Wanted::Register(c) => Command::RegisterBranch(c.clone()),
        Wanted::Check(c) => Command::CheckLocks(c.clone()),
    };
    put_command(w, &command);
}

pub(super) fn get_ticket(r: &mut Reader<'_>) -> Get<(TicketId, Ticket)> {
    let id = TicketId(r.varint()?);
    let (since, until) = (Timestamp(r.varint()?), Timestamp(r.varint()?));
    let wanted = match get_command(r)? {
        Command::RegisterBranch(c) => Wanted::Register(c),
        Command::CheckLocks(c) => Wanted::Check(c),
        _ => {
            return Err(DecodeError::OutOfRange {
                what: "waiting request",
            });
        }
    };
    Ok((
        id,
        Ticket {
            wanted,
            since,
            until,
        },
    ))
}

pub(super) fn put_parked(w: &mut Writer, parked: &Parked) {
    w.varint(parked.until.0);
    w.list(&parked.commands, put_command);
}

pub(super) fn get_parked(r: &mut Reader<'_>) -> Get<Parked> {
    let until = Timestamp(r.varint()?);
    let commands: Vec<Command> = r.list(get_command)?;
    let parkable = |c: &Command| {
        matches!(
            c,
            Command::RegisterBranch(_)
                | Command::CheckLocks(_)
                | Command::WithdrawBranch(_)
                | Command::StartSaga(_)
        )
    };
    if commands.iter().all(parkable) {
        Ok(Parked { until, commands })
    } else {
        Err(DecodeError::OutOfRange {
            what: "parked request",
        })
    }
}
