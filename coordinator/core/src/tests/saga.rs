//! Plans: steps that are done in order, and compensated in the reverse order.

use std::{format, vec};

use super::*;

/// A step of the action "ship" that is tried three times.
pub(super) fn step(name: &str, after: &[u16]) -> StepPlan {
    StepPlan {
        name: name.into(),
        resource: "ship".into(),
        callback: false,
        input: Payload::from(name.as_bytes()),
        after: after.to_vec(),
        attempt_timeout_ms: 2_000,
        on_trouble: OnTrouble::Backward { attempts: 3 },
    }
}

/// `a`, then `b`, then `c`.
fn chain() -> Vec<StepPlan> {
    vec![step("a", &[]), step("b", &[0]), step("c", &[1])]
}

impl World {
    pub(super) fn plan(&mut self, xid: Xid, steps: Vec<StepPlan>, commit: bool) -> StartSaga {
        StartSaga {
            xid,
            request: self.request(),
            steps,
            commit_when_done: commit,
        }
    }

    fn start(&mut self, xid: Xid, steps: Vec<StepPlan>, commit: bool) -> StartSaga {
        let plan = self.plan(xid, steps, commit);
        let reply = self.apply(Command::StartSaga(plan.clone()));
        assert_eq!(reply, Reply::Waiting(awaited(&plan)));
        plan
    }

    fn again(&mut self, plan: &StartSaga) -> Reply {
        self.apply(Command::StartSaga(plan.clone()))
    }

    fn ran(&mut self, xid: Xid, branch: u32, result: &str) -> Reply {
        let result = Payload::from(result.as_bytes());
        self.finish(xid, BranchId(branch), Outcome::Ran(result))
    }

    /// The steps that the last command ordered, with their action and attempt.
    fn ordered_steps(&self) -> Vec<(String, Action, u32)> {
        let orders = self.effects.iter().filter_map(|effect| match effect {
            Effect::Order(o) => Some((o.step.as_ref()?.name.to_string(), o.action, o.attempt.0)),
            _ => None,
        });
        orders.collect()
    }

    fn order_of(&self, name: &str) -> Order {
        let order = self.effects.iter().find_map(|effect| match effect {
            Effect::Order(o) if o.step.as_ref().is_some_and(|s| *s.name == *name) => Some(o),
            _ => None,
        });
        order.expect("it is ordered").clone()
    }
}

fn awaited(plan: &StartSaga) -> Waiter {
    Waiter::Request(plan.xid, plan.request)
}

fn runs(names: &[&str]) -> Vec<(String, Action, u32)> {
    let run = |name: &&str| (String::from(*name), Action::Run, 1);
    names.iter().map(run).collect()
}

fn results(of: &[(&str, &str)]) -> Vec<StepResult> {
    let result = |(step, result): &(&str, &str)| StepResult {
        step: (*step).into(),
        result: Payload::from(result.as_bytes()),
    };
    of.iter().map(result).collect()
}

#[test]
fn steps_follow_each_other_and_the_transaction_commits_by_itself() {
    let mut w = World::new();
    let xid = w.begin();
    let plan = w.start(xid, chain(), true);
    assert_eq!(w.ordered_steps(), runs(&["a"]));
    let order = w.order_of("a");
    assert_eq!((order.mode, order.agent), (Mode::Saga, ProcessId(0)));
    assert_eq!((&*order.payload, order.was_done), (&b"a"[..], false));
    assert_eq!(w.state.counts().payload_bytes, 3);
    w.ran(xid, 1, "one");
    assert_eq!(w.ordered_steps(), runs(&["b"]));
    assert_eq!(w.again(&plan), Reply::Waiting(awaited(&plan)));
    w.ran(xid, 2, "");
    let order = w.order_of("c");
    let step = order.step.expect("it is a step");
    // Those before the one before, too.
    assert_eq!(step.results, results(&[("a", "one"), ("b", "")]));
    assert_eq!((step.attempt_timeout_ms, step.result), (2_000, None));
    w.ran(xid, 3, "three");
    let done = Reply::SagaDone(
        results(&[("a", "one"), ("b", ""), ("c", "three")]),
        Some(Decision::Commit),
    );
    assert_eq!(w.answers(), [(awaited(&plan), done.clone())]);
    assert_eq!(w.orders(), [], "a commit leaves steps nothing to do");
    assert_eq!(w.status(xid), Status::Committed);
    assert_eq!(w.again(&plan), done, "whoever asks again hears the same");
    assert_eq!(w.state.counts().payload_bytes, 8, "the results are kept");
}

