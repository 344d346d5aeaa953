//! Row locks as the rules want them: who holds what, who stands before whom. Knows nothing of the
//! state machine's own tables.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{
    BranchId, ColumnDelta, Command, Decision, LockKey, LockMode, Reply, RequestId, Resource,
    RowLock, State, Xid,
};

use super::{Step, request_answers};

type Key = (Resource, LockKey);

/// What a request wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) xid: Xid,
    pub(crate) request: RequestId,
    pub(crate) resource: Resource,
    pub(crate) locks: Vec<RowLock>,
    /// To take the locks, not only to see them free.
    pub(crate) takes: bool,
    /// Its local transaction is open meanwhile.
    pub(crate) local: bool,
}

/// A request that got what it wanted, with whoever should have kept it from that.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) wish: Wish,
    /// Transactions that held one of the rows in a mode that excludes it.
    pub(crate) held_by: BTreeSet<Xid>,
    /// Transactions that stood before it in a queue.
    pub(crate) overtook: BTreeSet<Xid>,
}

/// Holders and queues.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    held: BTreeMap<(Xid, BranchId), (Resource, Vec<RowLock>)>,
    holders: BTreeMap<Key, BTreeMap<(Xid, BranchId), LockMode>>,
    /// In the order in which they began to wait.
    waiting: Vec<Wish>,
    /// Wait for their transaction to begin.
    parked: Vec<Wish>,
    /// Open transactions inside others.
    nested: BTreeMap<Xid, Xid>,
    /// Requests that got what they wanted, so that a repeated answer counts for nothing.
    granted: BTreeSet<(Xid, RequestId)>,
    /// What the last command granted.
    pub(crate) grants: Vec<Grant>,
    /// Whether the last command changed who waits for whom.
    pub(crate) changed: bool,
}

impl Locks {
    /// Follows one command that `state` has just applied.
    pub(crate) fn follow(&mut self, state: &State, step: &Step<'_>) {
        self.grants.clear();
        let held = self.held.len();
        self.release(state);
        self.changed = held != self.held.len();
        if let Command::Begin(begin) = step.command
            && let Some(parent) = begin.parent
            && step.before.is_none()
            && step.reply == &Reply::Ok
        {
            self.nested.insert(begin.xid, parent);
            self.changed = true;
        }
        let answered: Vec<_> = request_answers(step)
            .map(|(xid, request, reply)| (xid, request, reply.clone()))
            .collect();
        self.unpark(state);
        let mut own = wish_of(step.command);
        for (xid, request, reply) in answered {
            let asks = own.take_if(|wish| wish.request == request && wish.xid == xid);
            self.answered(state, (xid, request), &reply, asks);
        }
    }

    /// Drops what the rules let go: at the decision to commit, else when the branch is over.
    fn release(&mut self, state: &State) {
        let over = |xid: Xid, branch: BranchId| {
            let Some(transaction) = state.transaction(xid) else {
                return true;
            };
            let record = transaction.branches().get(branch.0 as usize - 1);
            transaction.decision() == Some(Decision::Commit)
                || record.is_none_or(|branch| branch.status().is_over())
        };
        let gone: Vec<(Xid, BranchId)> = self
            .held
            .keys()
            .filter(|(xid, branch)| over(*xid, *branch))
            .copied()
            .collect();
        for holder in gone {
            let Some((resource, locks)) = self.held.remove(&holder) else {
                continue;
            };
            for lock in locks {
                if let Some(holders) = self.holders.get_mut(&(resource.clone(), lock.key)) {
                    holders.remove(&holder);
                }
            }
        }
        self.nested.retain(|xid, _| {
            state
                .transaction(*xid)
                .is_some_and(|t| t.decision().is_none())
        });
    }

    /// Requests whose transaction has begun join the queues. Those that are answered at once
    /// leave them again, judged as if they stood last.
    fn unpark(&mut self, state: &State) {
        let begun = |wish: &Wish| state.transaction(wish.xid).is_some();
        if self.parked.iter().any(begun) {
            let (begun, parked) = std::mem::take(&mut self.parked)
                .into_iter()
                .partition(begun);
            self.parked = parked;
            self.waiting.extend::<Vec<Wish>>(begun);
        }
    }

