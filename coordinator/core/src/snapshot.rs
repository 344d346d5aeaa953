//! The whole state as bytes and back: a version byte, then the records that cannot be derived.
//! Holders of row locks, queues, timers and counts follow from them.

mod records;

use alloc::vec::Vec;

use self::records::{
    get_parked, get_ticket, get_transaction, get_worker_record, put_parked, put_ticket,
    put_transaction, put_worker_record,
};
#[cfg(feature = "planted-bugs")]
use crate::planted::{self, Bug};
use crate::{
    codec::{DecodeError, Reader, Writer, get_worker, get_xid, put_xid},
    deadline::Timer,
    id::{Epoch, Resource, Timestamp},
    retention::{Retention, get_retention, put_retention},
    state::{State, status_slot},
    status::Status,
    transaction::Transaction,
};

/// 2 added the retention and the modes of row locks, 3 actions and payloads, 4 the phase before the
/// last one of 3PC and plans of sagas.
const SNAPSHOT_VERSION: u8 = 4;
/// The first that had it.
const WITH_RETENTION: u8 = 2;
const WITH_ROW_LOCK_MODES: u8 = 2;
const WITH_ACTIONS: u8 = 3;
const WITH_PAYLOADS: u8 = 3;
const WITH_PRE_COMMIT: u8 = 4;
const WITH_SAGAS: u8 = 4;
/// Still read.
const FIRST_VERSION: u8 = 1;