#[test]
fn steps_that_wait_for_no_other_are_done_side_by_side() {
    let mut w = World::new();
    let xid = w.begin();
    let steps = vec![
        step("a", &[]),
        step("b", &[]),
        step("c", &[0]),
        step("d", &[0, 1]),
        step("e", &[2]),
    ];
    w.start(xid, steps, true);
    assert_eq!(w.ordered_steps(), runs(&["a", "b"]));
    w.ran(xid, 1, "A");
    assert_eq!(w.ordered_steps(), runs(&["c"]));
    w.ran(xid, 3, "C");
    assert_eq!(w.ordered_steps(), runs(&["e"]));
    let step = w.order_of("e").step.expect("it is a step");
    assert_eq!(step.results, results(&[("a", "A"), ("c", "C")]));
    w.ran(xid, 2, "B");
    assert_eq!(w.ordered_steps(), runs(&["d"]));
    // In the reverse order of their starts: d, e, c, b, a.
    w.finish(xid, BranchId(5), Outcome::Refused(problem("sold out")));
    let mut compensated = vec![];
    while let [(_, branch, action, _)] = w.orders()[..] {
        assert_eq!(action, Action::RollBack);
        compensated.push(branch);
        w.finish(xid, BranchId(branch), Outcome::Finished);
    }
    assert_eq!(compensated, [5, 4, 3, 2, 1]);
    assert_eq!(w.status(xid), Status::RolledBack);
}

#[test]
fn a_step_that_cannot_be_done_rolls_back_what_was_done() {
    let mut w = World::new();
    let xid = w.begin();
    let plan = w.start(xid, chain(), true);
    w.ran(xid, 1, "one");
    w.finish(xid, BranchId(2), Outcome::Refused(problem("sold out")));
    let why = RollBackReason::StepFailed(BranchId(2), "b: sold out".into());
    let decided = Reply::Decided(Decision::RollBack, Some(why));
    assert_eq!(w.answers(), [(awaited(&plan), decided.clone())]);
    let order = w.order_of("b");
    assert_eq!(
        (order.action, order.attempt),
        (Action::RollBack, Attempt(2))
    );
    assert!(!order.was_done);
    w.finish(xid, BranchId(2), Outcome::Finished);
    let order = w.order_of("a");
    assert_eq!((&*order.payload, order.was_done), (&b"a"[..], true));
    let step = order.step.expect("it is a step");
    assert_eq!(step.result.as_deref(), Some(&b"one"[..]));
    w.finish(xid, BranchId(1), Outcome::Finished);
    assert_eq!(w.status(xid), Status::RolledBack);
    assert_eq!(w.again(&plan), decided);
    assert_eq!(
        w.state.counts().payload_bytes,
        3,
        "the result alone is left"
    );
}

#[test]
fn backward_steps_have_so_many_attempts_and_forward_ones_until_the_deadline() {
    let mut w = World::new();
    let [backward, forward] = [w.begin(), w.begin()];
    w.start(backward, chain(), true);
    let mut tireless = step("a", &[]);
    tireless.on_trouble = OnTrouble::Forward;
    w.start(forward, vec![tireless], true);
    for attempt in 1..=3 {
        assert_eq!(
            w.branch_of(backward, BranchId(1)).attempt(),
            Attempt(attempt)
        );
        w.finish(backward, BranchId(1), Outcome::Failed(problem("busy")));
        w.finish(forward, BranchId(1), Outcome::Failed(problem("busy")));
        if attempt < 3 {
            w.pass(1_000);
            let orders = w.expire_now();
            assert_eq!(orders_of(&orders, Action::Run), 2);
        }
    }
    let why = RollBackReason::StepFailed(BranchId(1), "a: busy".into());
    assert_eq!(
        w.state.transaction(backward).and_then(Transaction::reason),
        Some(&why)
    );
    for _ in 0..30 {
        w.pass(limits::BACKOFF_CAP_MS / 20);
        w.expire_now();
        w.finish(forward, BranchId(1), Outcome::Failed(problem("busy")));
    }
    assert_eq!(w.status(forward), Status::Active);
    w.pass(60_000);
    w.expire_now();
    let reason = w.state.transaction(forward).and_then(Transaction::reason);
    assert_eq!(reason, Some(&RollBackReason::TimedOut));
}

