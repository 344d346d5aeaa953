//! Stories and tables for every verb, told in a small vocabulary, and random ones.
//!
//! After every entry the world checks what must always hold, and that the state read back from
//! its snapshot is the same, derived parts included.

mod blocked;
mod commit;
mod locks;
mod modes;
mod one_phase;
mod outside;
mod phase_two;
mod random;
mod repair;
mod retention;
mod roll_back;
mod saga;
mod three_phase;
mod workers;

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use crate::{
    row_lock::{RowLocks, Wanted},
    *,
};

/// A state with one worker (process 1), the databases "a" and "b" and the actions "freeze" and
/// "ship", driven by one leader.
pub(super) struct World {
    pub(super) state: State,
    index: u64,
    at: u64,
    /// Milliseconds by which the leader's wall clock was set back.
    pub(super) clock_set_back: u64,
    pub(super) effects: Effects,
    lease: Lease,
    begun: u64,
    requests: u64,
}

pub(super) const CLIENT: ProcessId = ProcessId(1);
pub(super) const AGENT: ProcessId = ProcessId(2);

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self::without_actions();
        for action in ["freeze", "ship"] {
            assert_eq!(world.name_action(action), Reply::Ok);
        }
        world
    }

    pub(super) fn without_actions() -> Self {
        let lease = Lease {
            worker: WorkerId(0),
            floor_ms: 0,
            ceiling_ms: 0,
            ttl_ms: 0,
            begun_through: None,
        };
        let mut world = Self {
            state: State::new(),
            index: 0,
            at: 1_000,
            clock_set_back: 0,
            effects: Vec::new(),
            lease,
            begun: 0,
            requests: 0,
        };
        world.apply(Command::TakeOffice(TakeOffice::default()));
        world.at += limits::GRACE_MS;
        world.renew();
        for (name, id) in [("a", 1), ("b", 2)] {
            let bound = world.apply(Command::BindResource(BindResource {
                resource: name.into(),
                database: [id; 16],
            }));
            assert_eq!(bound, Reply::Ok);
        }
        world
    }

    pub(super) fn name_action(&mut self, action: &str) -> Reply {
        let action = action.into();
        self.apply(Command::NameAction(NameAction { action }))
    }

    /// Applies one command; its effects replace those of the one before.
    pub(super) fn apply(&mut self, command: Command) -> Reply {
        let reply = self.apply_unchecked(command);
        check_always(&self.state);
        reply
    }

    /// The same without looking at the whole state, for worlds with thousands of transactions.
    pub(super) fn apply_unchecked(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            at: Timestamp(self.at),
            wall: WallTime(WallTime::XID_EPOCH.0 + self.at - self.clock_set_back),
            command,
        };
        self.effects.clear();
        self.state.apply(entry, &mut self.effects)
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.at += ms;
    }

    /// Lets time pass to the next deadline and everything due happen.
    pub(super) fn expire(&mut self) -> Effects {
        let due = self.state.next_deadline().expect("something is due");
        self.at = self.at.max(due.0);
        self.expire_now()
    }

    pub(super) fn expire_now(&mut self) -> Effects {
        let mut all = Vec::new();
        while self.apply(Command::Expire) == Reply::MoreIsDue {
            all.append(&mut self.effects);
        }
        all.append(&mut self.effects);
        self.effects = all.clone();
        all
    }

    pub(super) fn renew(&mut self) -> Reply {
        let known = (self.lease.ceiling_ms > 0).then_some(self.lease.worker);
        let reply = self.apply(Command::LeaseWorker(LeaseWorker {
            process: CLIENT,
            name: "front".into(),
            worker: known,
        }));
        if let Reply::Leased(lease) = &reply {
            self.lease = lease.clone();
        }
        reply
    }

    pub(super) fn next_xid(&mut self) -> Xid {
        self.begun += 1;
        let bits =
            (self.lease.floor_ms << 22) | (self.begun << 13) | u64::from(self.lease.worker.0);
        Xid::new(bits).expect("the floor is above zero")
    }

    pub(super) fn begin_reply(&mut self, xid: Xid, timeout_ms: u32, parent: Option<Xid>) -> Reply {
        self.apply(Command::Begin(Begin {
            process: CLIENT,
            xid,
            name: "order".into(),
            timeout_ms,
            parent,
        }))
    }

    pub(super) fn begin(&mut self) -> Xid {
        let xid = self.next_xid();
        assert_eq!(self.begin_reply(xid, 60_000, None), Reply::Ok);
        xid
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId {
            process: AGENT,
            sequence: self.requests,
        }
    }

    pub(super) fn registration(
        &mut self,
        xid: Xid,
        resource: &str,
        keys: &[&str],
    ) -> RegisterBranch {
        RegisterBranch {
            xid,
            request: self.request(),
            agent: AGENT,
            resource: resource.into(),
            mode: Mode::At,
            locks: keys
                .iter()
                .map(|k| LockKey::from(k.as_bytes()).into())
                .collect(),
            payload: Payload::default(),
            wait_limit_ms: 1_000,
            holds_local_locks: true,
            can_keep_open: false,
        }
    }

    /// A registration without row locks.
    pub(super) fn action(&mut self, xid: Xid, mode: Mode, action: &str) -> RegisterBranch {
        RegisterBranch {
            mode,
            payload: Payload::from(&b"{}"[..]),
            holds_local_locks: false,
            ..self.registration(xid, action, &[])
        }
    }

    /// A registration of one row of "a" in this mode.
    pub(super) fn in_mode(&mut self, xid: Xid, key: &str, mode: &LockMode) -> RegisterBranch {
        let mut registration = self.registration(xid, "a", &[key]);
        registration.locks[0].mode = mode.clone();
        registration
    }

    /// A check by a local transaction outside of any global one, which holds local locks.
    pub(super) fn check_outside(&mut self, keys: &[&str]) -> CheckLocks {
        let request = self.request();
        CheckLocks {
            xid: Xid::outside(request),
            request,
            resource: "a".into(),
            locks: keys.iter().map(|k| LockKey::from(k.as_bytes())).collect(),
            shared: false,
            wait_limit_ms: 1_000,
            holds_local_locks: true,
        }
    }

    /// Registers and expects to wait; returns who waits.
    pub(super) fn queue(&mut self, xid: Xid, resource: &str, keys: &[&str]) -> RegisterBranch {
        let registration = self.registration(xid, resource, keys);
        let reply = self.apply(Command::RegisterBranch(registration.clone()));
        assert_eq!(reply, Reply::Waiting(waiter(&registration)));
        registration
    }

    pub(super) fn try_register(&mut self, xid: Xid, resource: &str, keys: &[&str]) -> Reply {
        let registration = self.registration(xid, resource, keys);
        self.apply(Command::RegisterBranch(registration))
    }

    pub(super) fn register(&mut self, xid: Xid, resource: &str, keys: &[&str]) -> BranchId {
        match self.try_register(xid, resource, keys) {
            Reply::Registered { branch, .. } => branch,
            other => panic!("expected to be registered, got {other:?}"),
        }
    }

    pub(super) fn done(&mut self, xid: Xid, branch: BranchId) -> Reply {
        self.apply(Command::BranchDone(BranchDone { xid, branch }))
    }

    /// Registers a branch and commits it locally.
    pub(super) fn branch(&mut self, xid: Xid, resource: &str, keys: &[&str]) -> BranchId {
        let branch = self.register(xid, resource, keys);
        assert_eq!(self.done(xid, branch), Reply::Ok);
        branch
    }

    pub(super) fn commit(&mut self, xid: Xid) -> Reply {
        self.apply(Command::Commit(Commit { xid }))
    }

    pub(super) fn roll_back(&mut self, xid: Xid) -> Reply {
        self.apply(Command::RollBack(RollBack {
            xid,
            detail: "sold out".into(),
        }))
    }

    /// Reports the outcome of the newest order for a branch.
    pub(super) fn finish(&mut self, xid: Xid, branch: BranchId, outcome: Outcome) -> Reply {
        let attempt = self.branch_of(xid, branch).attempt();
        self.apply(Command::FinishBranch(FinishBranch {
            xid,
            branch,
            attempt,
            epoch: self.state.epoch(),
            outcome,
        }))
    }

    pub(super) fn branch_of(&self, xid: Xid, branch: BranchId) -> &Branch {
        let transaction = self.state.transaction(xid).expect("it is known");
        &transaction.branches()[branch.0 as usize - 1]
    }

    pub(super) fn status(&self, xid: Xid) -> Status {
        self.state.transaction(xid).expect("it is known").status()
    }

    /// The branches ordered by the last command, with what they shall do.
    pub(super) fn orders(&self) -> Vec<(Xid, u32, Action, u32)> {
        orders(&self.effects)
    }

    /// What the last command answered to those who wait.
    pub(super) fn answers(&self) -> Vec<(Waiter, Reply)> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Answer { waiter, reply } => Some((*waiter, reply.clone())),
                _ => None,
            })
            .collect()
    }
}

