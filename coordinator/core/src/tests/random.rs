//! Random worlds: whatever is sent in whatever order, what must always hold holds, and a replica
//! restored from a snapshot in the middle ends in the same state.

use std::{collections::BTreeSet, vec};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Begin {
        timeout: u32,
        nested: bool,
    },
    Register {
        of: usize,
        resource: bool,
        keys: u8,
        modes: u8,
        wait: u32,
        local: bool,
        known: bool,
    },
    Act {
        of: usize,
        mode: Mode,
        action: &'static str,
        known: bool,
    },
    Check {
        of: usize,
        keys: u8,
    },
    Saga {
        of: usize,
        shape: u8,
        timeout: u32,
        known: bool,
    },
    Done {
        of: usize,
        branch: u32,
    },
    Withdraw {
        of: usize,
        request: u64,
    },
    Doom {
        of: usize,
        branch: u32,
    },
    Blocked {
        of: usize,
    },
    Commit {
        of: usize,
    },
    RollBack {
        of: usize,
    },
    Finish {
        of: usize,
        branch: u32,
        outcome: u8,
        stale: bool,
    },
    Repair {
        of: usize,
        verb: u8,
    },
    Pass {
        ms: u64,
    },
    Renew,
    TakeOffice,
}

fn step() -> impl Strategy<Value = Step> {
    let of = 0..6_usize;
    prop_oneof![
        4 => (1..5_000_u32, any::<bool>()).prop_map(|(timeout, nested)| Step::Begin { timeout, nested }),
        8 => (of.clone(), any::<bool>(), (0..16_u8, any::<u8>()), 0..400_u32, any::<bool>(), 0..9_u8).prop_map(
            |(of, resource, (keys, modes), wait, local, known)| Step::Register { of, resource, keys, modes, wait, local, known: known > 0 }),
        5 => (of.clone(), prop::sample::select(&Mode::ALL[..]), prop::sample::select(vec!["freeze", "ship", "a", "never-named"]), 0..9_u8).prop_map(
            |(of, mode, action, known)| Step::Act { of, mode, action, known: known > 0 }),
        3 => (of.clone(), any::<u8>(), 1..3_000_u32, 0..9_u8).prop_map(|(of, shape, timeout, known)|
            Step::Saga { of, shape, timeout, known: known > 0 }),
        2 => (of.clone(), 0..16_u8).prop_map(|(of, keys)| Step::Check { of, keys }),
        8 => (of.clone(), 1..5_u32).prop_map(|(of, branch)| Step::Done { of, branch }),
        2 => (of.clone(), 1..60_u64).prop_map(|(of, request)| Step::Withdraw { of, request }),
        1 => (of.clone(), 1..4_u32).prop_map(|(of, branch)| Step::Doom { of, branch }),
        2 => of.clone().prop_map(|of| Step::Blocked { of }),
        4 => of.clone().prop_map(|of| Step::Commit { of }),
        3 => of.clone().prop_map(|of| Step::RollBack { of }),
        8 => (of.clone(), 1..5_u32, 0..14_u8, any::<bool>()).prop_map(
            |(of, branch, outcome, stale)| Step::Finish { of, branch, outcome, stale }),
        1 => (of, 0..4_u8).prop_map(|(of, verb)| Step::Repair { of, verb }),
        4 => (1..1_500_u64).prop_map(|ms| Step::Pass { ms }),
        2 => Just(Step::Renew),
        1 => Just(Step::TakeOffice),
    ]
}

struct Run {
    world: World,
    xids: Vec<Xid>,
}

