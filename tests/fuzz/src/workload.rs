//! Real runs of the state machine, for the corpus: transactions in every state there is.

use std::{collections::BTreeMap, sync::Arc};

use accede_core::{
    Action, Attempt, Begin, BindResource, Blocked, BranchDone, BranchId, CheckLocks, ColumnDelta,
    Command, Commit, DoomBranch, Effect, Entry, FinishBranch, LeaseWorker, LockKey, LockMode, Mode,
    NameAction, OnTrouble, Order, Outcome, Payload, Problem, ProcessId, RegisterBranch, Repair,
    RepairVerb, Reply, RequestId, RollBack, RowLock, StartSaga, State, StepPlan, TakeOffice,
    Timestamp, WallTime, WithdrawBranch, Xid,
};

use crate::Random;

const RESOURCES: [&str; 3] = ["stock", "account", "orders"];
const ACTIONS: [&str; 2] = ["account.freeze", "parcel.ship"];
const PROCESSES: u64 = 3;

/// A state machine under random work that follows from a seed.
#[derive(Debug)]
pub struct Workload {
    /// What the work led to.
    pub state: State,
    random: Random,
    index: u64,
    /// First usable time parts of the XIDs of each process's worker.
    leases: BTreeMap<u64, (u64, u64)>,
    xids: Vec<Xid>,
    orders: Vec<Order>,
    sequence: u64,
}