fn orders_of(effects: &Effects, action: Action) -> usize {
    orders(effects).iter().filter(|o| o.2 == action).count()
}

#[test]
fn a_database_that_is_down_costs_no_attempt_and_a_participant_may_put_off_the_next() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, chain(), true);
    for _ in 0..9 {
        w.finish(xid, BranchId(1), Outcome::Unavailable(problem("down")));
        w.expire();
    }
    assert_eq!(w.branch_of(xid, BranchId(1)).failures(), 0);
    let later = Outcome::Later(problem("come back"), 7_000);
    w.finish(xid, BranchId(1), later);
    let at = w.branch_of(xid, BranchId(1)).next_attempt_at();
    assert_eq!(at, Some(w.state.now().plus(7_000)));
    w.expire();
    w.finish(
        xid,
        BranchId(1),
        Outcome::Later(problem("much later"), u32::MAX),
    );
    let at = w.branch_of(xid, BranchId(1)).next_attempt_at();
    let most = u64::from(limits::MAX_RETRY_AFTER_MS);
    assert_eq!(at, Some(w.state.now().plus(most)));
}

#[test]
fn an_attempt_without_an_answer_fails_and_its_late_success_still_counts() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, chain(), true);
    let epoch = w.state.epoch();
    let effects = w.expire();
    let (branch, how) = (BranchId(1), StepOver::TimedOut);
    assert!(effects.contains(&Effect::StepOver { xid, branch, how }));
    assert!(effects.contains(&Effect::DropOrder { xid, branch }));
    let reason = w.branch_of(xid, branch).problem().map(|p| p.reason.clone());
    assert_eq!(reason.as_deref(), Some("no answer within 2000 ms"));
    w.expire();
    assert_eq!(w.ordered_steps(), [("a".into(), Action::Run, 2)]);
    let first = |outcome| {
        Command::FinishBranch(FinishBranch {
            xid,
            branch,
            attempt: Attempt(1),
            epoch,
            outcome,
        })
    };
    for late in [Outcome::Failed(problem("")), Outcome::Refused(problem(""))] {
        assert_eq!(w.apply(first(late)), Reply::Ok);
        assert_eq!(w.branch_of(xid, branch).failures(), 1, "it is too late");
    }
    w.apply(first(Outcome::Ran(Payload::default())));
    assert_eq!(w.ordered_steps(), runs(&["b"]));
}

#[test]
fn a_step_under_way_is_compensated_and_its_late_success_ends_nothing() {
    let mut w = World::new();
    let xid = w.begin();
    let steps = vec![step("a", &[]), step("b", &[])];
    w.start(xid, steps, false);
    w.roll_back(xid);
    assert_eq!(w.ordered_steps(), [("b".into(), Action::RollBack, 2)]);
    // Neither that of the one whose turn has come, nor that of the one in line.
    for branch in [2, 1] {
        let late = FinishBranch {
            xid,
            branch: BranchId(branch),
            attempt: Attempt(1),
            epoch: w.state.epoch(),
            outcome: Outcome::Ran(Payload::from(&b"late"[..])),
        };
        assert_eq!(w.apply(Command::FinishBranch(late)), Reply::Ok);
        assert!(w.branch_of(xid, BranchId(branch)).was_done());
    }
    assert_eq!(
        w.branch_of(xid, BranchId(2)).status(),
        BranchStatus::Finishing
    );
    w.finish(xid, BranchId(2), Outcome::Finished);
    let order = w.order_of("a");
    assert!(order.was_done);
    let result = order.step.and_then(|step| step.result);
    assert_eq!(result.as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_new_leader_repeats_what_is_out_and_nothing_that_is_over() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, vec![step("a", &[]), step("b", &[])], false);
    w.ran(xid, 1, "one");
    w.apply(Command::TakeOffice(TakeOffice::default()));
    w.effects = w.state.resume();
    assert_eq!(w.ordered_steps(), runs(&["b"]));
    assert_eq!(w.order_of("b").epoch, w.state.epoch());
    w.roll_back(xid);
    w.effects = w.state.resume();
    assert_eq!(w.ordered_steps(), [("b".into(), Action::RollBack, 2)]);
}

