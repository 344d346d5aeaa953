mod golden;

use alloc::{format, string::String, sync::Arc, vec, vec::Vec};

use proptest::prelude::*;

use super::{Batch, DecodeError, decode_batch, encode_batch};
use crate::{
    command::*, id::*, lock_mode::*, mode::Mode, payload::Payload, retention::Retention, saga::*,
};

fn xid() -> impl Strategy<Value = Xid> {
    (1..=u64::MAX >> 1).prop_filter_map("not zero", Xid::new)
}

/// A transaction, or what stands for a local one.
fn asker() -> impl Strategy<Value = Xid> {
    prop_oneof![xid(), request().prop_map(Xid::outside)]
}

fn request() -> impl Strategy<Value = RequestId> {
    (any::<u64>(), any::<u64>()).prop_map(|(process, sequence)| RequestId {
        process: ProcessId(process),
        sequence,
    })
}

fn worker() -> impl Strategy<Value = WorkerId> {
    (0..=WorkerId::MAX.0).prop_map(WorkerId)
}

fn text() -> impl Strategy<Value = String> {
    ".{0,40}"
}

fn keys() -> impl Strategy<Value = Vec<LockKey>> {
    prop::collection::vec(key(), 0..5)
}

fn key() -> impl Strategy<Value = LockKey> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Arc::from)
}

fn locks() -> impl Strategy<Value = Vec<RowLock>> {
    let delta = (text(), any::<[i64; 4]>()).prop_map(|(column, [delta, value, lower, upper])| {
        ColumnDelta {
            column: column.into(),
            delta,
            value,
            lower,
            upper,
        }
    });
    let mode = prop_oneof![
        2 => Just(LockMode::Exclusive),
        1 => Just(LockMode::Shared),
        1 => prop::collection::vec(delta, 0..3).prop_map(|deltas| LockMode::Escrow(Arc::new(deltas))),
    ];
    let lock = (key(), mode).prop_map(|(key, mode)| RowLock { key, mode });
    prop::collection::vec(lock, 0..5)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Payload::from(&bytes[..]))
}

fn problem() -> impl Strategy<Value = Problem> {
    (text(), text(), text()).prop_map(|(reason, difference, repair_statement)| Problem {
        reason,
        difference,
        repair_statement,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Finished),
        problem().prop_map(Outcome::Failed),
        problem().prop_map(Outcome::Unavailable),
        problem().prop_map(Outcome::Stuck),
        Just(Outcome::PreCommitted),
        Just(Outcome::Prepared),
        payload().prop_map(Outcome::Ran),
        problem().prop_map(Outcome::Refused),
        (problem(), any::<u32>()).prop_map(|(problem, ms)| Outcome::Later(problem, ms)),
    ]
}

fn verb() -> impl Strategy<Value = RepairVerb> {
    prop::sample::select(vec![
        RepairVerb::Retry,
        RepairVerb::Apply,
        RepairVerb::Accept,
        RepairVerb::Skip,
    ])
}

fn lease_commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(ms, transactions)| {
            let retention = Retention { ms, transactions };
            Command::TakeOffice(TakeOffice { retention })
        }),
        Just(Command::Expire),
        (any::<u64>(), text(), prop::option::of(worker())).prop_map(|(process, name, worker)| {
            Command::LeaseWorker(LeaseWorker {
                process: ProcessId(process),
                name,
                worker,
            })
        }),
        (any::<u64>(), worker()).prop_map(|(process, worker)| {
            Command::EndLease(EndLease {
                process: ProcessId(process),
                worker,
            })
        }),
        (
            any::<u64>(),
            xid(),
            text(),
            any::<u32>(),
            prop::option::of(xid())
        )
            .prop_map(|(process, xid, name, timeout_ms, parent)| {
                let process = ProcessId(process);
                Command::Begin(Begin {
                    process,
                    xid,
                    name: name.into(),
                    timeout_ms,
                    parent,
                })
            }),
        (text(), any::<[u8; 16]>()).prop_map(|(resource, database)| {
            Command::BindResource(BindResource {
                resource: resource.into(),
                database,
            })
        }),
        text().prop_map(|action| Command::NameAction(NameAction {
            action: action.into()
        })),
    ]
}