impl Workload {
    /// A new leader in office.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut workload = Self {
            state: State::new(),
            random: Random::new(seed),
            index: 0,
            leases: BTreeMap::new(),
            xids: Vec::new(),
            orders: Vec::new(),
            sequence: 0,
        };
        workload.apply(&Command::TakeOffice(TakeOffice::default()), 0);
        for (resource, number) in RESOURCES.into_iter().zip(1..) {
            let bind = BindResource {
                resource: resource.into(),
                database: [number; 16],
            };
            workload.apply(&Command::BindResource(bind), 1);
        }
        for action in ACTIONS {
            let name = NameAction {
                action: action.into(),
            };
            workload.apply(&Command::NameAction(name), 1);
        }
        workload
    }

    /// One more command is made and applied; returns it.
    pub fn step(&mut self) -> Command {
        let command = self.command();
        let pause = match self.random.below(40) {
            0 => 3_000,
            _ => self.random.below(20) as u64,
        };
        self.apply(&command, pause);
        command
    }

    fn apply(&mut self, command: &Command, pause: u64) {
        self.index += 1;
        let at = self.state.now().0 + pause;
        let entry = Entry {
            index: self.index,
            at: Timestamp(at),
            wall: WallTime(1_800_000_000_000 + at),
            command: command.clone(),
        };
        let mut effects = Vec::new();
        let reply = self.state.apply(entry, &mut effects);
        if let (Command::LeaseWorker(lease), Reply::Leased(leased)) = (command, reply) {
            let first = (leased.floor_ms, u64::from(leased.worker.0));
            self.leases.entry(lease.process.0).or_insert(first);
        }
        for effect in effects {
            if let Effect::Order(order) = effect {
                self.orders.push(order);
            }
        }
    }

    fn command(&mut self) -> Command {
        let process = 1 + self.random.number() % PROCESSES;
        match self.random.below(26) {
            0 => Command::Expire,
            1..4 => self.lease(process),
            4..9 => self.begin(process),
            9..13 => self.register(process),
            13 => self.act(process),
            14 => self.check(process),
            15..18 => Command::BranchDone(BranchDone {
                xid: self.xid(),
                branch: self.branch(),
            }),
            18 => Command::Commit(Commit { xid: self.xid() }),
            19 => self.ending(),
            20 => self.repair(),
            21 => self.saga(process),
            _ => self.finish(),
        }
    }

    fn lease(&mut self, process: u64) -> Command {
        let held = self.leases.get(&process);
        let worker = held.map(|(_, worker)| accede_core::WorkerId(*worker as u16));
        Command::LeaseWorker(LeaseWorker {
            process: ProcessId(process),
            name: format!("front-{process}"),
            worker,
        })
    }

    fn begin(&mut self, process: u64) -> Command {
        let Some((floor, worker)) = self.leases.get(&process).copied() else {
            return self.lease(process);
        };
        self.sequence += 1;
        let bits = (floor + self.sequence / 512) << 22 | (self.sequence % 512) << 13 | worker;
        let Some(xid) = Xid::new(bits) else {
            return Command::Expire;
        };
        let parent = (self.random.below(8) == 0).then(|| self.xid());
        self.xids.push(xid);
        Command::Begin(Begin {
            process: ProcessId(process),
            xid,
            name: "place-order".into(),
            timeout_ms: 2_000 + self.random.below(60_000) as u32,
            parent,
        })
    }

    /// One of the latest; sometimes one that was never begun.
    fn xid(&mut self) -> Xid {
        let latest = self.xids.len().saturating_sub(12);
        let at = latest + self.random.below(self.xids.len() - latest);
        let known = self.xids.get(at).copied();
        let never = Xid::new(self.sequence + 7).expect("above zero and small");
        match self.random.below(30) {
            0 => never,
            _ => known.unwrap_or(never),
        }
    }

    fn branch(&mut self) -> BranchId {
        BranchId(1 + self.random.below(2) as u32)
    }

    fn request(&mut self, process: u64) -> RequestId {
        self.sequence += 1;
        RequestId {
            process: ProcessId(process),
            sequence: self.sequence,
        }
    }

    fn locks(&mut self) -> Vec<LockKey> {
        let mut rows: Vec<u8> = (0..=self.random.below(3))
            .map(|_| self.random.below(12) as u8)
            .collect();
        rows.sort_unstable();
        rows.dedup();
        rows.into_iter()
            .map(|row| Arc::from(format!("stock/{row:04}").as_bytes()))
            .collect()
    }

    fn modes(&mut self) -> Vec<RowLock> {
        let locks = self.locks().into_iter().map(|key| RowLock {
            key,
            mode: match self.random.below(4) {
                0 | 1 => LockMode::Exclusive,
                2 => LockMode::Shared,
                _ => LockMode::Escrow(Arc::new(vec![ColumnDelta {
                    column: "count".into(),
                    delta: self.random.below(7) as i64 - 3,
                    value: 5,
                    lower: 0,
                    upper: 10,
                }])),
            },
        });
        locks.collect()
    }

    fn resource(&mut self) -> Arc<str> {
        RESOURCES[self.random.below(RESOURCES.len())].into()
    }

    fn register(&mut self, process: u64) -> Command {
        Command::RegisterBranch(RegisterBranch {
            xid: self.xid(),
            request: self.request(process),
            agent: ProcessId(process + 10 * (self.random.number() % 2)),
            resource: self.resource(),
            mode: Mode::At,
            locks: self.modes(),
            payload: Payload::default(),
            wait_limit_ms: 500,
            holds_local_locks: self.random.below(2) == 0,
            can_keep_open: false,
        })
    }

    fn act(&mut self, process: u64) -> Command {
        let mode = Mode::ALL[self.random.below(Mode::ALL.len())];
        let place = match mode {
            Mode::At | Mode::Xa => self.resource(),
            Mode::Tcc | Mode::Saga | Mode::ThreePhase => {
                ACTIONS[self.random.below(ACTIONS.len())].into()
            }
        };
        let payload: &[u8] = match mode.takes_payload() {
            true => b"{\"amount\":5}",
            false => b"",
        };
        Command::RegisterBranch(RegisterBranch {
            xid: self.xid(),
            request: self.request(process),
            agent: ProcessId(process),
            resource: place,
            mode,
            locks: Vec::new(),
            payload: Payload::from(payload),
            wait_limit_ms: 0,
            holds_local_locks: false,
            can_keep_open: mode == Mode::Xa,
        })
    }

    fn saga(&mut self, process: u64) -> Command {
        let count = 1 + self.random.below(3);
        Command::StartSaga(StartSaga {
            xid: self.xid(),
            request: self.request(process),
            steps: (0..count).map(|at| self.step_of_saga(at)).collect(),
            commit_when_done: self.random.below(3) > 0,
        })
    }

    fn step_of_saga(&mut self, at: usize) -> StepPlan {
        let callback = self.random.below(4) == 0;
        let place = match callback {
            true => "http://parcels.example/steps/book",
            false => ACTIONS[self.random.below(ACTIONS.len())],
        };
        let after = (0..at).filter(|_| self.random.below(2) == 0);
        StepPlan {
            name: format!("step-{at}").into(),
            resource: place.into(),
            callback,
            input: Payload::from(&b"{\"seats\":2}"[..]),
            after: after.map(|earlier| earlier as u16).collect(),
            attempt_timeout_ms: 1 + self.random.below(20_000) as u32,
            on_trouble: match self.random.below(3) {
                0 => OnTrouble::Forward,
                attempts => OnTrouble::Backward {
                    attempts: attempts as u32,
                },
            },
        }
    }

    fn check(&mut self, process: u64) -> Command {
        Command::CheckLocks(CheckLocks {
            xid: self.xid(),
            request: self.request(process),
            resource: self.resource(),
            locks: self.locks(),
            shared: self.random.below(2) == 0,
            wait_limit_ms: 500,
            holds_local_locks: false,
        })
    }

    fn ending(&mut self) -> Command {
        let (xid, branch) = (self.xid(), self.branch());
        match self.random.below(4) {
            3 => Command::Blocked(Blocked { xid }),
            0 => Command::RollBack(RollBack {
                xid,
                detail: "sold out".into(),
            }),
            1 => Command::DoomBranch(DoomBranch {
                xid,
                branch,
                detail: "the connection broke".into(),
            }),
            _ => Command::WithdrawBranch(WithdrawBranch {
                xid,
                request: RequestId {
                    process: ProcessId(1),
                    sequence: self.sequence.saturating_sub(self.random.number() % 8),
                },
            }),
        }
    }

    fn repair(&mut self) -> Command {
        let verbs = [
            RepairVerb::Retry,
            RepairVerb::Apply,
            RepairVerb::Accept,
            RepairVerb::Skip,
        ];
        Command::Repair(Repair {
            xid: self.xid(),
            branch: (self.random.below(2) == 0).then_some(BranchId(1)),
            verb: verbs[self.random.below(4)],
            by: "ann".into(),
            reason: "the row is right".into(),
        })
    }

    fn finish(&mut self) -> Command {
        if self.orders.is_empty() {
            return Command::Expire;
        }
        let at = self.random.below(self.orders.len());
        let order = self.orders.swap_remove(at);
        let problem = Problem {
            reason: "the row was changed".into(),
            difference: "count: 3, expected 4".into(),
            repair_statement: "UPDATE stock SET count = 4".into(),
        };
        Command::FinishBranch(FinishBranch {
            xid: order.xid,
            branch: order.branch,
            attempt: Attempt(order.attempt.0),
            epoch: order.epoch,
            outcome: match self.random.below(6) {
                3 | 4 if order.action == Action::PreCommit => Outcome::PreCommitted,
                2 if order.action == Action::Run && order.attempt.0 > 1 => {
                    Outcome::Refused(problem)
                }
                2 if order.action == Action::Run => Outcome::Later(problem, 500),
                3.. if order.action == Action::Run => Outcome::Ran(Payload::from(&b"571"[..])),
                3..=5 if order.action == Action::Prepare => Outcome::Prepared,
                2 if order.action == Action::CommitOnePhase => Outcome::Refused(problem),
                0 => Outcome::Failed(problem),
                1 => Outcome::Unavailable(problem),
                2 => Outcome::Stuck(problem),
                _ => Outcome::Finished,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use accede_core::{BranchStatus, Decision};

    use super::*;

    #[test]
    fn sagas_are_done_and_compensated() {
        let (mut done, mut under_way, mut compensated) = (0, 0, 0);
        for seed in 0..12 {
            let mut work = Workload::new(seed);
            (0..120).for_each(|_| drop(work.step()));
            for transaction in work.state.transactions_after(None) {
                let Some(saga) = transaction.saga() else {
                    continue;
                };
                let branches = transaction.branches().iter();
                let over = branches.filter(|branch| {
                    branch.mode() == Mode::Saga && branch.status() == BranchStatus::Finished
                });
                match transaction.decision() {
                    _ if saga.is_done() => done += 1,
                    Some(Decision::RollBack) => compensated += over.count(),
                    _ => under_way += 1,
                }
            }
        }
        assert!(
            done > 0 && under_way > 0 && compensated > 0,
            "{done} done, {under_way} under way, {compensated} steps compensated"
        );
    }
}
