//! The types the replication core is built from, and conversions to the log's own.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use openraft::impls::{BasicNode, BoxedErrorSource, InlineBatch};
use openraft::raft::responder::Responder;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId as StdLeaderId};
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig, TokioRuntime};
use tokio::sync::oneshot;

use super::members;
use crate::wal::format::Kind;
use crate::wal::{LogEntry, Mark, Vote};

pub(crate) type LeaderId = StdLeaderId<u64, u64>;
pub(crate) type Committed = CommittedLeaderId<u64>;
pub(crate) type LogId = openraft::LogId<Committed>;
pub(crate) type RaftVote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Command, u64, BasicNode>;
pub(crate) type Entry = openraft::Entry<Committed, Payload>;
pub(crate) type Members = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembers = openraft::StoredMembership<Committed, u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Committed, u64, BasicNode>;

/// One command of the state machine, as bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The replication core's type parameters for a state machine that answers with `R`.
pub(crate) struct Types<R>(PhantomData<fn() -> R>);

// By hand: derives would ask the same of `R`, which is never stored.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Types<R> {}
impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for Types<R> {}
impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<R: Send + Sync + 'static> RaftTypeConfig for Types<R> {
    type D = Command;
    /// `None` for entries without a command.
    type R = Option<R>;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = RaftVote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Waiter<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// Entries and bytes that are proposed and not yet answered.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

/// A share of what may be in flight, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    /// Admits one entry, or says how many are in flight.
    pub(crate) fn admit(
        self: &Arc<Self>,
        bytes: usize,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Permit, usize> {
        // Taken first and given back by the permit: two callers cannot both take the last place.
        let permit = Permit {
            in_flight: Arc::clone(self),
            bytes,
        };
        let entries = self.entries.fetch_add(1, Relaxed);
        let in_flight = self.bytes.fetch_add(bytes, Relaxed);
        // A lone entry is always admitted, whatever its size.
        if entries >= max_entries || (entries > 0 && in_flight + bytes > max_bytes) {
            return Err(entries);
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.entries.fetch_sub(1, Relaxed);
        self.in_flight.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Carries the answer of one proposal back to its caller.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    pub(crate) answer: oneshot::Sender<T>,
    pub(crate) permit: Permit,
}

impl<R, T> Responder<Types<R>, T> for Waiter<T>
where
    R: Send + Sync + 'static,
    T: OptionalSend + 'static,
{
    fn on_complete(self, result: T) {
        drop(self.permit);
        // A caller that went away does not need the answer.
        let _ = self.answer.send(result);
    }
}

pub(crate) fn log_id(mark: Mark) -> LogId {
    LogId::new(Committed::new(mark.term), mark.index)
}

pub(crate) fn mark(log_id: &LogId) -> Mark {
    Mark {
        term: log_id.leader_id.term,
        index: log_id.index,
    }
}

pub(crate) fn vote(vote: &RaftVote) -> Vote {
    let leader = vote.leader_id;
    Vote {
        term: leader.term,
        node: leader.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn raft_vote(vote: Vote) -> RaftVote {
    let leader_id = LeaderId {
        term: vote.term,
        voted_for: vote.node,
    };
    RaftVote {
        leader_id,
        committed: vote.committed,
    }
}

/// An entry as the segments hold it.
pub(crate) fn to_log(entry: Entry) -> LogEntry {
    let Mark { term, index } = mark(&entry.log_id);
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (Kind::Blank, Bytes::new()),
        EntryPayload::Normal(Command(bytes)) => (Kind::Command, bytes),
        EntryPayload::Membership(members) => {
            (Kind::Membership, Bytes::from(members::encode(&members)))
        }
    };
    LogEntry {
        term,
        index,
        kind,
        payload,
    }
}

/// An entry as the replication core knows it.
pub(crate) fn from_log(entry: LogEntry) -> std::io::Result<Entry> {
    let payload = match entry.kind {
        Kind::Command => EntryPayload::Normal(Command(entry.payload)),
        Kind::Membership => EntryPayload::Membership(members::decode(&entry.payload)?),
        // `LogEntry` holds entry kinds only, so this is a blank one.
        _ => EntryPayload::Blank,
    };
    let log_id = log_id(Mark {
        term: entry.term,
        index: entry.index,
    });
    Ok(Entry { log_id, payload })
}