#[test]
fn the_orchestrator_may_die_only_if_the_saga_commits_by_itself() {
    let mut w = World::new();
    let [alone, led, planless] = [w.begin(), w.begin(), w.begin()];
    w.start(alone, chain(), true);
    w.start(led, chain(), false);
    w.pass(u64::from(limits::LEASE_TTL_MS));
    w.expire_now();
    for (xid, expected) in [
        (alone, Status::Active),
        (led, Status::RollingBack),
        (planless, Status::RolledBack),
    ] {
        assert_eq!(w.status(xid), expected);
    }
    for branch in 1..=3 {
        w.ran(alone, branch, "");
    }
    assert_eq!(w.status(alone), Status::Committed);
}

#[test]
fn a_commit_waits_for_the_steps_as_long_as_the_deadline_allows() {
    let mut w = World::new();
    let [xid, late] = [w.begin(), w.begin()];
    for xid in [xid, late] {
        let mut tireless = step("a", &[]);
        tireless.on_trouble = OnTrouble::Forward;
        w.start(xid, vec![tireless], false);
        assert_eq!(w.commit(xid), Reply::Waiting(Waiter::Commit(xid)));
    }
    w.ran(xid, 1, "one");
    let answers = w.answers();
    let answered: Vec<Waiter> = answers.iter().map(|(waiter, _)| *waiter).collect();
    assert!(matches!(
        answered[..],
        [Waiter::Request(..), Waiter::Commit(_)]
    ));
    assert_eq!(w.status(xid), Status::Committed);
    w.finish(late, BranchId(1), Outcome::Unavailable(problem("down")));
    for _ in 0..6 {
        w.pass(10_000);
        w.renew();
        w.expire_now();
    }
    let reason = w.state.transaction(late).and_then(Transaction::reason);
    assert_eq!(reason, Some(&RollBackReason::TimedOut));
}

#[test]
fn a_saga_shares_its_transaction_with_other_branches() {
    let mut w = World::new();
    let xid = w.begin();
    let plan = w.start(xid, vec![step("a", &[])], true);
    let row = w.register(xid, "a", &["1"]);
    w.ran(xid, 1, "");
    assert_eq!(w.status(xid), Status::Active, "a branch is not done");
    assert_eq!(w.answers(), []);
    w.done(xid, row);
    assert_eq!(w.status(xid), Status::Committing);
    assert_eq!(
        w.answers(),
        [(
            awaited(&plan),
            Reply::SagaDone(results(&[("a", "")]), Some(Decision::Commit))
        )]
    );
    assert_eq!(w.orders(), [(xid, 2, Action::Commit, 1)]);
}

#[test]
fn a_result_that_is_too_large_is_compensated() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, chain(), true);
    let large = "x".repeat(limits::MAX_STEP_RESULT_BYTES + 1);
    w.ran(xid, 1, &large);
    let order = w.order_of("a");
    assert_eq!((order.action, order.was_done), (Action::RollBack, true));
    let why = "a: it returned 16385 bytes, of 16384 that are allowed".into();
    let expected = RollBackReason::StepFailed(BranchId(1), why);
    assert_eq!(
        w.state.transaction(xid).and_then(Transaction::reason),
        Some(&expected)
    );
}

#[test]
fn a_person_can_bring_an_attempt_forward() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, chain(), true);
    w.finish(xid, BranchId(1), Outcome::Failed(problem("busy")));
    let retry = Repair {
        xid,
        branch: None,
        verb: RepairVerb::Retry,
        by: "ada".into(),
        reason: "it is back".into(),
    };
    assert_eq!(
        w.apply(Command::Repair(retry)),
        Reply::Repaired(vec![BranchId(1)])
    );
    assert_eq!(w.ordered_steps(), [("a".into(), Action::Run, 2)]);
}

#[test]
fn outcomes_that_are_no_answer_are_refused() {
    let mut w = World::new();
    let xid = w.begin();
    let row = w.branch(xid, "a", &["1"]);
    w.start(xid, chain(), false);
    let mut refused = |branch, outcome| match w.finish(xid, branch, outcome) {
        Reply::Refused(Rejection::BranchState(why)) => why,
        other => panic!("{other:?} is no refusal"),
    };
    let ran = Outcome::Ran(Payload::default());
    assert_eq!(refused(row, ran), "it is no step of a saga");
    let why = "it is a step under way, which ends with what it returned";
    assert_eq!(refused(BranchId(2), Outcome::Finished), why);
    let why = "it is a step of a saga: what came of its order tells how it went";
    let refusal = Reply::Refused(Rejection::BranchState(why));
    assert_eq!(w.done(xid, BranchId(2)), refusal);
}

