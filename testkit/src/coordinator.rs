//! A coordinator in this process: the real state machine, with nobody around it. Time stands
//! still unless a saga waits for it to pass, so nothing else expires; what would be tried again
//! after a pause, the kit tries itself.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use accede_core::{
    Begin, BranchDone, BranchId, Command, Commit, Decision, DoomBranch, Effect, Effects, Entry,
    FinishBranch, Lease, LeaseWorker, NameAction, Order, Outcome, ProcessId, RegisterBranch,
    Rejection, Reply, RequestId, RollBack, StartSaga, State, StepPlan, TakeOffice, Timestamp,
    WallTime, WithdrawBranch, limits,
};
use accede_proto::{Xid, v1::Mode};
use accede_rm_agent::{
    RefusalCode, Refused, Registered, Registrar, Registration, RowCheck, testkit::Done,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::clock;

const PROCESS: ProcessId = ProcessId(1);
/// A transaction's time-out. Nothing waits for it.
const TIMEOUT_MS: u32 = 600_000;
/// How often time passes in a row until something must have happened.
const MOST_PASSING: u32 = 1_000;
/// Transactions begun under one renewal of the lease: its range of XIDs is limited.
const BEGUN_PER_LEASE: u64 = 400;

pub(crate) struct Coordinator {
    inner: Mutex<Inner>,
    /// The agent is dead: what its remains say is not heard.
    deaf: AtomicBool,
}

struct Inner {
    state: State,
    now: Timestamp,
    index: u64,
    effects: Effects,
    orders: VecDeque<Order>,
    lease: Lease,
    begun: u64,
    requests: u64,
    /// The registrations that are known, for those who take them back.
    registered: Vec<(accede_core::Xid, BranchId, RequestId)>,
}

impl Coordinator {
    pub(crate) fn new() -> Self {
        let mut inner = Inner {
            state: State::new(),
            now: Timestamp(limits::GRACE_MS),
            index: 0,
            effects: Effects::new(),
            orders: VecDeque::new(),
            lease: Lease {
                worker: accede_core::WorkerId(0),
                floor_ms: 0,
                ceiling_ms: 0,
                ttl_ms: 0,
                begun_through: None,
            },
            begun: 0,
            requests: 0,
            registered: Vec::new(),
        };
        inner.apply(Command::TakeOffice(TakeOffice::default()));
        Self {
            inner: Mutex::new(inner),
            deaf: AtomicBool::new(false),
        }
    }

    pub(crate) fn name_action(&self, action: &str) {
        let action = action.into();
        self.inner
            .lock()
            .apply(Command::NameAction(NameAction { action }));
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Xid {
        self.inner.lock().begin()
    }

    /// Asks for a decision; what was decided.
    pub(crate) fn decide(&self, xid: Xid, wanted: Decision) -> Decision {
        let mut inner = self.inner.lock();
        let xid = core_xid(xid);
        let roll_back = || {
            let detail = "the test kit says so".to_owned();
            Command::RollBack(RollBack { xid, detail })
        };
        let first = match wanted {
            Decision::Commit => Command::Commit(Commit { xid }),
            Decision::RollBack => roll_back(),
        };
        match inner.apply(first) {
            Reply::Decided(decision, _) => decision,
            // A branch is not done and never will be.
            _ => match inner.apply(roll_back()) {
                Reply::Decided(decision, _) => decision,
                other => panic!("a rollback was answered by {other:?}"),
            },
        }
    }

    /// The orders that are due for a transaction, taken.
    pub(crate) fn orders(&self, xid: Xid) -> Vec<Order> {
        let mut inner = self.inner.lock();
        let (due, others): (VecDeque<Order>, _) = inner
            .orders
            .drain(..)
            .partition(|order| order.xid == core_xid(xid));
        inner.orders = others;
        due.into()
    }

    /// An order was carried out.
    pub(crate) fn finished(&self, order: &Order, done: Done) {
        let outcome = match done {
            Done::Finished => Outcome::Finished,
            Done::PreCommitted => Outcome::PreCommitted,
        };
        self.answered(order, outcome);
    }

    pub(crate) fn has_ended(&self, xid: Xid) -> bool {
        let inner = self.inner.lock();
        let transaction = inner.state.transaction(core_xid(xid));
        transaction.is_none_or(|transaction| transaction.status().has_ended())
    }

    /// Gives a transaction a plan. It commits when the last step is done.
    pub(crate) fn start_saga(&self, xid: Xid, steps: Vec<StepPlan>) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let xid = core_xid(xid);
        inner.requests += 1;
        let request = RequestId {
            process: PROCESS,
            sequence: inner.requests,
        };
        let reply = inner.apply(Command::StartSaga(StartSaga {
            xid,
            request,
            steps,
            commit_when_done: true,
        }));
        match reply {
            Reply::Waiting(_) => Ok(()),
            other => Err(format!("the coordinator does not take the plan: {other:?}")),
        }
    }

    /// What came of an order.
    pub(crate) fn answered(&self, order: &Order, outcome: Outcome) {
        self.inner.lock().apply(Command::FinishBranch(FinishBranch {
            xid: order.xid,
            branch: order.branch,
            attempt: order.attempt,
            epoch: order.epoch,
            outcome,
        }));
    }

    /// Lets time pass until something is to be done for a transaction, or it has ended. False if
    /// nothing ever is.
    pub(crate) fn pass_time(&self, xid: Xid) -> bool {
        let mut inner = self.inner.lock();
        let xid = core_xid(xid);
        for _ in 0..MOST_PASSING {
            if inner.has_news(xid) {
                return true;
            }
            let Some(next) = inner.state.next_deadline() else {
                return false;
            };
            inner.now = inner.now.max(next);
            inner.renew();
            inner.apply(Command::Expire);
        }
        false
    }

    /// It dies, and goes on where its log ends.
    pub(crate) fn restart(&self) {
        let mut inner = self.inner.lock();
        inner.orders.clear();
        inner.apply(Command::TakeOffice(TakeOffice::default()));
        inner.effects = inner.state.resume();
        inner.carry_out();
    }

    pub(crate) fn decision(&self, xid: Xid) -> Option<Decision> {
        let inner = self.inner.lock();
        inner.state.transaction(core_xid(xid))?.decision()
    }

    /// Drops what is left of a dead agent's work: nobody hears what it says in passing.
    pub(crate) fn bury<T>(&self, remains: T) {
        self.deaf.store(true, Ordering::SeqCst);
        drop(remains);
        self.deaf.store(false, Ordering::SeqCst);
    }

    fn hear(&self, command: impl FnOnce(&mut Inner) -> Option<Command>) {
        if self.deaf.load(Ordering::SeqCst) {
            return;
        }
        let mut inner = self.inner.lock();
        if let Some(command) = command(&mut inner) {
            inner.apply(command);
        }
    }
}

impl Inner {
    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            at: self.now,
            // XIDs must be above those of earlier runs, whose fences are still there.
            wall: WallTime(clock::unix_ms()),
            command,
        };
        let reply = self.state.apply(entry, &mut self.effects);
        self.carry_out();
        reply
    }

    fn carry_out(&mut self) {
        for effect in self.effects.drain(..) {
            if let Effect::Order(order) = effect {
                self.orders.push_back(order);
            }
        }
    }

    fn renew(&mut self) {
        let known = (self.lease.ceiling_ms > 0).then_some(self.lease.worker);
        let reply = self.apply(Command::LeaseWorker(LeaseWorker {
            process: PROCESS,
            name: "testkit".into(),
            worker: known,
        }));
        if let Reply::Leased(lease) = reply {
            self.lease = lease;
        }
    }

    /// Something is to be done for a transaction, or it has ended.
    fn has_news(&self, xid: accede_core::Xid) -> bool {
        let transaction = self.state.transaction(xid);
        self.orders.iter().any(|order| order.xid == xid)
            || transaction.is_none_or(|transaction| transaction.status().has_ended())
    }

    fn begin(&mut self) -> Xid {
        if self.begun.is_multiple_of(BEGUN_PER_LEASE) {
            self.renew();
        }
        self.begun += 1;
        let part = self.lease.floor_ms + self.begun / 512;
        let bits = (part << 22) | ((self.begun % 512) << 13) | u64::from(self.lease.worker.0);
        let xid = accede_core::Xid::new(bits).expect("its time part is not zero");
        let reply = self.apply(Command::Begin(Begin {
            process: PROCESS,
            xid,
            name: "testkit".into(),
            timeout_ms: TIMEOUT_MS,
            parent: None,
        }));
        assert_eq!(reply, Reply::Ok, "a leased XID can begin");
        Xid::from_u64(bits).expect("it is the same number")
    }

    fn register(&mut self, registration: &Registration) -> Result<Registered, Refused> {
        let mode = match registration.mode {
            Mode::Tcc => accede_core::Mode::Tcc,
            Mode::ThreePhase => accede_core::Mode::ThreePhase,
            other => {
                let text = format!("the test kit has no calls of {other:?}");
                return Err(Refused::new(RefusalCode::Invalid, text));
            }
        };
        self.requests += 1;
        let request = RequestId {
            process: PROCESS,
            sequence: self.requests,
        };
        let xid = core_xid(registration.xid);
        let reply = self.apply(Command::RegisterBranch(RegisterBranch {
            xid,
            request,
            agent: PROCESS,
            resource: registration.resource.clone(),
            mode,
            locks: Vec::new(),
            payload: accede_core::Payload::from(&registration.payload[..]),
            wait_limit_ms: 0,
            holds_local_locks: false,
            can_keep_open: false,
        }));
        match reply {
            Reply::Registered {
                branch, give_up_ms, ..
            } => {
                self.registered.push((xid, branch, request));
                Ok(Registered {
                    branch: branch.0,
                    give_up: Duration::from_millis(give_up_ms.into()),
                    keep_open: false,
                })
            }
            Reply::Refused(rejection) => Err(refused(&rejection)),
            other => Err(Refused::new(RefusalCode::Other, format!("{other:?}"))),
        }
    }
}