    fn answered(
        &mut self,
        state: &State,
        (xid, request): (Xid, RequestId),
        reply: &Reply,
        asks: Option<Wish>,
    ) {
        let place = self
            .waiting
            .iter()
            .position(|w| (w.xid, w.request) == (xid, request));
        if let Reply::Waiting(_) = reply {
            let known = place.is_some() || self.parked.iter().any(|w| w.request == request);
            if let (Some(wish), false) = (asks, known) {
                if state.transaction(xid).is_some() {
                    self.waiting.push(wish);
                    self.changed = true;
                } else {
                    self.parked.push(wish);
                }
            }
            return;
        }
        self.parked.retain(|wish| wish.request != request);
        let before = place.unwrap_or(self.waiting.len());
        let wish = place.map(|place| self.waiting.remove(place)).or(asks);
        let Some(wish) = wish else {
            return;
        };
        let granted = match reply {
            Reply::Registered { branch, .. } => Some(Some(*branch)),
            Reply::LocksFree => Some(None),
            _ => None,
        };
        if let Some(branch) = granted
            && self.granted.insert((xid, request))
        {
            self.take(&wish, branch);
            let grant = self.judge(wish, before);
            self.grants.push(grant);
        }
        self.changed = true;
    }

    /// Notes the locks of a branch.
    fn take(&mut self, wish: &Wish, branch: Option<BranchId>) {
        let Some(branch) = branch else {
            return;
        };
        let holder = (wish.xid, branch);
        self.held
            .insert(holder, (wish.resource.clone(), wish.locks.clone()));
        for lock in &wish.locks {
            let holders = self
                .holders
                .entry((wish.resource.clone(), lock.key.clone()))
                .or_default();
            holders.insert(holder, lock.mode.clone());
        }
    }

    fn judge(&self, wish: Wish, before: usize) -> Grant {
        let mut overtook = BTreeSet::new();
        for earlier in self.waiting[..before].iter().filter(|w| w.xid != wish.xid) {
            let mut common = wish
                .locks
                .iter()
                .filter(|lock| earlier.is_before(&wish.resource, lock));
            // Whoever holds a row may take it again.
            if common.any(|lock| !self.held_before(&wish, &lock.key)) {
                overtook.insert(earlier.xid);
            }
        }
        let excluding = wish.locks.iter().flat_map(|lock| {
            let holds = self.holds_of(&wish.resource, &lock.key);
            holds.filter(|(_, theirs)| !may_stand_together(&lock.mode, theirs))
        });
        let held_by = excluding
            .map(|((xid, _), _)| *xid)
            .filter(|holder| *holder != wish.xid)
            .collect();
        Grant {
            wish,
            held_by,
            overtook,
        }
    }

    /// Whether another branch of the same transaction holds the row.
    fn held_before(&self, wish: &Wish, key: &LockKey) -> bool {
        let holds = self.holds_of(&wish.resource, key);
        let own = holds.filter(|((xid, _), _)| *xid == wish.xid).count();
        own > usize::from(wish.takes)
    }

    fn holds_of(
        &self,
        resource: &Resource,
        key: &LockKey,
    ) -> impl DoubleEndedIterator<Item = (&(Xid, BranchId), &LockMode)> {
        let holders = self.holders.get(&(resource.clone(), key.clone()));
        holders.into_iter().flatten()
    }

    /// The transactions other than its own that a waiting request waits for.
    fn blockers(&self, place: usize) -> BTreeSet<Xid> {
        let wish = &self.waiting[place];
        let mut blockers = BTreeSet::new();
        for lock in &wish.locks {
            let holds = || self.holds_of(&wish.resource, &lock.key);
            let crowded = matches!(&lock.mode, LockMode::Escrow(mine)
                if !stays_in_bounds(wish.xid, &mine[0], holds()));
            let in_the_way = holds().filter(|(_, theirs)| {
                !may_stand_together(&lock.mode, theirs)
                    || crowded && matches!(theirs, LockMode::Escrow(_))
            });
            blockers.extend(in_the_way.map(|((xid, _), _)| *xid));
            if holds().any(|((xid, _), _)| *xid == wish.xid) {
                continue;
            }
            let same_row: Vec<&Wish> = self.waiting[..place]
                .iter()
                .filter(|w| w.wants(&wish.resource, &lock.key))
                .collect();
            // Behind an earlier request of its own it will overtake the others, but for those who
            // may read with that one.
            let own = same_row.iter().position(|w| w.xid == wish.xid && w.takes);
            let end = own.map_or(same_row.len(), |own| {
                let later = same_row[own..].iter();
                own + later
                    .take_while(|w| w.reads(&wish.resource, &lock.key))
                    .count()
            });
            let before = same_row[..end].iter();
            let before = before.filter(|w| w.is_before(&wish.resource, lock));
            blockers.extend(before.map(|w| w.xid));
        }
        blockers.remove(&wish.xid);
        blockers
    }

    /// Requests that wait although nothing is in their way.
    pub(crate) fn forgotten(&self) -> Option<&Wish> {
        let own_is_before = |place: usize| {
            let wish = &self.waiting[place];
            let shares = |w: &Wish| {
                let mut locks = wish.locks.iter();
                locks.any(|lock| w.wants(&wish.resource, &lock.key))
            };
            self.waiting[..place]
                .iter()
                .any(|w| w.xid == wish.xid && shares(w))
        };
        let lost = |place: &usize| self.blockers(*place).is_empty() && !own_is_before(*place);
        (0..self.waiting.len())
            .find(lost)
            .map(|place| &self.waiting[place])
    }