impl Run {
    fn pick(&mut self, of: usize) -> Xid {
        match self.xids.len() {
            0 => self.world.next_xid(),
            n => self.xids[n - 1 - of.min(n - 1)],
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin { timeout, nested } => {
                let parent = nested.then(|| self.xids.last().copied()).flatten();
                let xid = self.world.next_xid();
                self.xids.push(xid);
                self.world.begin_reply(xid, timeout, parent);
            }
            Step::Register {
                of,
                resource,
                keys,
                modes,
                wait,
                local,
                known,
            } => {
                let xid = if known {
                    self.pick(of)
                } else {
                    self.world.next_xid()
                };
                let keys: Vec<&str> = ["1", "2", "3", "4"]
                    .into_iter()
                    .enumerate()
                    .filter_map(|(i, key)| (keys >> i & 1 == 1).then_some(key))
                    .collect();
                let name = if resource { "a" } else { "b" };
                let mut registration = self.world.registration(xid, name, &keys);
                for (i, lock) in registration.locks.iter_mut().enumerate() {
                    lock.mode = match modes >> (2 * i) & 3 {
                        0 | 1 => LockMode::Exclusive,
                        2 => LockMode::Shared,
                        _ => escrow([-3, -1, 1, 3][of % 4], 5),
                    };
                }
                registration.wait_limit_ms = wait;
                registration.holds_local_locks = local;
                self.world.apply(Command::RegisterBranch(registration));
            }
            Step::Act {
                of,
                mode,
                action,
                known,
            } => {
                let xid = match known {
                    true => self.pick(of),
                    false => self.world.next_xid(),
                };
                let mut registration = self.world.action(xid, mode, action);
                registration.can_keep_open = mode == Mode::Xa && of < 4;
                self.world.apply(Command::RegisterBranch(registration));
            }
            Step::Saga {
                of,
                shape,
                timeout,
                known,
            } => {
                let xid = match known {
                    true => self.pick(of),
                    false => self.world.next_xid(),
                };
                let plan = self.plan(xid, shape, timeout);
                self.world.apply(Command::StartSaga(plan));
            }
            Step::Check { of, keys } => {
                let request = self.world.request();
                let xid = match keys % 5 {
                    0 => Xid::outside(request),
                    _ => self.pick(of),
                };
                let check = CheckLocks {
                    xid,
                    request,
                    resource: "a".into(),
                    locks: (0..=of % 3)
                        .map(|i| LockKey::from(&[b'1' + (keys + i as u8) % 4][..]))
                        .collect::<BTreeSet<_>>()
                        .into_iter()
                        .collect(),
                    shared: keys % 3 == 0,
                    wait_limit_ms: 200,
                    holds_local_locks: keys > 7,
                };
                self.world.apply(Command::CheckLocks(check));
            }
            Step::Done { of, branch } => {
                let xid = self.pick(of);
                self.world.done(xid, BranchId(branch));
            }
            Step::Withdraw { of, request } => {
                let request = RequestId {
                    process: AGENT,
                    sequence: request,
                };
                let xid = match request.sequence % 3 {
                    0 => Xid::outside(request),
                    _ => self.pick(of),
                };
                let withdraw = WithdrawBranch { xid, request };
                self.world.apply(Command::WithdrawBranch(withdraw));
            }
            Step::Doom { of, branch } => {
                let xid = self.pick(of);
                let detail = String::new();
                self.world.apply(Command::DoomBranch(DoomBranch {
                    xid,
                    branch: BranchId(branch),
                    detail,
                }));
            }
            Step::Blocked { of } => {
                let xid = self.pick(of);
                let state = self.world.state.clone();
                let reply = self.world.apply(Command::Blocked(Blocked { xid }));
                assert_eq!(reply, Reply::Ok);
                let changed = state.transaction(xid) != self.world.state.transaction(xid)
                    || state.counts() != self.world.state.counts();
                assert!(
                    state.holds_up(xid) || !changed,
                    "without a request to refuse nothing changes"
                );
                assert!(!self.world.state.holds_up(xid), "they are all refused");
            }
            Step::Commit { of } => {
                let xid = self.pick(of);
                self.world.commit(xid);
            }
            Step::RollBack { of } => {
                let xid = self.pick(of);
                self.world.roll_back(xid);
            }
            Step::Finish {
                of,
                branch,
                outcome,
                stale,
            } => self.finish(of, BranchId(branch), outcome, stale),
            Step::Repair { of, verb } => {
                let verb = [
                    RepairVerb::Retry,
                    RepairVerb::Apply,
                    RepairVerb::Accept,
                    RepairVerb::Skip,
                ][verb as usize];
                let xid = self.pick(of);
                let (by, reason) = ("ada".into(), "why".into());
                self.world.apply(Command::Repair(Repair {
                    xid,
                    branch: None,
                    verb,
                    by,
                    reason,
                }));
            }
            Step::Pass { ms } => {
                self.world.pass(ms);
                self.world.expire_now();
            }
            Step::Renew => drop(self.world.renew()),
            Step::TakeOffice => drop(self.world.apply(Command::TakeOffice(TakeOffice::default()))),
        }
    }