#[test]
fn plans_are_refused_by_name_in_order_of_precedence() {
    let mut w = World::new();
    let xid = w.begin();
    let refused = |w: &mut World, plan: StartSaga| match w.apply(Command::StartSaga(plan)) {
        Reply::Refused(rejection) => rejection,
        other => panic!("{other:?} is no refusal"),
    };
    let too_large = |rejection| match rejection {
        Rejection::TooLarge { what, .. } => what,
        other => panic!("{other:?} is another refusal"),
    };
    let change = |change: &dyn Fn(&mut StepPlan)| {
        let mut steps = chain();
        change(&mut steps[1]);
        steps
    };
    let long = "x".repeat(limits::MAX_URL_BYTES + 1);
    let cases: [(Vec<StepPlan>, &str); 7] = [
        (
            (0..65).map(|i| step(&format!("{i}"), &[])).collect(),
            "the number of a saga's steps",
        ),
        (change(&|s| s.name = long.as_str().into()), "a step's name"),
        (
            change(&|s| s.resource = long.as_str().into()),
            "an action's name",
        ),
        (
            change(&|s| {
                s.callback = true;
                s.resource = long.as_str().into();
            }),
            "a callback's URL",
        ),
        (
            change(&|s| s.input = Payload::from(&[7; limits::MAX_PAYLOAD_BYTES + 1][..])),
            "a step's input",
        ),
        (
            change(&|s| s.attempt_timeout_ms = limits::MAX_TIMEOUT_MS + 1),
            "the time-out of a step's attempt in milliseconds",
        ),
        (
            change(&|s| s.on_trouble = OnTrouble::Backward { attempts: 1_001 }),
            "the number of a step's attempts",
        ),
    ];
    for (steps, what) in cases {
        let plan = w.plan(xid, steps, true);
        assert_eq!(too_large(refused(&mut w, plan)), what);
    }
    let full = Payload::from(&[7; limits::MAX_PAYLOAD_BYTES][..]);
    let heavy = |i: u16| StepPlan {
        input: full.clone(),
        ..step(&format!("{i}"), &[])
    };
    let plan = w.plan(xid, (0..17).map(heavy).collect(), true);
    assert_eq!(
        too_large(refused(&mut w, plan)),
        "all inputs of a saga together"
    );

    let malformed: [(Vec<StepPlan>, &str); 7] = [
        (vec![], "a saga must have a step"),
        (
            change(&|s| s.name = "".into()),
            "a step must have a name and an action or a callback's URL",
        ),
        (
            change(&|s| s.attempt_timeout_ms = 0),
            "a step's attempt must have at least one millisecond",
        ),
        (
            change(&|s| s.on_trouble = OnTrouble::Backward { attempts: 0 }),
            "a step must have at least one attempt",
        ),
        (
            change(&|s| s.after = vec![1]),
            "a step can wait for earlier steps of the plan only",
        ),
        (
            change(&|s| s.after = vec![0, 0]),
            "the steps that a step waits for must be sorted, none twice",
        ),
        (
            change(&|s| s.name = "a".into()),
            "no two steps of a saga can have the same name",
        ),
    ];
    for (steps, why) in malformed {
        let plan = w.plan(xid, steps, true);
        assert_eq!(refused(&mut w, plan), Rejection::Malformed(why));
    }
    for action in ["unheard-of", "a"] {
        let plan = w.plan(xid, change(&|s| s.resource = action.into()), true);
        let action = action.into();
        assert_eq!(refused(&mut w, plan), Rejection::ActionUnknown { action });
    }
    let url = w.plan(xid, change(&|s| s.callback = true), true);
    let other_request = w.try_register(xid, "a", &["1"]);
    assert!(registered(&other_request));
    let taken = RequestId {
        process: AGENT,
        sequence: url.request.sequence + 1,
    };
    let plan = StartSaga {
        request: taken,
        ..url.clone()
    };
    assert_eq!(refused(&mut w, plan), Rejection::DifferentContent);
    assert_eq!(w.again(&url), Reply::Waiting(awaited(&url)));
    let plan = w.plan(xid, chain(), true);
    assert_eq!(refused(&mut w, plan), Rejection::OtherSaga);
    let plan = StartSaga {
        commit_when_done: false,
        ..url.clone()
    };
    assert_eq!(refused(&mut w, plan), Rejection::DifferentContent);
    let registration = RegisterBranch {
        request: url.request,
        ..w.registration(xid, "a", &["2"])
    };
    let reply = w.apply(Command::RegisterBranch(registration));
    assert_eq!(reply, Reply::Refused(Rejection::DifferentContent));
    let decided = w.begin();
    w.roll_back(decided);
    let plan = w.plan(decided, chain(), true);
    let before = Rejection::AlreadyDecided(Decision::RollBack);
    assert_eq!(refused(&mut w, plan), before);
    let asked = w.begin();
    w.register(asked, "a", &["9"]);
    w.commit(asked);
    let plan = w.plan(asked, chain(), true);
    assert_eq!(refused(&mut w, plan), Rejection::CommitAsked);
}