pub(super) fn orders(effects: &Effects) -> Vec<(Xid, u32, Action, u32)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order(o) => Some((o.xid, o.branch.0, o.action, o.attempt.0)),
            _ => None,
        })
        .collect()
}

pub(super) fn waiter(registration: &RegisterBranch) -> Waiter {
    Waiter::Request(registration.xid, registration.request)
}

pub(super) fn registered(reply: &Reply) -> bool {
    matches!(reply, Reply::Registered { .. })
}

pub(super) fn problem(reason: &str) -> Problem {
    Problem {
        reason: reason.to_string(),
        difference: String::new(),
        repair_statement: String::new(),
    }
}

/// What holds after every entry.
pub(super) fn check_always(state: &State) {
    let mut read_back = State::from_snapshot(&state.to_snapshot()).expect("its own bytes");
    let mut original = state.clone();
    original.locks = original.locks.tidied();
    read_back.locks = read_back.locks.tidied();
    assert_eq!(original, read_back, "a snapshot keeps everything");

    let mut expected = Vec::new();
    let mut payloads: u64 = state.parked.values().map(|p| p.payload_bytes()).sum();
    for transaction in state.transactions_after(None) {
        payloads += transaction.saga().map_or(0, |saga| saga.payload_bytes());
        let decided_commit = transaction.decision() == Some(Decision::Commit);
        for branch in transaction.branches() {
            if decided_commit || branch.status().is_over() {
                assert_eq!(
                    branch.row_locks(),
                    0,
                    "locks end with the decision or the branch"
                );
            }
            payloads += branch.payload().len() as u64;
            assert!(
                branch.payload().is_empty() || !branch.status().is_over(),
                "a payload ends with its branch"
            );
            expected.extend(branch.locks.iter().map(|lock| {
                let RowLock { key, mode } = lock.clone();
                (branch.resource().clone(), key, transaction.xid(), mode)
            }));
        }
        assert_eq!(
            transaction.reason().is_some(),
            transaction.decision() == Some(Decision::RollBack)
        );
        let over = transaction.branches().iter().all(|b| b.status().is_over());
        assert_eq!(
            transaction.status().has_ended(),
            transaction.decision().is_some() && over
        );
        let stuck = transaction
            .branches()
            .iter()
            .any(|b| b.status() == BranchStatus::Stuck);
        assert_eq!(matches!(transaction.status(), Status::Stuck(_)), stuck);
        three_phases_in_order(transaction);
        kept_open_before_decisions(transaction);
    }
    assert_eq!(state.counts().payload_bytes, payloads);
    let mut held = state.locks.holds();
    held.sort();
    expected.sort();
    assert_eq!(held, expected, "the lock table and the branches agree");
    holds_are_compatible(&held);
    nobody_waits_in_a_circle(state);
    for (id, ticket) in state.locks.tickets() {
        assert!(
            !state.locks.is_free(&ticket.wanted, Some(id)),
            "nobody waits for nothing"
        );
        let xid = ticket.wanted.xid();
        if xid.is_outside() {
            continue;
        }
        let transaction = state.transaction(xid).expect("waiters are known");
        assert_eq!(
            transaction.status(),
            Status::Active,
            "the decided do not wait"
        );
    }
}