    /// A request with local locks that waits for this transaction or one around it.
    pub(crate) fn held_up_by(&self, xid: Xid) -> Option<&Wish> {
        let around = |xid: &Xid| self.nested.get(xid).copied();
        // Transactions inside each other are few; a circle of them ends here too.
        let waits: BTreeSet<Xid> = std::iter::successors(Some(xid), around).take(16).collect();
        let held_up = |place: &usize| {
            self.waiting[*place].local && !self.blockers(*place).is_disjoint(&waits)
        };
        (0..self.waiting.len())
            .find(held_up)
            .map(|place| &self.waiting[place])
    }

    /// Transactions that wait for each other, if there are any.
    pub(crate) fn cycle(&self) -> Option<Vec<Xid>> {
        let mut waits: BTreeMap<Xid, BTreeSet<Xid>> = BTreeMap::new();
        for place in 0..self.waiting.len() {
            waits
                .entry(self.waiting[place].xid)
                .or_default()
                .extend(self.blockers(place));
        }
        for (nested, parent) in &self.nested {
            waits.entry(*parent).or_default().insert(*nested);
        }
        // Whoever waits for nobody is in no cycle; what is left when all such are gone is one.
        loop {
            let known: BTreeSet<Xid> = waits.keys().copied().collect();
            let size = waits.values().map(BTreeSet::len).sum::<usize>();
            for blockers in waits.values_mut() {
                blockers.retain(|xid| known.contains(xid));
            }
            waits.retain(|_, blockers| !blockers.is_empty());
            if waits.values().map(BTreeSet::len).sum::<usize>() == size {
                break;
            }
        }
        (!waits.is_empty()).then(|| waits.into_keys().collect())
    }
}

impl Wish {
    fn wants(&self, resource: &Resource, key: &LockKey) -> bool {
        self.resource == *resource && self.locks.iter().any(|lock| lock.key == *key)
    }

    /// Whether it wants no more of a row than to read it.
    fn reads(&self, resource: &Resource, key: &LockKey) -> bool {
        let mut own = self.locks.iter().filter(|own| own.key == *key);
        self.resource == *resource && own.all(|own| own.mode == LockMode::Shared)
    }

    /// Whether whoever comes later and wants `lock` must wait for this one.
    fn is_before(&self, resource: &Resource, lock: &RowLock) -> bool {
        let mut own = self.locks.iter().filter(|own| own.key == lock.key);
        let both_read = |own: &RowLock| own.mode == LockMode::Shared && lock.mode == own.mode;
        self.resource == *resource && own.any(|own| !both_read(own))
    }
}

fn wish_of(command: &Command) -> Option<Wish> {
    let (xid, request, resource, locks, takes) = match command {
        Command::RegisterBranch(c) => (c.xid, c.request, &c.resource, c.locks.clone(), true),
        Command::CheckLocks(c) => {
            let locks = c.locks.iter().cloned().map(RowLock::from);
            (c.xid, c.request, &c.resource, locks.collect(), false)
        }
        _ => return None,
    };
    let local = match command {
        Command::RegisterBranch(c) => c.holds_local_locks,
        Command::CheckLocks(c) => c.holds_local_locks,
        _ => false,
    };
    Some(Wish {
        xid,
        request,
        resource: resource.clone(),
        locks,
        takes,
        local,
    })
}

fn may_stand_together(one: &LockMode, other: &LockMode) -> bool {
    matches!(
        (one, other),
        (LockMode::Shared, LockMode::Shared) | (LockMode::Escrow(_), LockMode::Escrow(_))
    )
}

/// Each transaction may undo any number of its last changes: tries the worst of that for each.
fn stays_in_bounds<'a>(
    xid: Xid,
    mine: &ColumnDelta,
    holds: impl DoubleEndedIterator<Item = (&'a (Xid, BranchId), &'a LockMode)>,
) -> bool {
    let mut undone: BTreeMap<Xid, Vec<i64>> = BTreeMap::from([(xid, vec![0, mine.delta])]);
    for ((holder, _), mode) in holds.rev() {
        if let LockMode::Escrow(deltas) = mode {
            let sums = undone.entry(*holder).or_insert_with(|| vec![0]);
            sums.push(sums[sums.len() - 1] + deltas[0].delta);
        }
    }
    let alone = undone.len() == 1;
    let down: i64 = undone.values().filter_map(|sums| sums.iter().max()).sum();
    let up: i64 = undone.values().filter_map(|sums| sums.iter().min()).sum();
    alone || mine.lower <= mine.value - down && mine.value - up <= mine.upper
}
