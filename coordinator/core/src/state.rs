//! All that the coordinator knows, and how those outside may look at it.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use core::ops::Bound;

use crate::{
    command::Command,
    deadline::Deadlines,
    id::{DatabaseId, Epoch, LockKey, ProcessId, Resource, Timestamp, WorkerId, Xid},
    lock_mode::LockMode,
    reply::{Decision, Whereabouts},
    retention::Retention,
    row_lock::{RowLocks, Ticket, TicketId},
    status::Status,
    transaction::Transaction,
    transactions::Transactions,
    worker::Worker,
};

/// The state machine's state. Changes only by [`State::apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) now: Timestamp,
    pub(crate) epoch: Epoch,
    /// Nothing expires before.
    pub(crate) grace_until: Timestamp,
    pub(crate) retention: Retention,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// The worker ids under lease, by their holders.
    pub(crate) leased: BTreeMap<ProcessId, WorkerId>,
    /// Known worker ids that are not under lease. Ids are made without gaps.
    pub(crate) free_workers: BTreeSet<WorkerId>,
    pub(crate) databases: BTreeMap<Resource, DatabaseId>,
    /// Never a database's name too.
    pub(crate) actions: BTreeSet<Resource>,
    pub(crate) transactions: Transactions,
    /// Open transactions and those nested in them that are undecided.
    pub(crate) nested: BTreeMap<Xid, BTreeSet<Xid>>,
    /// Ended transactions, in the order in which they ended and will be forgotten.
    pub(crate) ended: BTreeSet<(Timestamp, Xid)>,
    /// Requests that came before their transaction's begin.
    pub(crate) parked: BTreeMap<Xid, Parked>,
    pub(crate) parked_requests: usize,
    /// Bytes of the payloads of all branches, plans and parked requests, and of steps' results.
    pub(crate) payload_bytes: u64,
    pub(crate) locks: RowLocks,
    pub(crate) deadlines: Deadlines,
    pub(crate) by_status: [u64; 8],
}

/// Requests of one transaction whose begin has not arrived, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    pub(crate) until: Timestamp,
    pub(crate) commands: Vec<Command>,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Undecided transactions.
    pub active: u64,
    /// Their only branches decide them.
    pub delegated: u64,
    /// Decided to commit; branches of 3PC are hearing of it.
    pub pre_committed: u64,
    /// Decided to commit, not finished.
    pub committing: u64,
    /// Committed and still known.
    pub committed: u64,
    /// Decided to roll back, not finished.
    pub rolling_back: u64,
    /// Rolled back and still known.
    pub rolled_back: u64,
    /// Transactions with a branch that needs a person.
    pub stuck: u64,
    /// Held row locks.
    pub row_locks: u64,
    /// Requests that wait for row locks.
    pub waiting: u64,
    /// Workers under lease.
    pub workers: u64,
    /// Bytes of the payloads of branches that are not over, and of what steps of sagas returned.
    pub payload_bytes: u64,
}

/// A request that waits for row locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRequest {
    /// Where.
    pub resource: Resource,
    /// How many rows it wants.
    pub row_locks: usize,
    /// The transactions in the way: holders, and those that queue before it.
    pub blocked_by: Vec<Xid>,
    /// When it began to wait.
    pub since: Timestamp,
    /// When it gives up.
    pub until: Timestamp,
}

/// A row that is held or waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLockStatus {
    /// Where.
    pub resource: Resource,
    /// Which.
    pub key: LockKey,
    /// Who holds it, in the order of their XIDs; none while the first in its queue waits for
    /// another row. One that holds it in several modes comes once for each.
    pub holders: Vec<LockHolder>,
    /// Who waits for it, in order.
    pub waiting: Vec<LockWaiter>,
}

/// A transaction that holds a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Which.
    pub xid: Xid,
    /// How.
    pub mode: LockMode,
}

/// A request in the queue of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWaiter {
    /// Whose.
    pub xid: Xid,
    /// How it wants the row.
    pub mode: LockMode,
    /// When it began to wait.
    pub since: Timestamp,
    /// When it gives up.
    pub until: Timestamp,
    /// Its local transaction holds the database's locks meanwhile.
    pub holds_local_locks: bool,
}