fn refused(rejection: &Rejection) -> Refused {
    let code = match rejection {
        Rejection::AlreadyDecided(_) | Rejection::CommitAsked => RefusalCode::AlreadyDecided,
        Rejection::TooLarge { .. } => RefusalCode::TooLarge,
        _ => RefusalCode::Other,
    };
    Refused::new(code, format!("{rejection:?}"))
}

pub(crate) fn core_xid(xid: Xid) -> accede_core::Xid {
    accede_core::Xid::new(xid.as_u64()).expect("no XID is zero")
}

impl Registrar for Coordinator {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        Box::pin(async move {
            // On its way, and the answer on its way back: moments at which an agent may die.
            tokio::task::yield_now().await;
            let answer = self.inner.lock().register(&registration);
            tokio::task::yield_now().await;
            answer
        })
    }

    fn check_locks(&self, _: RowCheck) -> BoxFuture<'_, Result<(), Refused>> {
        // Actions have no row locks.
        Box::pin(async { Ok(()) })
    }

    fn done(&self, xid: Xid, branch: u32) {
        self.hear(|_| {
            Some(Command::BranchDone(BranchDone {
                xid: core_xid(xid),
                branch: BranchId(branch),
            }))
        });
    }

    fn withdrawn(&self, xid: Xid, branch: u32) {
        let xid = core_xid(xid);
        self.hear(|inner| {
            let known = inner.registered.iter();
            let request = known
                .rev()
                .find(|known| (known.0, known.1) == (xid, BranchId(branch)))
                .map(|known| known.2)?;
            Some(Command::WithdrawBranch(WithdrawBranch { xid, request }))
        });
    }

    fn blocked(&self, _: Xid) {}

    fn doomed(&self, xid: Xid, branch: u32, detail: String) {
        self.hear(|_| {
            Some(Command::DoomBranch(DoomBranch {
                xid: core_xid(xid),
                branch: BranchId(branch),
                detail,
            }))
        });
    }
}
