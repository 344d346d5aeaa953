//! One row: who holds it in which mode, and who waits for it.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use super::{escrow, wanted::TicketId};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    id::{BranchId, Xid},
    lock_mode::{ColumnDelta, LockMode},
};

/// Always true: others than the exclusive holder hold nothing; of two transactions that hold it,
/// both do so shared or both in escrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    exclusive: Option<Exclusive>,
    /// In the order of transactions and their branches. Boxed, as most rows have none.
    #[expect(clippy::box_collection, reason = "a row without any must stay small")]
    together: Option<Box<Vec<Hold>>>,
    pub(super) queue: VecDeque<Queued>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exclusive {
    xid: Xid,
    /// How many of its branches hold the row so.
    branches: u32,
}

/// A branch's hold in a mode that allows others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hold {
    xid: Xid,
    branch: BranchId,
    mode: LockMode,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) ticket: TicketId,
    pub(super) xid: Xid,
    pub(super) shared: bool,
}

impl Row {
    /// The exclusive holder, then the others, branch by branch.
    pub(super) fn holds(&self) -> impl Iterator<Item = (Xid, &LockMode)> {
        let exclusive = self.exclusive.iter().map(|h| (h.xid, &LockMode::Exclusive));
        exclusive.chain(self.together().iter().map(|hold| (hold.xid, &hold.mode)))
    }

    /// The same with each branch of the exclusive holder.
    #[cfg(test)]
    pub(super) fn each_hold(&self) -> impl Iterator<Item = (Xid, &LockMode)> {
        let more = self.exclusive.map_or(0, |holder| holder.branches - 1);
        let first = self.holds().next();
        let more = (0..more).filter_map(move |_| first);
        self.holds().chain(more)
    }

