//! Begin, register, done, commit.

use super::*;

#[test]
fn commits_everywhere() {
    let mut w = World::new();
    let xid = w.begin();
    let a = w.branch(xid, "a", &["1"]);
    let b = w.branch(xid, "b", &["1"]);
    assert_eq!(w.commit(xid), Reply::Decided(Decision::Commit, None));
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::Commit, 1), (xid, 2, Action::Commit, 1)]
    );
    assert_eq!(
        w.state.counts().row_locks,
        0,
        "a commit frees its locks at the decision"
    );
    assert_eq!(w.status(xid), Status::Committing);
    w.finish(xid, b, Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committing);
    w.finish(xid, a, Outcome::Finished);
    assert_eq!(w.status(xid), Status::Committed);
    let ended = Effect::Ended {
        xid,
        decision: Decision::Commit,
    };
    assert!(w.effects.contains(&ended));
}

#[test]
fn a_transaction_without_branches_ends_with_its_decision() {
    let mut w = World::new();
    let xid = w.begin();
    assert_eq!(w.commit(xid), Reply::Decided(Decision::Commit, None));
    assert_eq!(w.status(xid), Status::Committed);
    assert_eq!(
        w.commit(xid),
        Reply::Decided(Decision::Commit, None),
        "a repeat hears the same"
    );
    assert_eq!(
        w.roll_back(xid),
        Reply::Decided(Decision::Commit, None),
        "never reverts"
    );
}

#[test]
fn commit_waits_for_done_that_is_under_way() {
    let mut w = World::new();
    let xid = w.begin();
    let branch = w.register(xid, "a", &["1"]);
    let waiting = Reply::Waiting(Waiter::Commit(xid));
    assert_eq!(w.commit(xid), waiting);
    assert_eq!(w.commit(xid), waiting, "a repeat joins");
    assert_eq!(
        w.try_register(xid, "b", &["1"]),
        Reply::Refused(Rejection::CommitAsked),
        "nothing joins once commit was asked"
    );
    assert_eq!(w.done(xid, branch), Reply::Ok);
    let decided = Reply::Decided(Decision::Commit, None);
    assert_eq!(w.answers(), [(Waiter::Commit(xid), decided)]);
    assert_eq!(w.orders(), [(xid, 1, Action::Commit, 1)]);
}

#[test]
fn a_branch_that_never_reports_done_rolls_everything_back() {
    let mut w = World::new();
    let xid = w.begin();
    w.branch(xid, "a", &["1"]);
    let silent = w.register(xid, "b", &["1"]);
    w.commit(xid);
    w.expire();
    let reason = RollBackReason::BranchUnfinished(silent);
    let decided = Reply::Decided(Decision::RollBack, Some(reason));
    assert_eq!(w.answers(), [(Waiter::Commit(xid), decided.clone())]);
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::RollBack, 1), (xid, 2, Action::RollBack, 1)]
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    assert_eq!(w.commit(xid), decided);
}

#[test]
fn a_withdrawn_branch_does_not_count() {
    let mut w = World::new();
    let xid = w.begin();
    w.branch(xid, "a", &["1"]);
    let registration = w.registration(xid, "b", &["1"]);
    assert!(registered(
        &w.apply(Command::RegisterBranch(registration.clone()))
    ));
    w.commit(xid);
    let withdraw = Command::WithdrawBranch(WithdrawBranch {
        xid,
        request: registration.request,
    });
    assert_eq!(w.apply(withdraw.clone()), Reply::Ok);
    assert_eq!(w.status(xid), Status::Committing);
    assert_eq!(
        w.orders(),
        [(xid, 1, Action::Commit, 1)],
        "only the branch that is done"
    );
    assert_eq!(w.apply(withdraw), Reply::Ok, "a repeat is fine");
}

#[test]
fn a_request_withdrawn_before_the_begin_is_refused_when_it_comes() {
    let mut w = World::new();
    let xid = w.next_xid();
    let registration = w.registration(xid, "a", &["1"]);
    let withdraw = WithdrawBranch {
        xid,
        request: registration.request,
    };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    let reply = w.apply(Command::RegisterBranch(registration.clone()));
    assert_eq!(reply, Reply::Waiting(waiter(&registration)));
    assert_eq!(w.begin_reply(xid, 1_000, None), Reply::Ok);
    let refused = Reply::Refused(Rejection::Withdrawn);
    assert_eq!(w.answers(), [(waiter(&registration), refused)]);
}

