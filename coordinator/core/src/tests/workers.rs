//! Leases: who may make XIDs, and in which range.

use super::*;

fn lease(w: &mut World, process: u64, worker: Option<WorkerId>) -> Reply {
    w.apply(Command::LeaseWorker(LeaseWorker {
        process: ProcessId(process),
        name: "front".into(),
        worker,
    }))
}

fn granted(reply: Reply) -> Lease {
    match reply {
        Reply::Leased(lease) => lease,
        other => panic!("expected a lease, got {other:?}"),
    }
}

#[test]
fn ids_and_ranges_are_disjoint() {
    let mut w = World::new();
    let first = granted(lease(&mut w, 10, None));
    assert_eq!(
        granted(lease(&mut w, 10, None)).worker,
        first.worker,
        "a lost answer"
    );
    let second = granted(lease(&mut w, 11, None));
    assert_ne!(first.worker, second.worker);
    let end = Command::EndLease(EndLease {
        process: ProcessId(10),
        worker: first.worker,
    });
    assert_eq!(w.apply(end.clone()), Reply::Ok);
    assert_eq!(w.apply(end), Reply::Refused(Rejection::LeaseEnded));
    let next = granted(lease(&mut w, 12, None));
    assert_eq!(next.worker, first.worker);
    assert!(
        next.floor_ms >= first.ceiling_ms,
        "above all that the first could have made"
    );
}

#[test]
fn a_renewal_reaches_further() {
    let mut w = World::new();
    let first = granted(lease(&mut w, 10, None));
    w.pass(10_000);
    let renewed = granted(lease(&mut w, 10, Some(first.worker)));
    assert_eq!(renewed.floor_ms, first.floor_ms);
    assert!(renewed.ceiling_ms > first.ceiling_ms);
    w.renew();
    w.pass(10_000);
    w.expire_now();
    assert_eq!(
        w.state.worker_name(first.worker),
        Some("front"),
        "counted from the renewal"
    );
}

#[test]
fn a_clock_that_is_set_back_neither_repeats_ids_nor_runs_out_of_them() {
    let mut w = World::new();
    w.pass(100_000);
    let first = granted(lease(&mut w, 10, None));
    w.clock_set_back = 90_000;
    w.pass(10_000);
    let renewed = granted(lease(&mut w, 10, Some(first.worker)));
    assert_eq!(renewed.ceiling_ms, first.ceiling_ms + 10_000);
    let end = Command::EndLease(EndLease {
        process: ProcessId(10),
        worker: first.worker,
    });
    w.apply(end);
    let next = granted(lease(&mut w, 11, None));
    assert_eq!(next.worker, first.worker);
    assert_eq!(next.floor_ms, renewed.ceiling_ms);
}

#[test]
fn the_end_of_a_lease_rolls_back_what_is_undecided() {
    let mut w = World::new();
    let open = w.begin();
    w.branch(open, "a", &["1"]);
    let decided = w.begin();
    w.branch(decided, "a", &["2"]);
    w.commit(decided);
    w.pass(u64::from(limits::LEASE_TTL_MS));
    w.expire_now();
    assert_eq!(
        w.state.transaction(open).and_then(Transaction::reason),
        Some(&RollBackReason::LeaseEnded)
    );
    assert_eq!(w.status(decided), Status::Committing);
    assert_eq!(
        w.renew(),
        Reply::Refused(Rejection::LeaseEnded),
        "its ids must not go on"
    );
    let late = w.next_xid();
    assert_eq!(
        w.begin_reply(late, 1_000, None),
        Reply::Refused(Rejection::LeaseEnded)
    );
}

#[test]
fn begins_must_be_in_the_lease_and_grow() {
    let mut w = World::new();
    let lease = granted(lease(&mut w, 10, None));
    let xid = |time: u64, sequence: u64| {
        Xid::new((time << 22) | (sequence << 13) | u64::from(lease.worker.0)).expect("not zero")
    };
    let mut begin = |process, xid| {
        w.apply(Command::Begin(Begin {
            process: ProcessId(process),
            xid,
            name: "".into(),
            timeout_ms: 1_000,
            parent: None,
        }))
    };
    let outside = Reply::Refused(Rejection::OutsideLease);
    assert_eq!(begin(10, xid(lease.floor_ms - 1, 0)), outside);
    assert_eq!(begin(10, xid(lease.ceiling_ms, 0)), outside);
    assert_eq!(
        begin(11, xid(lease.floor_ms, 0)),
        Reply::Refused(Rejection::LeaseEnded),
        "not its"
    );
    assert_eq!(begin(10, xid(lease.floor_ms, 5)), Reply::Ok);
    let back = begin(10, xid(lease.floor_ms, 4));
    assert_eq!(back, Reply::Refused(Rejection::Forgotten), "ids only grow");
}

#[test]
fn worker_ids_run_out_politely() {
    let mut w = World::new();
    for process in 0..u64::from(WorkerId::MAX.0) {
        let command = Command::LeaseWorker(LeaseWorker {
            process: ProcessId(1_000 + process),
            name: String::new(),
            worker: None,
        });
        let entry = Entry {
            index: 9,
            at: w.state.now(),
            wall: WallTime(0),
            command,
        };
        assert!(matches!(
            w.state.apply(entry, &mut Vec::new()),
            Reply::Leased(_)
        ));
    }
    assert_eq!(
        lease(&mut w, 7, None),
        Reply::Refused(Rejection::NoWorkerLeft)
    );
}
