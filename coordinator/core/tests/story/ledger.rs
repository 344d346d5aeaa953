//! What must hold after every entry, kept in books of its own: from the commands and what was
//! answered alone it knows who holds which row, who waits in which order and what was decided.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::*;

use super::{Told, name_of};

/// The books.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    decisions: BTreeMap<Xid, Decision>,
    holds: Vec<Hold>,
    /// Those who wait for rows, in the order in which they came.
    queue: Vec<Wish>,
    /// Those who wait for their transaction to begin.
    parked: Vec<Wish>,
    answered: BTreeSet<(Xid, RequestId)>,
    /// Those who wait for a saga's end.
    plans: BTreeSet<(Xid, RequestId)>,
}

#[derive(Clone, Debug)]
struct Hold {
    xid: Xid,
    branch: BranchId,
    rows: Rows,
}

#[derive(Clone, Debug)]
struct Wish {
    xid: Xid,
    request: RequestId,
    rows: Rows,
    /// Its local transaction holds the database's locks.
    local: bool,
}

#[derive(Clone, Debug)]
struct Rows {
    resource: Resource,
    locks: Vec<RowLock>,
}

impl Rows {
    fn mode(&self, resource: &Resource, key: &LockKey) -> Option<&LockMode> {
        let mut locks = self.locks.iter();
        let lock = locks.find(|lock| self.resource == *resource && lock.key == *key)?;
        Some(&lock.mode)
    }

    fn each(&self) -> impl Iterator<Item = (&Resource, &RowLock)> {
        self.locks.iter().map(|lock| (&self.resource, lock))
    }
}

impl Wish {
    /// Whether who comes later and wants this lock must wait for this one.
    fn is_before(&self, resource: &Resource, lock: &RowLock) -> bool {
        let mode = self.rows.mode(resource, &lock.key);
        mode.is_some_and(|mode| (mode, &lock.mode) != (&LockMode::Shared, &LockMode::Shared))
    }
}

impl Ledger {
    /// Enters what one command did; refuses what must never happen.
    pub(super) fn look(
        &mut self,
        state: &State,
        command: &Command,
        reply: &Reply,
        effects: &[Effect],
    ) -> Told<()> {
        self.forget_released(state)?;
        self.enter(state, command, reply)?;
        for effect in effects {
            self.enter_effect(state, effect)?;
        }
        // What was granted and taken back by the same entry.
        self.forget_released(state)?;
        for wish in &self.queue {
            self.must_be_blocked(wish)?;
        }
        for transaction in state.transactions_after(None) {
            self.transaction_is_sound(transaction)?;
        }
        self.counts_agree(state)
    }

    /// A hold ends with the decision to commit, else when its branch is over.
    fn forget_released(&mut self, state: &State) -> Told<()> {
        let (held, released): (_, Vec<_>) = self.holds.drain(..).partition(|hold: &Hold| {
            let branch = branch_of(state, hold.xid, hold.branch);
            branch.is_some_and(|branch| branch.row_locks() > 0)
        });
        self.holds = held;
        for Hold { xid, branch, .. } in released {
            let decision = state.transaction(xid).and_then(Transaction::decision);
            let over = branch_of(state, xid, branch).is_none_or(|b| b.status().is_over());
            if decision != Some(Decision::Commit) && !over {
                let branch = branch.0;
                return Err(format!(
                    "branch {branch} of {xid} loses its rows before it is over"
                ));
            }
        }
        Ok(())
    }