#[test]
fn repeats_get_the_same_answer_and_other_content_is_refused() {
    let mut w = World::new();
    let xid = w.begin();
    let registration = w.registration(xid, "a", &["1"]);
    let first = w.apply(Command::RegisterBranch(registration.clone()));
    // Also the time that is left is told as it was: the agent counts it from its first request.
    w.pass(700);
    assert_eq!(
        w.apply(Command::RegisterBranch(registration.clone())),
        first
    );
    assert_eq!(
        w.state.transaction(xid).map(|t| t.branches().len()),
        Some(1)
    );
    let other = RegisterBranch {
        locks: alloc::vec![LockKey::from(&b"2"[..]).into()],
        ..registration.clone()
    };
    let reply = w.apply(Command::RegisterBranch(other));
    assert_eq!(reply, Reply::Refused(Rejection::DifferentContent));
    let check = CheckLocks {
        xid,
        request: registration.request,
        resource: registration.resource,
        locks: registration
            .locks
            .into_iter()
            .map(|lock| lock.key)
            .collect(),
        shared: false,
        wait_limit_ms: 0,
        holds_local_locks: true,
    };
    assert_eq!(
        w.apply(Command::CheckLocks(check)),
        Reply::Refused(Rejection::DifferentContent)
    );
    assert_eq!(
        w.begin_reply(xid, 60_000, None),
        Reply::Ok,
        "a begin sent again"
    );
}

#[test]
fn nothing_joins_a_decided_transaction() {
    let mut w = World::new();
    let xid = w.begin();
    w.branch(xid, "a", &["1"]);
    w.commit(xid);
    let reply = w.try_register(xid, "a", &["2"]);
    assert_eq!(
        reply,
        Reply::Refused(Rejection::AlreadyDecided(Decision::Commit))
    );
}

#[test]
fn unknown_and_forgotten_are_told_apart() {
    let mut w = World::new();
    let never = w.next_xid();
    assert_eq!(w.commit(never), Reply::Refused(Rejection::NotBegun));
    let xid = w.begin();
    w.commit(xid);
    assert_eq!(
        w.commit(never),
        Reply::Refused(Rejection::Forgotten),
        "below what was begun"
    );
    w.pass(limits::RETENTION_MS);
    w.expire_now();
    assert_eq!(w.state.transaction(xid), None);
    assert_eq!(w.commit(xid), Reply::Refused(Rejection::Forgotten));
    assert_eq!(w.roll_back(xid), Reply::Refused(Rejection::Forgotten));
    assert_eq!(
        w.try_register(xid, "a", &["1"]),
        Reply::Refused(Rejection::Forgotten)
    );
    assert_eq!(
        w.done(xid, BranchId(1)),
        Reply::Ok,
        "late news of what is over"
    );
}

#[test]
fn ended_transactions_are_bounded() {
    let mut w = World::new();
    // Checking everything after each of so many entries would take minutes.
    let mut effects = Effects::new();
    let mut apply = |state: &mut State, index: usize, command| {
        let at = state.now();
        let wall = WallTime(WallTime::XID_EPOCH.0 + at.0);
        let entry = Entry {
            index: 100 + index as u64,
            at,
            wall,
            command,
        };
        effects.clear();
        state.apply(entry, &mut effects)
    };
    let first = w.begin();
    w.commit(first);
    let mut last = first;
    for i in 0..limits::RETENTION_TRANSACTIONS as usize {
        last = Xid::new(last.get() + (1 << 13)).expect("it is small");
        let begin = Begin {
            process: CLIENT,
            xid: last,
            name: "".into(),
            timeout_ms: 1,
            parent: None,
        };
        assert_eq!(apply(&mut w.state, i, Command::Begin(begin)), Reply::Ok);
        apply(&mut w.state, i, Command::Commit(Commit { xid: last }));
    }
    assert_eq!(w.state.counts().committed, limits::RETENTION_TRANSACTIONS);
    assert_eq!(
        w.state.whereabouts(first),
        Whereabouts::Forgotten,
        "the oldest went"
    );
    assert_eq!(w.state.whereabouts(last), Whereabouts::Known);
}

