//! Row locks: who holds which row of which resource, and who waits for it in which order.
//!
//! A request (a [`Ticket`]) stands in the queue of each of its keys. It is granted when each key is
//! held by its own transaction, or is free and has it at the head of the queue. So requests are
//! served in order, and a holder that asks again overtakes those who wait for it.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    command::{CheckLocks, RegisterBranch},
    hash::HashMap,
    id::{LockKey, RequestId, Resource, Timestamp, Xid},
    state::{LockWaiter, RowLockStatus},
};

/// Names a waiting request; later requests have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TicketId(pub(crate) u64);

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The locks, for a branch.
    Register(RegisterBranch),
    /// Only to see that they are free.
    Check(CheckLocks),
}

impl Wanted {
    pub(crate) fn xid(&self) -> Xid {
        match self {
            Self::Register(r) => r.xid,
            Self::Check(c) => c.xid,
        }
    }
    pub(crate) fn request(&self) -> RequestId {
        match self {
            Self::Register(r) => r.request,
            Self::Check(c) => c.request,
        }
    }
    pub(crate) fn resource(&self) -> &Resource {
        match self {
            Self::Register(r) => &r.resource,
            Self::Check(c) => &c.resource,
        }
    }
    pub(crate) fn locks(&self) -> &[LockKey] {
        match self {
            Self::Register(r) => &r.locks,
            Self::Check(c) => &c.locks,
        }
    }
    pub(crate) fn holds_local_locks(&self) -> bool {
        match self {
            Self::Register(r) => r.holds_local_locks,
            Self::Check(c) => c.holds_local_locks,
        }
    }
    pub(crate) fn wait_limit_ms(&self) -> u32 {
        match self {
            Self::Register(r) => r.wait_limit_ms,
            Self::Check(c) => c.wait_limit_ms,
        }
    }
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) wanted: Wanted,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    holder: Option<Holder>,
    queue: VecDeque<TicketId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    xid: Xid,
    /// How many of its branches hold the row.
    branches: u32,
}

/// All row locks and their queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowLocks {
    rows: BTreeMap<Resource, HashMap<LockKey, Row>>,
    tickets: BTreeMap<TicketId, Ticket>,
    waiting_of: BTreeMap<Xid, BTreeSet<TicketId>>,
    next_ticket: u64,
    held: u64,
}