/// Branches of 3PC hear of a commit while their transaction is pre-committed, and only then.
fn three_phases_in_order(transaction: &Transaction) {
    let early = transaction.status() == Status::PreCommitted;
    assert_eq!(transaction.pre_commit_until.is_some(), early);
    let mut hears = false;
    for branch in transaction.branches() {
        let told = branch.status() == BranchStatus::PreCommitted
            || (branch.status() == BranchStatus::Finishing && branch.action == Action::PreCommit);
        assert!(!told || branch.mode() == Mode::ThreePhase);
        assert!(!told || early, "the orders to commit are out");
        let open = branch.mode() == Mode::ThreePhase && !branch.status().is_over();
        assert!(
            !early || !open || told,
            "told before it is ordered to commit"
        );
        hears |= told && branch.status() == BranchStatus::Finishing;
    }
    assert_eq!(early, hears, "nobody waits for nothing");
}

/// At most one branch is kept open, before any decision; one that decides does so alone.
fn kept_open_before_decisions(transaction: &Transaction) {
    let branches = transaction.branches();
    let open: Vec<_> = branches
        .iter()
        .filter(|b| b.status() == BranchStatus::KeptOpen)
        .collect();
    assert!(open.len() <= 1 && open.iter().all(|b| b.mode() == Mode::Xa));
    let live: Vec<_> = branches.iter().filter(|b| !b.status().is_over()).collect();
    if let [one] = open[..] {
        assert_eq!(transaction.status(), Status::Active);
        assert_eq!(live.len() > 1, one.is_preparing() || live.len() > 1);
    }
    if transaction.status() == Status::Delegated {
        let [one] = live[..] else {
            panic!("one branch decides, not {}", live.len());
        };
        assert_eq!(
            (one.status(), one.action()),
            (BranchStatus::Finishing, Action::CommitOnePhase)
        );
    }
}