#[test]
fn requests_wait_for_a_begin_that_is_under_way() {
    let mut w = World::new();
    let xid = w.next_xid();
    let early = w.queue(xid, "a", &["1"]);
    let gone = w.queue(xid, "a", &["2"]);
    let withdraw = WithdrawBranch {
        xid,
        request: gone.request,
    };
    assert_eq!(w.apply(Command::WithdrawBranch(withdraw)), Reply::Ok);
    assert_eq!(w.begin_reply(xid, 60_000, None), Reply::Ok);
    let answers: BTreeMap<_, _> = w.answers().into_iter().collect();
    assert!(registered(&answers[&waiter(&early)]));
    let branches = w.state.transaction(xid).expect("begun").branches();
    let statuses: Vec<_> = branches.iter().map(Branch::status).collect();
    assert_eq!(
        statuses,
        [BranchStatus::Registered, BranchStatus::Withdrawn]
    );
}

#[test]
fn a_begin_that_never_comes_is_not_waited_for_long() {
    let mut w = World::new();
    let xid = w.next_xid();
    let early = w.queue(xid, "a", &["1"]);
    let less_patient = RegisterBranch {
        wait_limit_ms: early.wait_limit_ms / 2,
        ..early.clone()
    };
    let repeated = w.apply(Command::RegisterBranch(less_patient));
    assert_eq!(repeated, Reply::Waiting(waiter(&early)), "kept once");
    w.pass(limits::PARK_MS);
    w.expire_now();
    assert_eq!(
        w.answers(),
        [(waiter(&early), Reply::Refused(Rejection::NotBegun))]
    );
}

#[test]
fn sizes_are_limited() {
    let mut w = World::new();
    let xid = w.begin();
    let long = "x".repeat(limits::MAX_LOCK_KEY_BYTES + 1);
    let too_large = |reply| matches!(reply, Reply::Refused(Rejection::TooLarge { .. }));
    assert!(too_large(w.try_register(xid, "a", &[&long])));
    let many: Vec<String> = (0..=limits::MAX_LOCKS_PER_BRANCH)
        .map(|i| std::format!("{i:08}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(too_large(w.try_register(xid, "a", &many)));
    assert!(too_large(w.try_register(
        xid,
        &"r".repeat(limits::MAX_NAME_BYTES + 1),
        &[]
    )));
    let unsorted = w.try_register(xid, "a", &["2", "1"]);
    assert!(matches!(unsorted, Reply::Refused(Rejection::Malformed(_))));
    let twice = w.try_register(xid, "a", &["1", "1"]);
    assert!(matches!(twice, Reply::Refused(Rejection::Malformed(_))));
    assert_eq!(
        w.try_register(xid, "c", &["1"]),
        Reply::Refused(Rejection::ResourceUnknown)
    );
    let next = w.next_xid();
    assert!(matches!(
        w.begin_reply(next, 0, None),
        Reply::Refused(Rejection::Malformed(_))
    ));
    assert!(too_large(w.begin_reply(
        next,
        limits::MAX_TIMEOUT_MS + 1,
        None
    )));
}

#[test]
fn branches_and_requests_are_bounded() {
    let mut w = World::new();
    let xid = w.begin();
    for i in 0..limits::MAX_BRANCHES {
        let mut registration = w.registration(xid, "a", &[]);
        registration.request.sequence = i as u64;
        let entry = Entry {
            index: 50 + i as u64,
            at: w.state.now(),
            wall: WallTime(0),
            command: Command::RegisterBranch(registration),
        };
        assert!(registered(&w.state.apply(entry, &mut Vec::new())));
    }
    let limit = limits::MAX_BRANCHES as u64;
    let mut registration = w.registration(xid, "a", &[]);
    registration.request.process = ProcessId(99);
    let reply = w.apply(Command::RegisterBranch(registration));
    assert_eq!(reply, Reply::Refused(Rejection::TooManyBranches { limit }));
}

#[test]
fn a_name_and_a_database_belong_together() {
    let mut w = World::new();
    let mut bind = |resource: &str, id: u8| {
        w.apply(Command::BindResource(BindResource {
            resource: resource.into(),
            database: [id; 16],
        }))
    };
    assert_eq!(bind("a", 1), Reply::Ok, "a repeat");
    for (name, id) in [("a", 3), ("c", 1)] {
        let mismatch = Rejection::ResourceMismatch {
            resource: "a".into(),
            database: [1; 16],
        };
        assert_eq!(bind(name, id), Reply::Refused(mismatch));
    }
}