pub(crate) const fn status_slot(status: Status) -> usize {
    match status {
        Status::Active => 0,
        Status::Committing => 1,
        Status::Committed => 2,
        Status::RollingBack => 3,
        Status::RolledBack => 4,
        Status::Stuck(Decision::Commit | Decision::RollBack) => 5,
        Status::PreCommitted => 6,
        Status::Delegated => 7,
    }
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The time of the last applied entry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When the last leader took office, as a log index.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// From when on an `Expire` changes something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let forget = self.next_forgotten();
        let first = self.deadlines.next().into_iter().chain(forget).min();
        first.map(|at| at.max(self.grace_until))
    }

    /// Known transactions that ended at `from` or later, in the order in which they ended; those at
    /// `from` itself above `after` only.
    pub fn ended_from(
        &self,
        from: Timestamp,
        after: Option<Xid>,
    ) -> impl Iterator<Item = &Transaction> {
        let start = match after {
            Some(xid) => Bound::Excluded((from, xid)),
            None => Bound::Included((from, Xid::MIN)),
        };
        self.ended
            .range((start, Bound::Unbounded))
            .filter_map(|(_, xid)| self.transaction(*xid))
    }

    /// How long ended transactions stay known, as the last leader set it.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// When the transaction that ended first is to be forgotten.
    pub(crate) fn next_forgotten(&self) -> Option<Timestamp> {
        let (ended_at, _) = self.ended.first()?;
        Some(match self.too_many_ended() {
            true => *ended_at,
            false => ended_at.plus(self.retention.ms),
        })
    }

    pub(crate) fn too_many_ended(&self) -> bool {
        self.ended.len() as u64 > self.retention.transactions
    }

    /// Whether an XID is known, and if not, which of the two it is.
    #[must_use]
    pub fn whereabouts(&self, xid: Xid) -> Whereabouts {
        if self.transactions.contains(xid) {
            return Whereabouts::Known;
        }
        let through = self
            .workers
            .get(&xid.worker())
            .and_then(|w| w.begun_through);
        if through.is_some_and(|highest| xid <= highest) {
            Whereabouts::Forgotten
        } else {
            Whereabouts::NotBegun
        }
    }

    /// A known transaction.
    #[must_use]
    pub fn transaction(&self, xid: Xid) -> Option<&Transaction> {
        self.transactions.get(xid)
    }

    /// All known transactions above `after`, in ascending order.
    pub fn transactions_after(&self, after: Option<Xid>) -> impl Iterator<Item = &Transaction> {
        self.transactions.after(after)
    }

    /// The requests of a transaction that wait for row locks.
    #[must_use]
    pub fn waiting(&self, xid: Xid) -> Vec<WaitingRequest> {
        self.locks
            .tickets_of(xid)
            .filter_map(|id| self.locks.ticket(id).map(|ticket| (id, ticket)))
            .map(|(id, ticket)| WaitingRequest {
                resource: ticket.wanted.resource().clone(),
                row_locks: ticket.wanted.row_locks(),
                blocked_by: self
                    .locks
                    .blockers(&ticket.wanted, Some(id))
                    .into_iter()
                    .collect(),
                since: ticket.since,
                until: ticket.until,
            })
            .collect()
    }

    /// Whether a transaction that stands still outside keeps a request waiting that holds local
    /// locks. A [`Blocked`](crate::Blocked) for it changes the state only then.
    #[must_use]
    pub fn holds_up(&self, xid: Xid) -> bool {
        self.locks.waiting() > 0 && !self.held_up_by(xid).is_empty()
    }

    /// Whether a caller waits for this transaction's branches: it has asked to commit.
    #[must_use]
    pub fn is_awaited(&self, xid: Xid) -> bool {
        self.transaction(xid).is_some_and(Transaction::commit_asked)
    }

    /// Whether this transaction is committed, its row locks are free, and all that is left to do
    /// is to finish its branches.
    #[must_use]
    pub fn only_cleans_up(&self, xid: Xid) -> bool {
        self.transaction(xid)
            .is_some_and(|transaction| transaction.status() == Status::Committing)
    }

    /// The waiting requests with local locks that wait for this transaction, or for one whose own
    /// code waits for it because it is nested there; each with the transaction in its way.
    pub(crate) fn held_up_by(&self, xid: Xid) -> BTreeMap<TicketId, Xid> {
        let mut held_up = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let undecided = |t: &&Transaction| t.decision().is_none();
        let mut next = self.transaction(xid).filter(undecided);
        while let Some(transaction) = next
            && seen.insert(transaction.xid)
        {
            for ticket in self.behind(transaction) {
                let holds = |t: &Ticket| t.wanted.holds_local_locks();
                if self.locks.ticket(ticket).is_some_and(holds)
                    && self.locks.waits_for(ticket, transaction.xid)
                {
                    held_up.entry(ticket).or_insert(transaction.xid);
                }
            }
            let parent = transaction.parent.and_then(|xid| self.transaction(xid));
            next = parent.filter(undecided);
        }
        held_up
    }

    /// The requests in the queues of all rows that a transaction holds or waits for.
    fn behind(&self, transaction: &Transaction) -> BTreeSet<TicketId> {
        let mut behind = BTreeSet::new();
        for branch in &transaction.branches {
            let keys = branch.locks.iter().map(|lock| &lock.key);
            behind.extend(self.locks.queued_for(&branch.resource, keys));
        }
        let tickets = self.locks.tickets_of(transaction.xid);
        for ticket in tickets.filter_map(|id| self.locks.ticket(id)) {
            let keys = ticket.wanted.locks().map(|(key, _)| key);
            behind.extend(self.locks.queued_for(ticket.wanted.resource(), keys));
        }
        behind
    }

    /// The rows that a transaction holds, as the first if others hold them too, and those that
    /// nobody holds and it is the first to wait for: over all transactions each row comes once.
    #[must_use]
    pub fn row_locks_of(&self, xid: Xid) -> Vec<RowLockStatus> {
        let Some(transaction) = self.transaction(xid) else {
            return Vec::new();
        };
        let held = transaction.branches().iter().flat_map(|branch| {
            let locks = branch.locks.iter();
            locks.map(|lock| (branch.resource(), &lock.key))
        });
        let tickets = self
            .locks
            .tickets_of(xid)
            .filter_map(|id| self.locks.ticket(id));
        let waited = tickets.flat_map(|ticket| {
            let locks = ticket.wanted.locks();
            locks.map(move |(key, _)| (ticket.wanted.resource(), key))
        });
        // Several branches may hold a row, several requests wait for it.
        let rows: BTreeSet<(&Resource, &LockKey)> = held.chain(waited).collect();
        rows.into_iter()
            .filter_map(|(resource, key)| self.locks.status(resource, key))
            .filter(|row| {
                let first = row.waiting.first().map(|waiter| waiter.xid);
                let holder = row.holders.first().map(|holder| holder.xid);
                holder.or(first) == Some(xid)
            })
            .collect()
    }

    /// How many there are of what. Costs nothing.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let [
            active,
            committing,
            committed,
            rolling_back,
            rolled_back,
            stuck,
            pre_committed,
            delegated,
        ] = self.by_status;
        Counts {
            active,
            delegated,
            pre_committed,
            committing,
            committed,
            rolling_back,
            rolled_back,
            stuck,
            row_locks: self.locks.held(),
            waiting: self.locks.waiting() as u64,
            workers: self.leased.len() as u64,
            payload_bytes: self.payload_bytes,
        }
    }

    /// The known actions, in order.
    pub fn actions(&self) -> impl Iterator<Item = &Resource> {
        self.actions.iter()
    }

    /// Whether a name is a known action's.
    #[must_use]
    pub fn is_action(&self, name: &Resource) -> bool {
        self.actions.contains(name)
    }

    /// The known databases by their names.
    pub fn resources(&self) -> impl Iterator<Item = (&Resource, &DatabaseId)> {
        self.databases.iter()
    }

    /// The name under which a worker's holder is shown.
    #[must_use]
    pub fn worker_name(&self, worker: WorkerId) -> Option<&str> {
        Some(&self.workers.get(&worker)?.lease.as_ref()?.name)
    }
}
