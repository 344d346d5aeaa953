//! Row locks: who holds which row of which resource, and who waits for it in which order.
//!
//! A request (a [`Ticket`]) stands in the queue of each of its rows. It is granted when no holder
//! is in its way ([`row::Row::in_the_way`]) and it is its turn in every queue. So requests are
//! served in order; a holder that asks again overtakes those who wait for it.

mod escrow;
mod row;
mod waits;
mod wanted;

use alloc::collections::{BTreeMap, BTreeSet};

use self::row::{Queued, Row};
pub(crate) use self::wanted::{Ticket, TicketId, Wanted};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    hash::HashMap,
    id::{BranchId, LockKey, Resource, Xid},
    lock_mode::{LockMode, RowLock},
    state::{LockHolder, LockWaiter, RowLockStatus},
};

/// What [`RowLocks::dequeue`] took out of the queues.
pub(crate) struct Dequeued {
    pub(crate) ticket: Ticket,
    /// The requests that may now be granted.
    pub(crate) next: BTreeSet<TicketId>,
    /// The transactions that may now wait for others than before.
    pub(crate) suspects: BTreeSet<Xid>,
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
        let tickets = row.queue.iter();
        let tickets = tickets.filter_map(|queued| self.tickets.get(&queued.ticket));
        let holders = row.holds().map(|(xid, mode)| LockHolder {
            xid,
            mode: mode.clone(),
        });
        let mut holders: alloc::vec::Vec<_> = holders.collect();
        holders.dedup();
        Some(RowLockStatus {
            resource: resource.clone(),
            key: key.clone(),
            holders,
            waiting: tickets
                .map(|ticket| LockWaiter {
                    xid: ticket.wanted.xid(),
                    mode: ticket.wanted.mode_of(key).clone(),
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

    /// The transactions that changed rows of `wanted`, others than its own: to undo that they need
    /// the database's locks.
    pub(crate) fn writers<'a>(&'a self, wanted: &'a Wanted) -> impl Iterator<Item = Xid> + 'a {
        let holds = self.rows_of(wanted).flat_map(|(row, _)| row.holds());
        let writers = holds.filter(|(_, mode)| **mode != LockMode::Shared);
        writers
            .map(|(holder, _)| holder)
            .filter(|holder| *holder != wanted.xid())
    }

    /// The rows of a request that are held or queued for, each with the mode wanted.
    fn rows_of<'a>(&'a self, wanted: &'a Wanted) -> impl Iterator<Item = (&'a Row, &'a LockMode)> {
        let rows = self.rows.get(wanted.resource());
        let locks = wanted.locks();
        locks.filter_map(move |(key, mode)| Some((rows?.get(key)?, mode)))
    }

    /// True when nothing is in the way of a request, `ticket` being its place in the queues.
    pub(crate) fn is_free(&self, wanted: &Wanted, ticket: Option<TicketId>) -> bool {
        let xid = wanted.xid();
        self.rows_of(wanted).all(|(row, mode)| {
            #[cfg(feature = "planted-bugs")]
            if planted::is(Bug::WaiterSkipped) && !row.is_held() {
                return true;
            }
            row.is_free_for(xid, mode) && (row.lets_pass(mode, ticket) || row.is_held_by(xid))
        })
    }

    /// Takes all rows for a branch. The caller has checked that they are free. True if others may
    /// wait for it now who did not before.
    pub(crate) fn hold(
        &mut self,
        xid: Xid,
        branch: BranchId,
        resource: &Resource,
        locks: &[RowLock],
    ) -> bool {
        let mut waited_for = false;
        if locks.is_empty() {
            return waited_for;
        }
        if !self.rows.contains_key(resource) {
            self.rows.insert(resource.clone(), HashMap::default());
        }
        let Some(rows) = self.rows.get_mut(resource) else {
            return waited_for;
        };
        for lock in locks {
            let row = rows.entry(lock.key.clone()).or_default();
            self.held += u64::from(row.hold(xid, branch, &lock.mode));
            waited_for |= row.is_held_together() && !row.queue.is_empty();
        }
        waited_for
    }

    /// A branch no longer holds its rows. Returns the requests that may now be granted.
    pub(crate) fn release(
        &mut self,
        xid: Xid,
        branch: BranchId,
        resource: &Resource,
        locks: &[RowLock],
    ) -> BTreeSet<TicketId> {
        let mut next = BTreeSet::new();
        let Some(rows) = self.rows.get_mut(resource) else {
            return next;
        };
        for lock in locks {
            let Some(row) = rows.get_mut(&lock.key) else {
                continue;
            };
            if !row.release(xid, branch, &lock.mode) {
                continue;
            }
            self.held -= u64::from(!row.is_held());
            if !row.queue.is_empty() {
                next.extend(row.next());
            } else if !row.is_held() {
                rows.remove(&lock.key);
            }
        }
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::WaiterForgotten) {
            next.clear();
        }
        next
    }

    /// Puts a request at the end of the queues of all its rows.
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

    /// Restores a branch's holds out of a snapshot; false if another transaction's exclude them.
    #[must_use]
    pub(crate) fn restore_hold(
        &mut self,
        xid: Xid,
        branch: BranchId,
        resource: &Resource,
        locks: &[RowLock],
    ) -> bool {
        let rows = self.rows.get(resource);
        let excluded = |lock: &RowLock| {
            rows.and_then(|rows| rows.get(&lock.key))
                .is_some_and(|row| row.excludes(xid, &lock.mode))
        };
        let free = !locks.iter().any(excluded);
        if free {
            let _ = self.hold(xid, branch, resource, locks);
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
        for (key, mode) in ticket.wanted.locks() {
            // Also where its own transaction holds the row now: that branch may be withdrawn.
            rows.entry(key.clone())
                .or_default()
                .queue
                .push_back(Queued {
                    ticket: id,
                    xid,
                    shared: *mode == LockMode::Shared,
                });
        }
        self.waiting_of.entry(xid).or_default().insert(id);
        self.tickets.insert(id, ticket);
    }

    /// Takes a request out of all queues.
    pub(crate) fn dequeue(&mut self, id: TicketId) -> Option<Dequeued> {
        let ticket = self.tickets.remove(&id)?;
        let xid = ticket.wanted.xid();
        if let Some(mine) = self.waiting_of.get_mut(&xid) {
            mine.remove(&id);
            if mine.is_empty() {
                self.waiting_of.remove(&xid);
            }
        }
        let mut next = BTreeSet::new();
        let mut suspects = BTreeSet::new();
        if let Some(rows) = self.rows.get_mut(ticket.wanted.resource()) {
            for (key, _) in ticket.wanted.locks() {
                let Some(row) = rows.get_mut(key) else {
                    continue;
                };
                if let Some(place) = row.leave(id) {
                    suspects.extend(row.behind_the_gap(place).map(|queued| queued.xid));
                }
                next.extend(row.next());
                if !row.is_held() && row.queue.is_empty() {
                    rows.remove(key);
                }
            }
        }
        // Only behind a request of its own does one care who passes that.
        suspects.retain(|xid| self.waits_often(*xid));
        Some(Dequeued {
            ticket,
            next,
            suspects,
        })
    }

    /// The requests in the queues of the rows that a branch changed.
    pub(crate) fn queued_behind(
        &self,
        resource: &Resource,
        locks: &[RowLock],
    ) -> BTreeSet<TicketId> {
        let changed = locks.iter().filter(|lock| lock.mode != LockMode::Shared);
        self.queued_for(resource, changed.map(|lock| &lock.key))
            .collect()
    }
}

#[cfg(test)]
impl RowLocks {
    /// The same without traces of resources in which nothing is locked any more.
    pub(crate) fn tidied(mut self) -> Self {
        self.rows.retain(|_, rows| !rows.is_empty());
        self
    }

    /// Every hold of a row, branch by branch.
    pub(crate) fn holds(&self) -> alloc::vec::Vec<(Resource, LockKey, Xid, LockMode)> {
        let rows = self.rows.iter().flat_map(|(resource, rows)| {
            let rows = rows.iter();
            rows.map(move |(key, row)| (resource, key, row))
        });
        let holds = rows.flat_map(|(resource, key, row)| {
            let each = row.each_hold();
            each.map(|(xid, mode)| (resource.clone(), key.clone(), xid, mode.clone()))
        });
        holds.collect()
    }
}
