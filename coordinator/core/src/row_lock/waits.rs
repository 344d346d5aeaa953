//! Who waits for whom, and the circles that must not be.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{RowLocks, TicketId, Wanted, row::Row};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    id::{LockKey, Resource, Xid},
    lock_mode::{LockMode, RowLock},
};

impl RowLocks {
    /// The transactions in the way of a request: holders, and those who queue before it.
    pub(crate) fn blockers(&self, wanted: &Wanted, ticket: Option<TicketId>) -> BTreeSet<Xid> {
        let xid = wanted.xid();
        let mut blockers = BTreeSet::new();
        for (row, mode) in self.rows_of(wanted) {
            blockers.extend(row.in_the_way(xid, mode));
            if row.is_held_by(xid) {
                continue;
            }
            let earlier = row.queue.iter();
            let earlier = earlier.take_while(|queued| Some(queued.ticket) != ticket);
            let earlier = earlier.filter(|q| q.xid != xid && !(q.shared && is_shared(mode)));
            blockers.extend(earlier.map(|queued| queued.xid));
        }
        blockers
    }

    /// Whether a request waits, and `xid` is in its way.
    pub(crate) fn waits_for(&self, id: TicketId, xid: Xid) -> bool {
        self.ticket(id)
            .is_some_and(|ticket| self.blockers(&ticket.wanted, Some(id)).contains(&xid))
    }

    /// The requests in the queues of these rows.
    pub(crate) fn queued_for<'a>(
        &self,
        resource: &Resource,
        keys: impl Iterator<Item = &'a LockKey>,
    ) -> impl Iterator<Item = TicketId> {
        let rows = self.rows.get(resource);
        keys.filter_map(move |key| rows?.get(key))
            .flat_map(|row| row.queue.iter().map(|queued| queued.ticket))
    }

    /// One of them, a holder if there is one.
    pub(crate) fn first_blocker(&self, wanted: &Wanted, ticket: Option<TicketId>) -> Option<Xid> {
        let xid = wanted.xid();
        let rows = self.rows_of(wanted);
        let mut holders = rows.flat_map(|(row, mode)| row.in_the_way(xid, mode));
        let queued = || self.blockers(wanted, ticket).into_iter().next();
        holders.next().or_else(queued)
    }

    /// The transactions that a waiting or new request waits for, as few as tell all by
    /// transitivity: the holders in its way, and for each row the last ones queued before it.
    fn direct_waits(&self, wanted: &Wanted, ticket: Option<TicketId>) -> Vec<Xid> {
        let xid = wanted.xid();
        let mut waits = Vec::new();
        for (row, mode) in self.rows_of(wanted) {
            waits.extend(row.in_the_way(xid, mode));
            if !row.is_held_by(xid) {
                self.last_before(row, xid, mode, ticket, &mut waits);
            }
        }
        waits
    }

    /// Goes up the queue from a request until one that waits for all before it.
    fn last_before(
        &self,
        row: &Row,
        xid: Xid,
        mode: &LockMode,
        ticket: Option<TicketId>,
        waits: &mut Vec<Xid>,
    ) {
        let place = row.queue.iter().position(|q| Some(q.ticket) == ticket);
        let place = place.unwrap_or(row.queue.len());
        let mut earlier = row.queue.iter().take(place);
        // Behind a register of its own it will overtake: its transaction holds the row by then,
        // with nobody beside it but those who may read when that one may.
        if let Some(first) = earlier.position(|q| q.xid == xid && self.will_hold(q.ticket)) {
            if !is_shared(mode) {
                let beside = row.readers_around(first).map(|queued| queued.xid);
                waits.extend(beside.filter(|reader| *reader != xid));
            }
            return;
        }
        for queued in row.queue.iter().take(place).rev() {
            if queued.shared && is_shared(mode) || queued.xid == xid {
                continue;
            }
            waits.push(queued.xid);
            // These do not wait for all before them: shared ones, and those who overtake because
            // their transaction holds the row or will by an earlier request.
            let overtakes = self.waits_often(queued.xid) || row.is_held_by(queued.xid);
            #[cfg(feature = "planted-bugs")]
            let overtakes = overtakes && !planted::is(Bug::OvertakersMisjudged);
            if !queued.shared && !overtakes {
                break;
            }
        }
    }

    /// Whether a transaction has more than one request in the queues.
    pub(super) fn waits_often(&self, xid: Xid) -> bool {
        self.waiting_of.get(&xid).is_some_and(|all| all.len() > 1)
    }

    fn will_hold(&self, ticket: TicketId) -> bool {
        matches!(self.tickets[&ticket].wanted, Wanted::Register(_))
    }

    /// The cycle that `wanted` would close by waiting: begins with its own transaction, each
    /// waits for the next and the last for the first. `nested` names the open transactions for
    /// whose end a transaction's own code waits. `ticket` is its place, if it waits already.
    ///
    /// A request in escrow may need only one of several holders to end. It counts as waiting for
    /// all of them, so some cycles are refused that would have resolved themselves.
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

    /// Who may wait for `xid` since it got these rows, and did not before. Whoever got a row by
    /// its turn was waited for by all behind it; but it may have come in beside others who hold
    /// the row and want more of it, or have overtaken the queue to hold more than before.
    pub(crate) fn new_waits(
        &self,
        xid: Xid,
        resource: &Resource,
        locks: &[RowLock],
    ) -> BTreeSet<Xid> {
        let rows = self.rows.get(resource);
        let rows = locks.iter().filter_map(|lock| rows?.get(&lock.key));
        let mut suspects = BTreeSet::new();
        for row in rows.filter(|row| row.is_held_together() && !row.queue.is_empty()) {
            if row.is_held_again_by(xid) {
                suspects.extend(row.queue.iter().map(|queued| queued.xid));
            } else {
                suspects.extend(row.overtakers().map(|queued| queued.xid));
            }
        }
        suspects.remove(&xid);
        suspects
    }
}

fn is_shared(mode: &LockMode) -> bool {
    *mode == LockMode::Shared
}