fn holds_are_compatible(held: &[(Resource, LockKey, Xid, LockMode)]) {
    for (i, one) in held.iter().enumerate() {
        let same_row = held[i + 1..]
            .iter()
            .take_while(|other| (&one.0, &one.1) == (&other.0, &other.1));
        for other in same_row.filter(|other| one.2 != other.2) {
            let modes = (&one.3, &other.3);
            let compatible = matches!(
                modes,
                (LockMode::Shared, LockMode::Shared) | (LockMode::Escrow(_), LockMode::Escrow(_))
            );
            assert!(compatible, "{one:?} and {other:?} hold one row");
        }
    }
}

/// If everyone who waits for nothing ends, one after the other, at last nobody waits: what the
/// search for cycles must see to, found by trying.
fn nobody_waits_in_a_circle(state: &State) {
    let mut locks = state.locks.clone();
    let mut holds: BTreeMap<Xid, Vec<(BranchId, Resource, Vec<RowLock>)>> = BTreeMap::new();
    for transaction in state.transactions_after(None) {
        let branches = transaction.branches().iter();
        let held = branches.map(|b| (b.id(), b.resource().clone(), b.locks.clone()));
        holds.insert(transaction.xid(), held.collect());
    }
    while let Some(xid) = holds.keys().copied().find(|xid| {
        let nested = state.nested.get(xid).into_iter().flatten();
        let nested_open = nested.into_iter().any(|nested| holds.contains_key(nested));
        !nested_open && locks.tickets_of(*xid).next().is_none()
    }) {
        for (branch, resource, rows) in holds.remove(&xid).unwrap_or_default() {
            locks.release(xid, branch, &resource, &rows);
        }
        let free = |locks: &RowLocks| {
            let mut tickets = locks.tickets();
            let free = tickets.find(|(id, ticket)| locks.is_free(&ticket.wanted, Some(*id)));
            free.map(|(id, _)| id)
        };
        while let Some(granted) = free(&locks) {
            let left = locks.dequeue(granted).expect("it waits");
            let Wanted::Register(register) = left.ticket.wanted else {
                continue;
            };
            let of = holds.get_mut(&register.xid).expect("waiters are known");
            let branch = BranchId(1_000 + of.len() as u32);
            locks.hold(register.xid, branch, &register.resource, &register.locks);
            of.push((branch, register.resource, register.locks));
        }
    }
    let waiting: Vec<_> = locks.tickets().collect();
    assert!(waiting.is_empty(), "these wait for each other: {waiting:?}");
}

/// Took or put `delta` into a column that now holds `value`, of 0 to 10.
pub(super) fn escrow(delta: i64, value: i64) -> LockMode {
    LockMode::Escrow(Arc::new(alloc::vec![ColumnDelta {
        column: "count".into(),
        delta,
        value,
        lower: 0,
        upper: 10,
    }]))
}