impl State {
    /// The state as bytes. Equal states have equal bytes, so they serve to compare replicas too.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(1024 + self.transactions.len() * 256);
        w.u8(SNAPSHOT_VERSION);
        w.varint(self.now.0);
        w.varint(self.epoch.0);
        w.varint(self.grace_until.0);
        put_retention(&mut w, self.retention);
        w.list(&self.workers, |w, (id, worker)| {
            w.varint(id.0.into());
            put_worker_record(w, worker);
        });
        w.list(&self.databases, |w, (name, database)| {
            w.str(name);
            w.raw(database);
        });
        w.list(&self.actions, |w, action| w.str(action));
        w.varint(self.transactions.len() as u64);
        for transaction in self.transactions.after(None) {
            put_transaction(&mut w, transaction);
        }
        w.varint(self.locks.next_ticket());
        let tickets: Vec<_> = self.locks.tickets().collect();
        w.list(tickets, |w, (id, ticket)| put_ticket(w, id, ticket));
        w.list(&self.parked, |w, (xid, parked)| {
            put_xid(w, *xid);
            put_parked(w, parked);
        });
        w.into_bytes()
    }

    /// Reads what [`State::to_snapshot`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; never panics.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if !(FIRST_VERSION..=SNAPSHOT_VERSION).contains(&version) {
            return Err(DecodeError::UnknownVersion {
                what: "snapshot",
                version,
            });
        }
        let mut state = Self {
            now: Timestamp(r.varint()?),
            epoch: Epoch(r.varint()?),
            grace_until: Timestamp(r.varint()?),
            retention: match version {
                WITH_RETENTION.. => get_retention(&mut r)?.allowed(),
                _ => Retention::UNWRITTEN,
            },
            ..Self::default()
        };
        state.workers = r
            .list(|r| Ok((get_worker(r)?, get_worker_record(r)?)))?
            .into_iter()
            .collect();
        state.databases = r
            .list(|r| Ok((Resource::from(r.str()?), r.array()?)))?
            .into_iter()
            .collect();
        if version >= WITH_ACTIONS {
            state.actions = r.list(Reader::shared_str)?.into_iter().collect();
            let known = |action| state.databases.contains_key(action);
            sound(!state.actions.iter().any(known), "name of an action")?;
        }
        for transaction in r.list(|r| get_transaction(r, version))? {
            state.transactions.insert(transaction);
        }
        let next_ticket = r.varint()?;
        state.derive()?;
        for (id, ticket) in r.list(get_ticket)? {
            let xid = ticket.wanted.xid();
            let known = xid.is_outside() || state.transactions.contains(xid);
            let fresh = state.locks.ticket(id).is_none() && id.0 < next_ticket;
            sound(known && fresh, "waiting request")?;
            state.arm(ticket.until, Timer::LockWait(id))?;
            state.locks.restore(id, ticket);
        }
        state.locks.restore_next_ticket(next_ticket);
        for (xid, parked) in r.list(|r| Ok((get_xid(r)?, get_parked(r)?)))? {
            sound(!state.parked.contains_key(&xid), "parked request")?;
            state.arm(parked.until, Timer::Parked(xid))?;
            state.parked_requests += parked.commands.len();
            state.payload_bytes += parked.payload_bytes();
            state.parked.insert(xid, parked);
        }
        r.end()?;
        Ok(state)
    }

    /// Rebuilds what follows from workers and transactions.
    fn derive(&mut self) -> Result<(), DecodeError> {
        let workers: Vec<_> = self
            .workers
            .iter()
            .map(|(id, w)| (*id, w.lease.clone()))
            .collect();
        for (id, lease) in workers {
            let Some(holder) = lease else {
                self.free_workers.insert(id);
                continue;
            };
            self.arm(holder.until, Timer::Lease(id))?;
            sound(self.leased.insert(holder.process, id).is_none(), "lease")?;
        }
        let transactions = core::mem::take(&mut self.transactions);
        for transaction in transactions.after(None) {
            self.derive_from(transaction)?;
        }
        self.transactions = transactions;
        Ok(())
    }

    fn derive_from(&mut self, t: &Transaction) -> Result<(), DecodeError> {
        self.by_status[status_slot(t.status)] += 1;
        if let Some(ended_at) = t.ended_at {
            self.ended.insert((ended_at, t.xid));
        }
        let active = t.status == Status::Active;
        #[cfg(feature = "planted-bugs")]
        let active =
            active || (planted::is(Bug::DelegatedTimesOut) && t.status == Status::Delegated);
        if active {
            self.derive_from_undecided(t)?;
        }
        let pre_committed = t.status == Status::PreCommitted;
        sound(pre_committed == t.pre_commit_until.is_some(), "pre-commit")?;
        let until = t.pre_commit_until;
        #[cfg(feature = "planted-bugs")]
        let until = until.filter(|_| !planted::is(Bug::PreCommitWaitsForEver));
        if let Some(until) = until {
            self.arm(until, Timer::PreCommit(t.xid))?;
        }
        if let Some(saga) = t.saga() {
            self.payload_bytes += saga.payload_bytes();
            for step in &saga.steps {
                if let Some((at, branch)) = step.answer_by.zip(step.branch) {
                    self.arm(at, Timer::StepAnswer(t.xid, branch))?;
                }
            }
        }
        for branch in &t.branches {
            self.payload_bytes += branch.payload.len() as u64;
            let locks = branch.locks.as_slice();
            #[cfg(feature = "planted-bugs")]
            let locks = match planted::is(Bug::LockLostInSnapshot) {
                true => &[],
                false => locks,
            };
            let held = self
                .locks
                .restore_hold(t.xid, branch.id, &branch.resource, locks);
            sound(held, "row lock")?;
            if let Some(at) = branch.next_attempt_at {
                self.arm(at, Timer::Attempt(t.xid, branch.id))?;
            }
        }
        Ok(())
    }

    fn derive_from_undecided(&mut self, t: &Transaction) -> Result<(), DecodeError> {
        #[cfg(not(feature = "planted-bugs"))]
        self.arm(t.deadline, Timer::Deadline(t.xid))?;
        #[cfg(feature = "planted-bugs")]
        if !planted::is(Bug::DeadlineLostInSnapshot) {
            self.arm(t.deadline, Timer::Deadline(t.xid))?;
        }
        if let Some(until) = t.commit_until {
            self.arm(until, Timer::CommitWait(t.xid))?;
        }
        let worker = self.workers.get_mut(&t.xid.worker());
        let worker = worker.ok_or(DecodeError::OutOfRange { what: "worker id" })?;
        worker.undecided.insert(t.xid);
        if let Some(parent) = t.parent {
            self.nested.entry(parent).or_default().insert(t.xid);
        }
        Ok(())
    }

    fn arm(&mut self, at: Timestamp, timer: Timer) -> Result<(), DecodeError> {
        sound(self.deadlines.restore(at, timer), "time")
    }
}

/// The bytes can be read but contradict themselves.
fn sound(holds: bool, what: &'static str) -> Result<(), DecodeError> {
    if holds {
        Ok(())
    } else {
        Err(DecodeError::OutOfRange { what })
    }
}