fn lock_commands() -> impl Strategy<Value = Command> {
    let register = (
        xid(),
        request(),
        any::<Option<u64>>(),
        text(),
        (prop::sample::select(&Mode::ALL[..]), locks(), payload()),
        any::<(u32, bool, bool)>(),
    );
    let check = (
        asker(),
        request(),
        text(),
        keys(),
        any::<(u32, bool, bool)>(),
    );
    prop_oneof![
        register.prop_map(
            |(
                xid,
                request,
                agent,
                resource,
                (mode, locks, payload),
                (wait_limit_ms, local, open),
            )| {
                Command::RegisterBranch(RegisterBranch {
                    xid,
                    request,
                    agent: agent.map_or(request.process, ProcessId),
                    resource: resource.into(),
                    mode,
                    locks,
                    payload,
                    wait_limit_ms,
                    holds_local_locks: local,
                    can_keep_open: open,
                })
            }
        ),
        check.prop_map(
            |(xid, request, resource, locks, (wait_limit_ms, holds_local_locks, shared))| {
                let resource = resource.into();
                Command::CheckLocks(CheckLocks {
                    xid,
                    request,
                    resource,
                    locks,
                    shared,
                    wait_limit_ms,
                    holds_local_locks,
                })
            }
        ),
    ]
}

fn branch_commands() -> impl Strategy<Value = Command> {
    let branch = || any::<u32>().prop_map(BranchId);
    prop_oneof![
        (xid(), branch()).prop_map(|(xid, branch)| Command::BranchDone(BranchDone { xid, branch })),
        (asker(), request())
            .prop_map(|(xid, request)| Command::WithdrawBranch(WithdrawBranch { xid, request })),
        (xid(), branch(), text()).prop_map(|(xid, branch, detail)| Command::DoomBranch(
            DoomBranch {
                xid,
                branch,
                detail
            }
        )),
        xid().prop_map(|xid| Command::Commit(Commit { xid })),
        xid().prop_map(|xid| Command::Blocked(Blocked { xid })),
        (xid(), text()).prop_map(|(xid, detail)| Command::RollBack(RollBack { xid, detail })),
        (xid(), branch(), any::<u32>(), any::<u64>(), outcome()).prop_map(
            |(xid, branch, attempt, epoch, outcome)| Command::FinishBranch(FinishBranch {
                xid,
                branch,
                attempt: Attempt(attempt),
                epoch: Epoch(epoch),
                outcome,
            })
        ),
        (xid(), prop::option::of(branch()), verb(), text(), text()).prop_map(
            |(xid, branch, verb, by, reason)| Command::Repair(Repair {
                xid,
                branch,
                verb,
                by,
                reason
            })
        ),
    ]
}

fn step() -> impl Strategy<Value = StepPlan> {
    let policy = prop_oneof![
        Just(OnTrouble::Forward),
        any::<u32>().prop_map(|attempts| OnTrouble::Backward { attempts }),
    ];
    let after = prop::collection::vec(any::<u16>(), 0..4);
    let place = (text(), any::<bool>());
    (text(), place, payload(), after, any::<u32>(), policy).prop_map(
        |(name, (resource, callback), input, after, attempt_timeout_ms, on_trouble)| StepPlan {
            name: name.into(),
            resource: resource.into(),
            callback,
            input,
            after,
            attempt_timeout_ms,
            on_trouble,
        },
    )
}