    fn together(&self) -> &[Hold] {
        self.together.as_deref().map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_held(&self) -> bool {
        self.exclusive.is_some() || self.together.is_some()
    }

    pub(super) fn is_held_by(&self, xid: Xid) -> bool {
        self.holds().any(|(holder, _)| holder == xid)
    }

    /// True if no holder is in the way of `xid`. Most rows have one holder or none.
    pub(super) fn is_free_for(&self, xid: Xid, mode: &LockMode) -> bool {
        match (&self.exclusive, &self.together) {
            (Some(holder), _) => holder.xid == xid,
            (None, None) => true,
            (None, Some(_)) => self.in_the_way(xid, mode).next().is_none(),
        }
    }

    /// Holders that `xid` has to wait for if it wants the row in this mode, one branch after the
    /// other.
    pub(super) fn in_the_way<'a>(
        &'a self,
        xid: Xid,
        mode: &'a LockMode,
    ) -> impl Iterator<Item = Xid> + 'a {
        let crowded = self.crowded_columns(xid, mode);
        let others = self.holds().filter(move |(holder, _)| *holder != xid);
        let hinders = move |theirs: &LockMode| match (mode, theirs) {
            (LockMode::Shared, LockMode::Shared) => false,
            #[cfg(feature = "planted-bugs")]
            (LockMode::Exclusive, LockMode::Shared) if planted::is(Bug::ReadersIgnored) => false,
            (LockMode::Escrow(_), LockMode::Escrow(theirs)) => crowded
                .iter()
                .any(|column| of_column(theirs, column).is_some()),
            (LockMode::Exclusive | LockMode::Shared | LockMode::Escrow(_), _) => true,
        };
        others.filter_map(move |(holder, theirs)| hinders(theirs).then_some(holder))
    }

    /// The columns that could leave their bounds if `xid` had the row in this mode too.
    fn crowded_columns<'a>(&self, xid: Xid, mode: &'a LockMode) -> Vec<&'a str> {
        let LockMode::Escrow(mine) = mode else {
            return Vec::new();
        };
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::EscrowUnbounded) {
            return Vec::new();
        }
        let crowded = |mine: &&ColumnDelta| {
            let held = self.together().iter().filter_map(|hold| match &hold.mode {
                LockMode::Escrow(theirs) => Some((hold.xid, of_column(theirs, &mine.column)?)),
                LockMode::Exclusive | LockMode::Shared => None,
            });
            !escrow::stays_in_bounds(xid, mine, held)
        };
        let crowded = mine.iter().filter(crowded);
        crowded.map(|mine| &*mine.column).collect()
    }

    /// True if a hold of another transaction can never stand beside one of `xid` in this mode.
    pub(super) fn excludes(&self, xid: Xid, mode: &LockMode) -> bool {
        let mut others = self.holds().filter(|(holder, _)| *holder != xid);
        others.any(|(_, theirs)| {
            !matches!(
                (mode, theirs),
                (LockMode::Shared, LockMode::Shared) | (LockMode::Escrow(_), LockMode::Escrow(_))
            )
        })
    }

    /// Adds a branch's hold. True if nobody held the row before.
    pub(super) fn hold(&mut self, xid: Xid, branch: BranchId, mode: &LockMode) -> bool {
        let first = !self.is_held();
        if *mode == LockMode::Exclusive {
            match &mut self.exclusive {
                Some(holder) => {
                    assert_eq!(holder.xid, xid, "an exclusive lock has one holder");
                    holder.branches += 1;
                }
                None => self.exclusive = Some(Exclusive { xid, branches: 1 }),
            }
            return first;
        }
        let together = self.together.get_or_insert_default();
        let place = together.partition_point(|hold| (hold.xid, hold.branch) < (xid, branch));
        let mode = mode.clone();
        together.insert(place, Hold { xid, branch, mode });
        first
    }

    /// Ends a branch's hold; false if it has none.
    pub(super) fn release(&mut self, xid: Xid, branch: BranchId, mode: &LockMode) -> bool {
        if *mode == LockMode::Exclusive {
            let Some(holder) = self.exclusive.as_mut().filter(|h| h.xid == xid) else {
                return false;
            };
            holder.branches -= 1;
            if holder.branches == 0 {
                self.exclusive = None;
            }
            return true;
        }
        let Some(together) = &mut self.together else {
            return false;
        };
        let before = together.len();
        together.retain(|hold| (hold.xid, hold.branch) != (xid, branch));
        let held = together.len() < before;
        if together.is_empty() {
            self.together = None;
        }
        held
    }

    /// Takes a request out of the queue; returns the place it had. Most are at its head when they
    /// leave.
    pub(super) fn leave(&mut self, ticket: TicketId) -> Option<usize> {
        let mut queue = self.queue.iter();
        let place = queue.position(|queued| queued.ticket == ticket)?;
        self.queue.remove(place);
        Some(place)
    }

    /// The shared requests that stand together with the one at a place in the queue, if that is
    /// shared: each of them may get the row before the others.
    pub(super) fn readers_around(&self, place: usize) -> impl Iterator<Item = &Queued> {
        let before = self.queue.iter().take(place + 1).rev();
        let before = before.take_while(|queued| queued.shared);
        let is_shared = self.queue.get(place).is_some_and(|queued| queued.shared);
        let after = self.queue.iter().skip(place + 1);
        before.chain(after.take_while(move |queued| is_shared && queued.shared))
    }

    /// Those in the queue behind shared requests that stand together since the one between them
    /// left this place.
    pub(super) fn behind_the_gap(&self, place: usize) -> impl Iterator<Item = &Queued> {
        let shared = |at: Option<usize>| {
            at.and_then(|at| self.queue.get(at))
                .is_some_and(|q| q.shared)
        };
        let gap = shared(place.checked_sub(1)) && shared(Some(place));
        self.queue.iter().skip(place + 1).filter(move |_| gap)
    }

    /// True if the queue lets a request pass that has `ticket` in it, or none yet: shared ones pass
    /// shared ones, everyone else is served in order.
    pub(super) fn lets_pass(&self, mode: &LockMode, ticket: Option<TicketId>) -> bool {
        let mut earlier = self
            .queue
            .iter()
            .take_while(|queued| Some(queued.ticket) != ticket);
        match mode {
            LockMode::Shared => earlier.all(|queued| queued.shared),
            LockMode::Exclusive | LockMode::Escrow(_) => earlier.next().is_none(),
        }
    }

    /// Those in the queue who may be granted now that somebody left: its head, with all shared ones
    /// if that is one, and those who hold the row already and overtake.
    pub(super) fn next(&self) -> impl Iterator<Item = TicketId> + '_ {
        let shared = self.queue.iter().take_while(|queued| queued.shared).count();
        let head = self.queue.iter().take(shared.max(1));
        head.chain(self.overtakers()).map(|queued| queued.ticket)
    }

    /// Those in the queue who hold the row already.
    pub(super) fn overtakers(&self) -> impl Iterator<Item = &Queued> {
        let held = self.is_held();
        let queue = self.queue.iter().filter(move |_| held);
        queue.filter(|queued| self.is_held_by(queued.xid))
    }

    /// True if the row is held in a mode that allows others.
    pub(super) fn is_held_together(&self) -> bool {
        self.together.is_some()
    }

    /// True if `xid` holds the row otherwise than by one branch.
    pub(super) fn is_held_again_by(&self, xid: Xid) -> bool {
        let again = self.exclusive.is_some_and(|h| h.branches > 1);
        again || self.holds().filter(|(holder, _)| *holder == xid).count() > 1
    }
}

fn of_column<'a>(deltas: &'a [ColumnDelta], column: &str) -> Option<&'a ColumnDelta> {
    deltas.iter().find(|delta| &*delta.column == column)
}