    fn enter(&mut self, state: &State, command: &Command, reply: &Reply) -> Told<()> {
        let (xid, request, resource, locks, local) = match command {
            Command::RegisterBranch(c) => {
                let locks = c.locks.clone();
                (c.xid, c.request, &c.resource, locks, c.holds_local_locks)
            }
            Command::CheckLocks(c) => {
                let locks = c.locks.iter().cloned().map(RowLock::from);
                let locks = locks.map(|RowLock { key, mode }| RowLock {
                    key,
                    mode: if c.shared { LockMode::Shared } else { mode },
                });
                let locks = locks.collect();
                (c.xid, c.request, &c.resource, locks, c.holds_local_locks)
            }
            Command::StartSaga(c) => {
                if matches!(reply, Reply::Waiting(_)) {
                    self.plans.insert((c.xid, c.request));
                }
                return Ok(());
            }
            Command::Begin(c) if *reply == Reply::Ok => {
                let (begun, parked) = self.parked.drain(..).partition(|wish| wish.xid == c.xid);
                self.parked = parked;
                self.queue.extend::<Vec<Wish>>(begun);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let rows = Rows {
            resource: resource.clone(),
            locks,
        };
        let wish = Wish {
            xid,
            request,
            rows,
            local,
        };
        let known = |w: &Wish| w.xid == xid && w.request == request;
        match reply {
            Reply::Waiting(_) if self.queue.iter().chain(&self.parked).any(known) => {}
            Reply::Waiting(_) if state.whereabouts(xid) == Whereabouts::NotBegun => {
                self.parked.push(wish);
            }
            Reply::Waiting(_) => self.queue.push(wish),
            answer => {
                if self.answered.insert((xid, request)) {
                    self.grant(wish, answer, self.queue.len())?;
                }
            }
        }
        Ok(())
    }

    fn enter_effect(&mut self, state: &State, effect: &Effect) -> Told<()> {
        match effect {
            Effect::Answer {
                waiter: Waiter::Request(xid, request),
                reply,
            } => self.answer(*xid, *request, reply),
            Effect::Decided { xid, decision } => match self.decisions.insert(*xid, *decision) {
                None => Ok(()),
                Some(_) => Err(format!("{xid} is decided twice")),
            },
            Effect::Order(order) => self.order_is_sound(state, order),
            Effect::Answer { .. }
            | Effect::StepOver { .. }
            | Effect::DropOrder { .. }
            | Effect::Ended { .. }
            | Effect::Stuck { .. } => Ok(()),
        }
    }

    fn answer(&mut self, xid: Xid, request: RequestId, reply: &Reply) -> Told<()> {
        let name = name_of(request.sequence);
        let known = |w: &Wish| w.xid == xid && w.request == request;
        if self.plans.remove(&(xid, request)) {
            return match reply {
                Reply::SagaDone(..) | Reply::Decided(Decision::RollBack, _) | Reply::Refused(_) => {
                    Ok(())
                }
                other => Err(format!("{other:?} is no answer to the plan {name}")),
            };
        }
        if !matches!(
            reply,
            Reply::Registered { .. } | Reply::LocksFree | Reply::Refused(_)
        ) {
            return Err(format!("{reply:?} is no answer to the request {name}"));
        }
        self.answered.insert((xid, request));
        if let Some(place) = self.queue.iter().position(known) {
            let wish = self.queue.remove(place);
            return self.grant(wish, reply, place);
        }
        let parked = self.parked.len();
        self.parked.retain(|wish| !known(wish));
        if self.parked.len() == parked {
            return Err(format!("{name} is answered although nobody waits for it"));
        }
        Ok(())
    }

    /// A wish that had `place` others before it in the queue.
    fn grant(&mut self, wish: Wish, reply: &Reply, place: usize) -> Told<()> {
        if !matches!(reply, Reply::Registered { .. } | Reply::LocksFree) {
            return Ok(());
        }
        let (xid, name) = (wish.xid, name_of(wish.request.sequence));
        for (resource, lock) in wish.rows.each() {
            if let Some(holder) = self.in_the_way(xid, resource, lock).next() {
                return Err(format!("{name} gets a row that {holder} holds"));
            }
            if self.holds(xid, resource, &lock.key) {
                continue;
            }
            let mut earlier = self.queue[..place].iter();
            if let Some(first) = earlier.find(|w| w.xid != xid && w.is_before(resource, lock)) {
                let first = name_of(first.request.sequence);
                return Err(format!(
                    "{name} is served before {first}, which came earlier"
                ));
            }
        }
        if let Reply::Registered { branch, .. } = reply
            && !wish.rows.locks.is_empty()
        {
            self.holds.push(Hold {
                xid,
                branch: *branch,
                rows: wish.rows,
            });
        }
        Ok(())
    }

    /// Every hold of a row.
    fn holds_of(&self, resource: &Resource, key: &LockKey) -> Vec<(Xid, &LockMode)> {
        let holds = self.holds.iter();
        let holds = holds.filter_map(|hold| Some((hold.xid, hold.rows.mode(resource, key)?)));
        holds.collect()
    }

    fn holds(&self, xid: Xid, resource: &Resource, key: &LockKey) -> bool {
        let holds = self.holds_of(resource, key);
        holds.iter().any(|(holder, _)| *holder == xid)
    }

    /// The holders because of whom `xid` may not have a row in this mode.
    fn in_the_way(
        &self,
        xid: Xid,
        resource: &Resource,
        lock: &RowLock,
    ) -> impl Iterator<Item = Xid> {
        let holds = self.holds_of(resource, &lock.key);
        let crowded = is_crowded(xid, &lock.mode, &holds);
        let others = holds.into_iter().filter(move |(holder, _)| *holder != xid);
        let hindering = others.filter(move |(_, theirs)| match (&lock.mode, theirs) {
            (LockMode::Shared, LockMode::Shared) => false,
            (LockMode::Escrow(_), LockMode::Escrow(_)) => crowded,
            _ => true,
        });
        let holders: Vec<Xid> = hindering.map(|(holder, _)| holder).collect();
        holders.into_iter()
    }

    fn must_be_blocked(&self, wish: &Wish) -> Told<()> {
        let writers = wish.rows.each().flat_map(|(resource, lock)| {
            let holds = self.holds_of(resource, &lock.key).into_iter();
            holds.filter(|(_, mode)| **mode != LockMode::Shared)
        });
        let mut writers = writers.map(|(writer, _)| writer);
        let undoes = |writer: &Xid| self.decisions.contains_key(writer) && *writer != wish.xid;
        if let Some(holder) = writers.find(undoes).filter(|_| wish.local) {
            let name = name_of(wish.request.sequence);
            return Err(format!(
                "{name} waits with the local locks that {holder} needs"
            ));
        }
        let blocked = wish.rows.each().any(|(resource, lock)| {
            if self.in_the_way(wish.xid, resource, lock).next().is_some() {
                return true;
            }
            let mut earlier = self.queue.iter().take_while(|w| w.request != wish.request);
            !self.holds(wish.xid, resource, &lock.key)
                && earlier.any(|w| w.is_before(resource, lock))
        });
        match blocked {
            true => Ok(()),
            false => Err(format!(
                "{} waits for nothing",
                name_of(wish.request.sequence)
            )),
        }
    }

    fn transaction_is_sound(&self, transaction: &Transaction) -> Told<()> {
        let (xid, decision) = (transaction.xid(), transaction.decision());
        if decision != self.decisions.get(&xid).copied() {
            return Err(format!(
                "{xid} is {decision:?} but was decided otherwise or unheard"
            ));
        }
        if transaction.reason().is_some() != (decision == Some(Decision::RollBack)) {
            return Err(format!(
                "{xid} has a reason without a rollback, or the reverse"
            ));
        }
        let branches = transaction.branches();
        let over = branches.iter().all(|b| b.status().is_over());
        if transaction.status().has_ended() != (over && decision.is_some()) {
            return Err(format!("{xid} ended too early or not at all"));
        }
        for branch in branches {
            let (id, status) = (branch.id().0, branch.status());
            let counts = status != BranchStatus::Withdrawn;
            if decision == Some(Decision::Commit) && counts && !branch.was_done() {
                return Err(format!("{xid} commits although branch {id} was not done"));
            }
            let frees = decision == Some(Decision::Commit) || status.is_over();
            if frees && branch.row_locks() > 0 {
                return Err(format!("branch {id} of {xid} keeps its rows for too long"));
            }
        }
        Ok(())
    }

    /// All branches go the same way, backwards when they are undone: those of AT on one resource,
    /// those of Saga everywhere.
    pub(super) fn order_is_sound(&self, state: &State, order: &Order) -> Told<()> {
        let (xid, branch) = (order.xid, order.branch.0);
        if order.epoch != state.epoch() {
            return Err(format!(
                "{xid} {branch} is ordered in a former leader's epoch"
            ));
        }
        let asks = match order.action {
            Action::Run => return self.run_is_sound(state, order),
            Action::Prepare | Action::CommitOnePhase => return self.open_is_sound(state, order),
            Action::Commit | Action::PreCommit => Decision::Commit,
            Action::RollBack | Action::RollBackForced | Action::Accept => Decision::RollBack,
        };
        if self.decisions.get(&xid) != Some(&asks) {
            return Err(format!(
                "{xid} {branch} is ordered to {asks:?} against the decision"
            ));
        }
        let transaction = state.transaction(xid);
        self.hears_first(transaction, order)?;
        let mut later = transaction
            .into_iter()
            .flat_map(|t| &t.branches()[branch as usize..]);
        let waits = |b: &Branch| {
            let in_line = match order.mode {
                Mode::At => b.resource() == &order.resource,
                Mode::Saga => true,
                Mode::Xa | Mode::Tcc | Mode::ThreePhase => false,
            };
            in_line && b.mode() == order.mode && !b.status().is_over()
        };
        if asks == Decision::RollBack && later.any(waits) {
            return Err(format!("{xid} {branch} is undone before later ones"));
        }
        Ok(())
    }

    /// Branches of 3PC hear of a commit before any of them is ordered to commit.
    fn hears_first(&self, transaction: Option<&Transaction>, order: &Order) -> Told<()> {
        let pre_committed = transaction.is_some_and(|t| t.status() == Status::PreCommitted);
        let (xid, branch) = (order.xid, order.branch.0);
        match order.action {
            Action::PreCommit if order.mode != Mode::ThreePhase || !pre_committed => Err(format!(
                "{xid} {branch} is told to pre-commit, which is not its turn"
            )),
            Action::Commit if order.mode == Mode::ThreePhase && pre_committed => Err(format!(
                "{xid} {branch} is ordered to commit before the others have heard of it"
            )),
            _ => Ok(()),
        }
    }

    /// A branch that is kept open is told to prepare because of another one, or to commit because
    /// there is none; before any decision.
    fn open_is_sound(&self, state: &State, order: &Order) -> Told<()> {
        let (xid, branch) = (order.xid, order.branch.0);
        let transaction = state.transaction(xid);
        let status = transaction.map(Transaction::status);
        let others = transaction.into_iter().flat_map(Transaction::branches);
        let alone = others
            .filter(|b| b.id() != order.branch)
            .all(|b| b.status().is_over());
        let wanted = match order.action {
            Action::CommitOnePhase if alone => Status::Delegated,
            Action::CommitOnePhase => return Err(format!("{xid} {branch} decides for others")),
            _ => Status::Active,
        };
        match order.mode == Mode::Xa && status == Some(wanted) {
            true => Ok(()),
            false => Err(format!("{xid} {branch} is ordered to {:?}", order.action)),
        }
    }

    /// A step is done before any decision, after all that it waits for, and once.
    fn run_is_sound(&self, state: &State, order: &Order) -> Told<()> {
        let (xid, branch) = (order.xid, order.branch.0);
        if self.decisions.contains_key(&xid) {
            return Err(format!("the step {xid} {branch} is run after the decision"));
        }
        if branch_of(state, xid, order.branch).is_none_or(Branch::was_done) {
            return Err(format!(
                "the step {xid} {branch} is run although it is done"
            ));
        }
        let saga = state.transaction(xid).and_then(Transaction::saga);
        let step = saga.and_then(|saga| saga.step_of(order.branch));
        let saga = saga.zip(step).ok_or("a step of no saga is run")?;
        let done = |at: &u16| saga.0.steps()[usize::from(*at)].result().is_some();
        match saga.1.after().iter().all(done) {
            true => Ok(()),
            false => Err(format!("the step {xid} {branch} is run too early")),
        }
    }

    fn counts_agree(&self, state: &State) -> Told<()> {
        let counts = state.counts();
        let held: BTreeSet<_> = self
            .holds
            .iter()
            .flat_map(|hold| hold.rows.each())
            .map(|(resource, lock)| (resource, &lock.key))
            .collect();
        if (counts.row_locks, counts.waiting) == (held.len() as u64, self.queue.len() as u64) {
            return Ok(());
        }
        Err(format!(
            "{} rows are held and {} requests wait, but the state counts {} and {}",
            held.len(),
            self.queue.len(),
            counts.row_locks,
            counts.waiting
        ))
    }
}

fn branch_of(state: &State, xid: Xid, branch: BranchId) -> Option<&Branch> {
    let transaction = state.transaction(xid)?;
    transaction.branches().get(branch.0 as usize - 1)
}

/// Whether a number could leave its bounds if each transaction undid any number of its last
/// changes, or `xid` the one that it asks for.
fn is_crowded(xid: Xid, wanted: &LockMode, holds: &[(Xid, &LockMode)]) -> bool {
    let LockMode::Escrow(mine) = wanted else {
        return false;
    };
    let mine = &mine[0];
    let mut sums: BTreeMap<Xid, Vec<i64>> = BTreeMap::from([(xid, vec![0, mine.delta])]);
    for (holder, mode) in holds.iter().rev() {
        if let LockMode::Escrow(deltas) = mode {
            let sums = sums.entry(*holder).or_insert_with(|| vec![0]);
            sums.push(sums[sums.len() - 1] + deltas[0].delta);
        }
    }
    let down: i64 = sums.values().filter_map(|sums| sums.iter().max()).sum();
    let up: i64 = sums.values().filter_map(|sums| sums.iter().min()).sum();
    sums.len() > 1 && (mine.value - down < mine.lower || mine.value - up > mine.upper)
}