fn start_saga() -> impl Strategy<Value = Command> {
    let steps = prop::collection::vec(step(), 0..4);
    (xid(), request(), steps, any::<bool>()).prop_map(|(xid, request, steps, commit_when_done)| {
        Command::StartSaga(StartSaga {
            xid,
            request,
            steps,
            commit_when_done,
        })
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let command = prop_oneof![
        3 => lease_commands(),
        3 => lock_commands(),
        3 => branch_commands(),
        1 => start_saga(),
    ];
    (any::<(u64, u64)>(), prop::collection::vec(command, 0..12)).prop_map(
        |((at, wall), commands)| Batch {
            at: Timestamp(at),
            wall: WallTime(wall),
            commands,
        },
    )
}

fn encode(batch: &Batch) -> Vec<u8> {
    encode_batch(batch.at, batch.wall, &batch.commands)
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(batch in batch()) {
        prop_assert_eq!(decode_batch(&encode(&batch)), Ok(batch));
    }

    #[test]
    fn every_shortened_form_is_refused(batch in batch(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&batch);
        prop_assert!(decode_batch(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics(
        batch in batch(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode(&batch);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = decode_batch(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_batch(&bytes);
        bytes.splice(0..0, [1, 0, 0, 3]);
        let _ = decode_batch(&bytes);
    }
}

/// A batch of one command whose bytes follow the head.
fn refused(command: &[u8]) -> DecodeError {
    let mut bytes = vec![1, 0, 0, 1];
    bytes.extend_from_slice(command);
    decode_batch(&bytes).unwrap_err()
}

#[test]
fn each_kind_of_damage_has_its_name() {
    use DecodeError::*;
    assert_eq!(decode_batch(&[]), Err(Truncated));
    assert_eq!(
        decode_batch(&[2, 0, 0, 0]),
        Err(UnknownVersion {
            what: "batch of commands",
            version: 2
        })
    );
    assert_eq!(
        decode_batch(&[1, 0, 0, 0, 9, 9]),
        Err(TrailingBytes { left: 2 })
    );
    assert_eq!(
        decode_batch(&[1, 0, 0, 2, 1]),
        Err(Truncated),
        "two commands in one byte"
    );
    assert_eq!(
        decode_batch(&[1, 0x80, 0x00, 0, 0]),
        Err(BadNumber),
        "not the shortest form"
    );
    let eleven_bytes = [1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
    assert_eq!(decode_batch(&eleven_bytes), Err(BadNumber));
    let bit_65 = [1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
    assert_eq!(decode_batch(&bit_65), Err(BadNumber));

    assert_eq!(
        refused(&[0]),
        UnknownTag {
            what: "command",
            tag: 0
        }
    );
    assert_eq!(
        refused(&[99]),
        UnknownTag {
            what: "command",
            tag: 99
        }
    );
    assert_eq!(refused(&[11; 4]), Truncated);
    assert_eq!(
        refused(&[11, 0, 0, 0, 0, 0, 0, 0, 0]),
        OutOfRange {
            what: "transaction id"
        }
    );
    let lease = |worker: &[u8]| [&[3, 0, 0, 0, 0, 0, 0, 0, 0], worker].concat();
    assert_eq!(
        refused(&lease(&[0x80, 0x40])),
        OutOfRange { what: "worker id" }
    );
    assert_eq!(
        refused(&lease(&[0x80, 0x80, 0x40])),
        OutOfRange { what: "worker id" }
    );
    assert_eq!(refused(&[5, 2, 0xc3, 0x28, 0]), NotText);
    assert_eq!(
        refused(&[5, 200, 1, b'a']),
        Truncated,
        "length beyond the end"
    );
    let after_xid = |tag: u8, rest: &[u8]| [&[tag, 1, 0, 0, 0, 0, 0, 0, 0], rest].concat();
    let finish = after_xid(13, &[1, 1, 1, 99]);
    assert_eq!(
        refused(&finish),
        UnknownTag {
            what: "outcome",
            tag: 99
        }
    );
    assert_eq!(
        refused(&after_xid(15, &[0, 9])),
        UnknownTag {
            what: "repair verb",
            tag: 9
        }
    );
    assert_eq!(
        refused(&after_xid(15, &[2])),
        UnknownTag {
            what: "yes or no",
            tag: 2
        }
    );
    let saga = |rest: &[u8]| after_xid(19, &[&[7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1], rest].concat());
    assert_eq!(
        refused(&saga(&[4, 0, 0, 0, 0, 0])),
        UnknownTag {
            what: "set of step flags",
            tag: 4
        }
    );
    let register = |rest: &[u8]| after_xid(6, &[&[7, 0, 0, 0, 0, 0, 0, 0, 3], rest].concat());
    assert_eq!(
        refused(&register(&[32])),
        UnknownTag {
            what: "set of register flags",
            tag: 32
        }
    );
    assert_eq!(
        refused(&register(&[1, 0, 6])),
        UnknownTag {
            what: "mode",
            tag: 6
        }
    );
}

#[test]
fn messages_say_what_is_wrong() {
    let shown = |error: DecodeError| format!("{error}");
    assert_eq!(
        shown(DecodeError::Truncated),
        "the bytes end in the middle of a value"
    );
    assert_eq!(
        shown(DecodeError::TrailingBytes { left: 3 }),
        "3 bytes follow the last value"
    );
    assert_eq!(
        shown(DecodeError::BadNumber),
        "a variable-length number is malformed"
    );
    assert_eq!(
        shown(DecodeError::OutOfRange { what: "worker id" }),
        "a number is not a valid worker id"
    );
    assert_eq!(
        shown(DecodeError::UnknownVersion {
            what: "snapshot",
            version: 9
        }),
        "version 9 of a snapshot is not known here; a newer accede wrote it, use that one or a \
         newer one"
    );
    assert_eq!(
        shown(DecodeError::UnknownTag {
            what: "command",
            tag: 77
        }),
        "77 is not a known command"
    );
    assert_eq!(shown(DecodeError::NotText), "a text is not valid UTF-8");
}

#[test]
fn a_register_with_one_lock_is_small() {
    let register = Command::RegisterBranch(RegisterBranch {
        xid: Xid::new(0x0123_4567_89ab_cdef).unwrap(),
        request: RequestId {
            process: ProcessId(u64::MAX),
            sequence: 1_000_000,
        },
        agent: ProcessId(u64::MAX),
        resource: "stock".into(),
        mode: Mode::At,
        locks: vec![LockKey::from([7; 30]).into()],
        payload: Payload::default(),
        wait_limit_ms: 3_000,
        holds_local_locks: true,
        can_keep_open: false,
    });
    let alone = encode_batch(Timestamp(0), WallTime(0), &[]).len();
    let with_it = encode_batch(Timestamp(0), WallTime(0), &[register]).len();
    assert!(with_it - alone <= 64, "{} bytes", with_it - alone);
}