#[test]
fn a_second_plan_is_refused_as_such_and_the_first_keeps_its_answer() {
    let mut w = World::new();
    let xid = w.begin();
    let first = w.start(xid, chain(), false);
    // Under way, and when it is done: whether the steps are the same or not.
    for round in 0..2 {
        for steps in [chain(), vec![step("d", &[])]] {
            let second = w.plan(xid, steps, false);
            assert_eq!(w.again(&second), Reply::Refused(Rejection::OtherSaga));
            assert_eq!(w.ordered_steps(), [], "nothing of it is done");
        }
        if round == 0 {
            assert_eq!(w.again(&first), Reply::Waiting(awaited(&first)));
            for branch in 1..=3 {
                w.ran(xid, branch, "");
            }
        }
    }
    let done = Reply::SagaDone(results(&[("a", ""), ("b", ""), ("c", "")]), None);
    assert_eq!(w.again(&first), done);
}

#[test]
fn a_plan_keeps_room_for_its_steps_and_counts_in_memory() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, chain(), false);
    for _ in 0..limits::MAX_BRANCHES - 3 {
        let registration = w.registration(xid, "a", &[]);
        let reply = w.apply_unchecked(Command::RegisterBranch(registration));
        assert!(registered(&reply));
    }
    let limit = limits::MAX_BRANCHES as u64;
    let refused = Reply::Refused(Rejection::TooManyBranches { limit });
    assert_eq!(w.try_register(xid, "a", &[]), refused);
    for branch in [1, limits::MAX_BRANCHES as u32 - 1] {
        w.ran(xid, branch, "");
    }
    assert_eq!(w.ordered_steps(), runs(&["c"]));
    let other = w.begin();
    w.state.payload_bytes = limits::MAX_PAYLOAD_BYTES_IN_ALL;
    let plan = w.plan(other, chain(), true);
    let limit = limits::MAX_PAYLOAD_BYTES_IN_ALL;
    let full = Reply::Refused(Rejection::PayloadsFull { limit });
    assert_eq!(w.apply_unchecked(Command::StartSaga(plan)), full);
}

#[test]
fn a_plan_that_overtakes_its_begin_waits_for_it() {
    let mut w = World::new();
    let [comes, never] = [w.next_xid(), w.next_xid()];
    let plans = [comes, never].map(|xid| {
        let plan = w.plan(xid, chain(), true);
        assert_eq!(w.again(&plan), Reply::Waiting(awaited(&plan)));
        assert_eq!(w.again(&plan), Reply::Waiting(awaited(&plan)));
        plan
    });
    assert_eq!(w.state.counts().payload_bytes, 6);
    w.begin_reply(comes, 60_000, None);
    assert_eq!(w.ordered_steps(), runs(&["a"]));
    w.expire();
    let refused = Reply::Refused(Rejection::NotBegun);
    assert!(w.answers().contains(&(awaited(&plans[1]), refused)));
    assert_eq!(w.state.counts().payload_bytes, 3);
}

#[test]
fn results_are_forgotten_with_their_transaction() {
    let mut w = World::new();
    let xid = w.begin();
    w.start(xid, vec![step("a", &[])], true);
    w.ran(xid, 1, "one");
    assert_eq!(w.state.counts().payload_bytes, 3);
    w.pass(limits::RETENTION_MS);
    w.expire_now();
    assert_eq!(w.state.counts().payload_bytes, 0);
}