    fn plan(&mut self, xid: Xid, shape: u8, timeout: u32) -> StartSaga {
        // A chain, all at once, a fan, and a diamond.
        let shapes: [&[&[u16]]; 4] = [
            &[&[], &[0], &[1]],
            &[&[], &[]],
            &[&[], &[0], &[0]],
            &[&[], &[0], &[0], &[1, 2]],
        ];
        let after = shapes[usize::from(shape % 4)].iter().enumerate();
        let steps = after.map(|(at, after)| {
            let mut step = super::saga::step(["a", "b", "c", "d"][at], after);
            step.callback = shape & 4 != 0;
            step.attempt_timeout_ms = timeout;
            if shape & 8 != 0 {
                step.on_trouble = OnTrouble::Forward;
            }
            step
        });
        let steps = steps.collect();
        self.world.plan(xid, steps, shape & 16 != 0)
    }

    fn finish(&mut self, of: usize, branch: BranchId, outcome: u8, stale: bool) {
        let xid = self.pick(of);
        let known = self
            .world
            .state
            .transaction(xid)
            .and_then(|t| t.branch(branch));
        let attempt = known.map_or(Attempt(1), Branch::attempt);
        let outcome = match outcome {
            0 => Outcome::Failed(problem("failed")),
            1 => Outcome::Unavailable(problem("down")),
            2 => Outcome::Stuck(problem("stuck")),
            3 => Outcome::Refused(problem("refused")),
            4 => Outcome::Later(problem("later"), 700),
            5..=7 => Outcome::Ran(Payload::from(&b"result"[..])),
            8 => Outcome::PreCommitted,
            9 => Outcome::Prepared,
            _ => Outcome::Finished,
        };
        let epoch = Epoch(self.world.state.epoch().0 - u64::from(stale));
        self.world.apply(Command::FinishBranch(FinishBranch {
            xid,
            branch,
            attempt,
            epoch,
            outcome,
        }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("ACCEDE_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
    ))]

    #[test]
    fn any_order_of_anything(steps in proptest::collection::vec(step(), 1..120), cut in 0..120_usize) {
        let mut run = Run { world: World::new(), xids: Vec::new() };
        for (i, step) in steps.iter().enumerate() {
            if i == cut {
                // From here on a replica that was restored from a snapshot.
                let bytes = run.world.state.to_snapshot();
                run.world.state = State::from_snapshot(&bytes).expect("its own bytes");
            }
            run.take(step);
        }
        // When everybody answers, everything comes to an end.
        for _ in 0..40 {
            run.world.pass(limits::BACKOFF_CAP_MS);
            let mut owed = run.world.expire_now();
            owed.extend(run.world.state.resume());
            for (xid, branch, action, _) in orders(&owed) {
                let outcome = match action {
                    Action::PreCommit => Outcome::PreCommitted,
                    Action::Run => Outcome::Ran(Payload::default()),
                    Action::Prepare => Outcome::Prepared,
                    _ => Outcome::Finished,
                };
                run.world.finish(xid, BranchId(branch), outcome);
            }
            let stuck: Vec<Xid> = run.world.state.transactions_after(None)
                .filter(|t| matches!(t.status(), Status::Stuck(_))).map(Transaction::xid).collect();
            for xid in stuck {
                let (by, reason) = ("ada".into(), "why".into());
                let verb = RepairVerb::Retry;
                run.world.apply(Command::Repair(Repair { xid, branch: None, verb, by, reason }));
            }
        }
        let counts = run.world.state.counts();
        let open = counts.active + counts.delegated + counts.pre_committed + counts.committing + counts.rolling_back + counts.stuck;
        prop_assert_eq!((open, counts.row_locks, counts.waiting), (0, 0, 0));
    }

    #[test]
    fn damaged_snapshots_never_panic(steps in proptest::collection::vec(step(), 1..30), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut run = Run { world: World::new(), xids: Vec::new() };
        for step in &steps {
            run.take(step);
        }
        let mut bytes = run.world.state.to_snapshot();
        let at = at.index(bytes.len());
        let _ = State::from_snapshot(&bytes[..at]);
        bytes[at] ^= 1 << bit;
        let _ = State::from_snapshot(&bytes);
    }
}