impl RowLocks {
    /// Rows that are held.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.get(&id)
    }

    pub(crate) fn tickets(&self) -> impl Iterator<Item = (TicketId, &Ticket)> {
        self.tickets.iter().map(|(id, ticket)| (*id, ticket))
    }

    pub(crate) fn next_ticket(&self) -> u64 {
        self.next_ticket
    }

    /// What is known of a row, for people.
    pub(crate) fn status(&self, resource: &Resource, key: &LockKey) -> Option<RowLockStatus> {
        let row = self.rows.get(resource)?.get(key)?;
        let tickets = row.queue.iter().filter_map(|id| self.tickets.get(id));
        Some(RowLockStatus {
            resource: resource.clone(),
            key: key.clone(),
            holder: row.holder.map(|holder| holder.xid),
            waiting: tickets
                .map(|ticket| LockWaiter {
                    xid: ticket.wanted.xid(),
                    since: ticket.since,
                    until: ticket.until,
                    holds_local_locks: ticket.wanted.holds_local_locks(),
                })
                .collect(),
        })
    }

    /// The waiting requests of a transaction, oldest first.
    pub(crate) fn tickets_of(&self, xid: Xid) -> impl Iterator<Item = TicketId> + '_ {
        self.waiting_of.get(&xid).into_iter().flatten().copied()
    }

    /// The rows of `locks` that another transaction holds, or queues for first.
    pub(crate) fn blockers(&self, wanted: &Wanted, ticket: Option<TicketId>) -> BTreeSet<Xid> {
        let xid = wanted.xid();
        let mut blockers = BTreeSet::new();
        for row in self.rows_of(wanted) {
            match row.holder {
                Some(holder) if holder.xid == xid => continue,
                Some(holder) => drop(blockers.insert(holder.xid)),
                None => {}
            }
            let earlier = row.queue.iter().take_while(|id| Some(**id) != ticket);
            blockers.extend(
                earlier
                    .map(|id| self.tickets[id].wanted.xid())
                    .filter(|x| *x != xid),
            );
        }
        blockers
    }

    /// The transactions that hold rows of `wanted`, others than its own.
    pub(crate) fn holders<'a>(&'a self, wanted: &'a Wanted) -> impl Iterator<Item = Xid> + 'a {
        self.rows_of(wanted)
            .filter_map(|row| row.holder.map(|h| h.xid))
            .filter(|holder| *holder != wanted.xid())
    }

    fn rows_of<'a>(&'a self, wanted: &'a Wanted) -> impl Iterator<Item = &'a Row> {
        let rows = self.rows.get(wanted.resource());
        wanted.locks().iter().filter_map(move |key| rows?.get(key))
    }

    /// True when nothing is in the way of a request, `ticket` being its place in the queues.
    pub(crate) fn is_free(&self, wanted: &Wanted, ticket: Option<TicketId>) -> bool {
        let xid = wanted.xid();
        self.rows_of(wanted).all(|row| match row.holder {
            Some(holder) => holder.xid == xid,
            #[cfg(feature = "planted-bugs")]
            None if planted::is(Bug::WaiterSkipped) => true,
            None => row.queue.front().is_none_or(|head| Some(*head) == ticket),
        })
    }

    /// Takes all keys for a branch. The caller has checked that they are free.
    pub(crate) fn hold(&mut self, xid: Xid, resource: &Resource, keys: &[LockKey]) {
        if keys.is_empty() {
            return;
        }
        if !self.rows.contains_key(resource) {
            self.rows.insert(resource.clone(), HashMap::default());
        }
        let Some(rows) = self.rows.get_mut(resource) else {
            return;
        };
        for key in keys {
            let row = rows.entry(key.clone()).or_default();
            match &mut row.holder {
                Some(holder) => {
                    assert_eq!(holder.xid, xid, "a row lock has one holder");
                    holder.branches += 1;
                }
                None => {
                    row.holder = Some(Holder { xid, branches: 1 });
                    self.held += 1;
                }
            }
        }
    }

    /// One branch of `xid` no longer holds `keys`. Returns the requests that may now be granted.
    pub(crate) fn release(
        &mut self,
        xid: Xid,
        resource: &Resource,
        keys: &[LockKey],
    ) -> BTreeSet<TicketId> {
        let mut heads = BTreeSet::new();
        let Some(rows) = self.rows.get_mut(resource) else {
            return heads;
        };
        for key in keys {
            let Some(row) = rows.get_mut(key) else {
                continue;
            };
            let Some(holder) = row.holder.as_mut().filter(|h| h.xid == xid) else {
                continue;
            };
            holder.branches -= 1;
            if holder.branches > 0 {
                continue;
            }
            row.holder = None;
            self.held -= 1;
            match row.queue.front() {
                Some(head) => drop(heads.insert(*head)),
                None => drop(rows.remove(key)),
            }
        }
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::WaiterForgotten) {
            heads.clear();
        }
        heads
    }

    /// Puts a request at the end of the queues of all its keys.
    pub(crate) fn enqueue(&mut self, ticket: Ticket) -> TicketId {
        let id = TicketId(self.next_ticket);
        self.next_ticket += 1;
        self.enqueue_as(id, ticket);
        id
    }

    /// Restores a waiting request out of a snapshot; holders first, then tickets in order.
    pub(crate) fn restore(&mut self, id: TicketId, ticket: Ticket) {
        self.enqueue_as(id, ticket);
    }

    /// Restores a branch's hold out of a snapshot; false if another transaction has the row.
    #[must_use]
    pub(crate) fn restore_hold(&mut self, xid: Xid, resource: &Resource, keys: &[LockKey]) -> bool {
        let rows = self.rows.get(resource);
        let taken = |key: &LockKey| {
            rows.and_then(|r| r.get(key)?.holder)
                .is_some_and(|h| h.xid != xid)
        };
        let free = !keys.iter().any(taken);
        if free {
            self.hold(xid, resource, keys);
        }
        free
    }

    pub(crate) fn restore_next_ticket(&mut self, next: u64) {
        self.next_ticket = next;
    }

    fn enqueue_as(&mut self, id: TicketId, ticket: Ticket) {
        let xid = ticket.wanted.xid();
        let rows = self
            .rows
            .entry(ticket.wanted.resource().clone())
            .or_default();
        for key in ticket.wanted.locks() {
            // Also where its own transaction holds the row now: that branch may be withdrawn.
            rows.entry(key.clone()).or_default().queue.push_back(id);
        }
        self.waiting_of.entry(xid).or_default().insert(id);
        self.tickets.insert(id, ticket);
    }

    /// Takes a request out of all queues. Returns it and the requests that may now be granted.
    pub(crate) fn dequeue(&mut self, id: TicketId) -> Option<(Ticket, BTreeSet<TicketId>)> {
        let ticket = self.tickets.remove(&id)?;
        let xid = ticket.wanted.xid();
        if let Some(mine) = self.waiting_of.get_mut(&xid) {
            mine.remove(&id);
            if mine.is_empty() {
                self.waiting_of.remove(&xid);
            }
        }
        let mut heads = BTreeSet::new();
        if let Some(rows) = self.rows.get_mut(ticket.wanted.resource()) {
            for key in ticket.wanted.locks() {
                let Some(row) = rows.get_mut(key) else {
                    continue;
                };
                row.queue.retain(|queued| *queued != id);
                match row.queue.front() {
                    Some(head) => drop(heads.insert(*head)),
                    None if row.holder.is_none() => drop(rows.remove(key)),
                    None => {}
                }
            }
        }
        Some((ticket, heads))
    }

    /// The requests in the queues of the rows that a branch holds.
    pub(crate) fn queued_behind(
        &self,
        resource: &Resource,
        keys: &[LockKey],
    ) -> BTreeSet<TicketId> {
        let rows = self.rows.get(resource);
        keys.iter()
            .filter_map(|key| rows?.get(key))
            .flat_map(|row| row.queue.iter().copied())
            .collect()
    }

    /// The transactions that a waiting or new request waits for, as few as tell all by
    /// transitivity: each holder, and for each key the last one queued before it.
    fn direct_waits(&self, wanted: &Wanted, ticket: Option<TicketId>) -> Vec<Xid> {
        let xid = wanted.xid();
        let mut waits = Vec::new();
        for row in self.rows_of(wanted) {
            match row.holder {
                Some(holder) if holder.xid == xid => continue,
                Some(holder) => waits.push(holder.xid),
                None => {}
            }
            let mut before = None;
            for id in &row.queue {
                if Some(*id) == ticket {
                    break;
                }
                let queued = &self.tickets[id].wanted;
                if queued.xid() != xid {
                    before = Some(queued.xid());
                } else if matches!(queued, Wanted::Register(_)) {
                    // From here on its own transaction will hold the row and overtake.
                    break;
                }
            }
            waits.extend(before);
        }
        waits
    }

    /// The cycle that `wanted` would close by waiting: begins with its own transaction, each
    /// waits for the next and the last for the first. `nested` names the open transactions for
    /// whose end a transaction's own code waits. `ticket` is its place, if it waits already.
    pub(crate) fn cycle(
        &self,
        wanted: &Wanted,
        ticket: Option<TicketId>,
        nested: impl Fn(Xid) -> Vec<Xid>,
    ) -> Option<Vec<Xid>> {
        let start = wanted.xid();
        // Depth first; `path[i]` waits for what is left in `open[i]`.
        let mut path = alloc::vec![start];
        let mut open = alloc::vec![self.direct_waits(wanted, ticket)];
        let mut seen = BTreeSet::new();
        while let Some(waits) = open.last_mut() {
            let Some(next) = waits.pop() else {
                open.pop();
                path.pop();
                continue;
            };
            if next == start {
                return Some(path);
            }
            if !seen.insert(next) {
                continue;
            }
            let mut waits = nested(next);
            for id in self.tickets_of(next) {
                waits.extend(self.direct_waits(&self.tickets[&id].wanted, Some(id)));
            }
            path.push(next);
            open.push(waits);
        }
        None
    }
}

#[cfg(test)]
impl RowLocks {
    /// The same without traces of resources in which nothing is locked any more.
    pub(crate) fn tidied(mut self) -> Self {
        self.rows.retain(|_, rows| !rows.is_empty());
        self
    }

    /// Every held row with its holder and how many branches hold it.
    pub(crate) fn holders_of_rows(&self) -> Vec<(Resource, LockKey, Xid, u32)> {
        let rows = self.rows.iter().flat_map(|(resource, rows)| {
            rows.iter().filter_map(|(key, row)| {
                row.holder
                    .map(|h| (resource.clone(), key.clone(), h.xid, h.branches))
            })
        });
        rows.collect()
    }
}
