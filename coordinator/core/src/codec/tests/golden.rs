use alloc::{format, string::String, sync::Arc, vec, vec::Vec};

use crate::{
    codec::{Batch, decode_batch, encode_batch},
    command::*,
    id::*,
    lock_mode::*,
    mode::Mode,
    payload::Payload,
    retention::Retention,
    saga::{OnTrouble, StepPlan},
};

/// Version 1, command by command. These bytes are in logs: they may be added to, never changed.
fn golden() -> Vec<(Command, &'static str)> {
    let xid = Xid::new(0x0123_4567_89ab_cdef).unwrap();
    let parent = Xid::new(0x0123_4567_89ab_cdee).unwrap();
    let process = ProcessId(0x1122_3344_5566_7788);
    let worker = WorkerId(300);
    let request = RequestId {
        process,
        sequence: 300,
    };
    let branch = BranchId(2);
    let problem = || Problem {
        reason: "r".into(),
        difference: "d".into(),
        repair_statement: "s".into(),
    };
    let finish = |outcome| {
        let (attempt, epoch) = (Attempt(3), Epoch(1000));
        Command::FinishBranch(FinishBranch {
            xid,
            branch,
            attempt,
            epoch,
            outcome,
        })
    };
    let register = |agent, locks| {
        Command::RegisterBranch(RegisterBranch {
            xid,
            request,
            agent,
            resource: "stock".into(),
            mode: Mode::At,
            locks,
            payload: Payload::default(),
            wait_limit_ms: 3_000,
            holds_local_locks: true,
            can_keep_open: false,
        })
    };
    let in_mode = |mode, payload: &[u8]| {
        Command::RegisterBranch(RegisterBranch {
            xid,
            request,
            agent: process,
            resource: "freeze".into(),
            mode,
            locks: vec![],
            payload: Payload::from(payload),
            wait_limit_ms: 0,
            holds_local_locks: false,
            can_keep_open: false,
        })
    };
    let kept_open = || {
        let Command::RegisterBranch(register) = in_mode(Mode::Xa, b"") else {
            unreachable!("it is a register");
        };
        Command::RegisterBranch(RegisterBranch {
            can_keep_open: true,
            ..register
        })
    };
    let exclusive = || vec![key(b"k1").into(), key(b"k22").into()];
    let deltas = vec![ColumnDelta {
        column: "count".into(),
        delta: -3,
        value: 7,
        lower: 0,
        upper: 10,
    }];
    let mixed = vec![
        key(b"k1").into(),
        RowLock {
            key: key(b"k2"),
            mode: LockMode::Shared,
        },
        RowLock {
            key: key(b"k3"),
            mode: LockMode::Escrow(Arc::new(deltas)),
        },
    ];
    let check = |shared| CheckLocks {
        xid,
        request,
        resource: "stock".into(),
        locks: vec![key(b"k1")],
        shared,
        wait_limit_ms: 3_000,
        holds_local_locks: false,
    };
    let repair = |branch, verb| {
        Command::Repair(Repair {
            xid,
            branch,
            verb,
            by: "ann".into(),
            reason: "seen".into(),
        })
    };
    let step = |name: &str, place: &str, callback, after: &[u16], on_trouble| StepPlan {
        name: name.into(),
        resource: place.into(),
        callback,
        input: Payload::from(&b"{}"[..]),
        after: after.to_vec(),
        attempt_timeout_ms: 300,
        on_trouble,
    };
    let saga = || {
        let backward = OnTrouble::Backward { attempts: 3 };
        Command::StartSaga(StartSaga {
            xid,
            request,
            steps: vec![
                step("a", "ship", false, &[], backward),
                step("b", "http://h/", true, &[0], OnTrouble::Forward),
            ],
            commit_when_done: true,
        })
    };
    let lease = |worker| {
        Command::LeaseWorker(LeaseWorker {
            process,
            name: "w".into(),
            worker,
        })
    };
    let begin = |parent| {
        let name = "place-order".into();
        Command::Begin(Begin {
            process,
            xid,
            name,
            timeout_ms: 30_000,
            parent,
        })
    };
    let bind = BindResource {
        resource: "stock".into(),
        database: *b"0123456789abcdef",
    };
    vec![
        (lease(None), "028877665544332211017700"),
        (lease(Some(worker)), "028877665544332211017701ac02"),
        (
            Command::EndLease(EndLease { process, worker }),
            "038877665544332211ac02",
        ),
        (
            begin(None),
            "048877665544332211efcdab89674523010b706c6163652d6f72646572b0ea0100",
        ),
        (
            begin(Some(parent)),
            "048877665544332211efcdab89674523010b706c6163652d6f72646572b0ea0101eecdab8967452301",
        ),
        (
            Command::BindResource(bind),
            "050573746f636b30313233343536373839616263646566",
        ),
        (
            register(process, exclusive()),
            "06efcdab89674523018877665544332211ac02030573746f636b0102026b31036b3232b817",
        ),
        (
            register(ProcessId(5), exclusive()),
            "06efcdab89674523018877665544332211ac020205000000000000000573746f636b0102026b31036b3232b817",
        ),
        (
            register(process, mixed),
            "06efcdab89674523018877665544332211ac02070573746f636b0103026b31026b32026b330102030105636f756e74fdffffffffffffff070000000000000000000000000000000a00000000000000b817",
        ),
        (
            Command::CheckLocks(check(true)),
            "07efcdab89674523018877665544332211ac02020573746f636b01026b31b817",
        ),
        (
            Command::CheckLocks(check(false)),
            "07efcdab89674523018877665544332211ac02000573746f636b01026b31b817",
        ),
        (
            Command::BranchDone(BranchDone { xid, branch }),
            "08efcdab896745230102",
        ),
        (
            Command::WithdrawBranch(WithdrawBranch { xid, request }),
            "09efcdab89674523018877665544332211ac02",
        ),
        (
            Command::DoomBranch(DoomBranch {
                xid,
                branch,
                detail: "lost".into(),
            }),
            "0aefcdab896745230102046c6f7374",
        ),
        (Command::Commit(Commit { xid }), "0befcdab8967452301"),
        (
            Command::RollBack(RollBack {
                xid,
                detail: "no".into(),
            }),
            "0cefcdab8967452301026e6f",
        ),
        (finish(Outcome::Finished), "0defcdab89674523010203e80701"),
        (
            finish(Outcome::Failed(problem())),
            "0defcdab89674523010203e80702017201640173",
        ),
        (
            finish(Outcome::Unavailable(problem())),
            "0defcdab89674523010203e80703017201640173",
        ),
        (
            finish(Outcome::Stuck(problem())),
            "0defcdab89674523010203e80704017201640173",
        ),
        (
            finish(Outcome::PreCommitted),
            "0defcdab89674523010203e80708",
        ),
        (Command::Expire, "0e"),
        (
            repair(None, RepairVerb::Retry),
            "0fefcdab8967452301000103616e6e047365656e",
        ),
        (
            repair(Some(branch), RepairVerb::Apply),
            "0fefcdab896745230101020203616e6e047365656e",
        ),
        (
            repair(Some(branch), RepairVerb::Accept),
            "0fefcdab896745230101020303616e6e047365656e",
        ),
        (
            repair(Some(branch), RepairVerb::Skip),
            "0fefcdab896745230101020403616e6e047365656e",
        ),
        (Command::Blocked(Blocked { xid }), "10efcdab8967452301"),
        (
            Command::TakeOffice(TakeOffice {
                retention: Retention {
                    ms: 86_400_000,
                    transactions: 300,
                },
            }),
            "1180b89929ac02",
        ),
        (
            Command::NameAction(NameAction {
                action: "freeze".into(),
            }),
            "1206667265657a65",
        ),
        (
            in_mode(Mode::Xa, b""),
            "06efcdab89674523018877665544332211ac020106667265657a65020000",
        ),
        (
            in_mode(Mode::Tcc, b"{}"),
            "06efcdab89674523018877665544332211ac020906667265657a65030000027b7d",
        ),
        (
            in_mode(Mode::Saga, b""),
            "06efcdab89674523018877665544332211ac020106667265657a65040000",
        ),
        (
            in_mode(Mode::ThreePhase, b""),
            "06efcdab89674523018877665544332211ac020106667265657a65050000",
        ),
        (
            finish(Outcome::Ran(Payload::from(&b"{}"[..]))),
            "0defcdab89674523010203e80705027b7d",
        ),
        (
            finish(Outcome::Refused(problem())),
            "0defcdab89674523010203e80706017201640173",
        ),
        (
            finish(Outcome::Later(problem(), 300)),
            "0defcdab89674523010203e80707017201640173ac02",
        ),
        (finish(Outcome::Prepared), "0defcdab89674523010203e80709"),
        (
            kept_open(),
            "06efcdab89674523018877665544332211ac021106667265657a65020000",
        ),
        (
            saga(),
            "13efcdab89674523018877665544332211ac0201020001610473686970027b7d00ac020303016209687474703a2f2f682f027b7d0100ac02",
        ),
    ]
}

fn key(bytes: &[u8]) -> LockKey {
    LockKey::from(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_version_1_stay_readable() {
    // at 1000, wall 1_767_225_600_000, one command.
    let head = "01e80780d0eab6b73301";
    for (command, expected) in golden() {
        let (at, wall) = (Timestamp(1000), WallTime::XID_EPOCH);
        let bytes = encode_batch(at, wall, core::slice::from_ref(&command));
        assert_eq!(hex(&bytes), format!("{head}{expected}"), "{command:?}");
        assert_eq!(
            decode_batch(&bytes),
            Ok(Batch {
                at,
                wall,
                commands: vec![command]
            })
        );
    }
}
