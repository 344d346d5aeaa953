//! What a branch in phase one asks of the coordinator.
//!
//! The AT engine speaks to this trait only. The real implementation is the
//! agent's session; benchmarks put an in-process one in its place to see what
//! the coordinator costs.

mod error;

use std::{sync::Arc, time::Duration};

use accede_proto::{Xid, v1::Mode};
use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use error::{RefusalCode, Refused};

/// The bytes of one row lock, typed and length-prefixed so that no two
/// different keys share them. Opaque to the coordinator.
pub type LockKey = Arc<[u8]>;

/// Refuses branches of a transaction whose step of a saga the running task does.
pub(crate) fn may_join(xid: Xid, resource: &str) -> Result<(), Refused> {
    match accede_link::context::current() {
        Some(context) if context.is_step() && context.xid() == xid => Err(Refused::new(
            RefusalCode::Invalid,
            format!(
                "a step of a saga is under way, and {resource:?} cannot join its transaction {xid} \
                 from there: an attempt at the step may be repeated, and what joined would be \
                 there twice. Do it in the step's own local transaction, make it a step of its \
                 own, or begin another transaction for it"
            ),
        )),
        _ => Ok(()),
    }
}

/// A branch that wants to join its transaction. In AT its local locks are taken, its
/// statements have run, its local transaction is still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The transaction to join.
    pub xid: Xid,
    /// The database, by the operator's name, or the action.
    pub resource: Arc<str>,
    /// How the branch is finished.
    pub mode: Mode,
    /// All rows and unique-key values that the branch changed, sorted, no key twice.
    pub row_locks: Vec<LockKey>,
    /// Rows to whose columns the branch only added something, and can take that away
    /// again. None of them is in `row_locks`.
    pub escrow_locks: Vec<EscrowLock>,
    /// What comes back with every order; empty in AT.
    pub payload: Bytes,
    /// How long the request may wait for other transactions' row locks.
    pub wait_limit: Duration,
    /// Of XA: its local transaction can be kept open until an order says how it ends.
    pub can_keep_open: bool,
}

/// A local transaction that wants to know whether global ones may still undo rows which it holds
/// local locks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowCheck {
    /// The transaction that it belongs to, whose own locks do not matter. `None`: it belongs to
    /// none.
    pub xid: Option<Xid>,
    /// The database, by the operator's name.
    pub resource: Arc<str>,
    /// The rows, sorted, no key twice.
    pub row_locks: Vec<LockKey>,
    /// How long the request may wait for their holders.
    pub wait_limit: Duration,
}

/// A row that several transactions may add to at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscrowLock {
    /// Which row.
    pub key: LockKey,
    /// What was added to which columns, sorted by their names.
    pub columns: Vec<ColumnDelta>,
}

/// What a branch added to a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDelta {
    /// The column's name.
    pub column: Arc<str>,
    /// Negative if something was taken.
    pub delta: i64,
    /// What the column holds after that, under the branch's local lock.
    pub value: i64,
    /// The least that it may ever hold.
    pub lower: i64,
    /// The most that it may ever hold.
    pub upper: i64,
}

/// The coordinator's yes to a [`Registration`]: commit locally, then call
/// [`Registrar::done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The branch's number inside its transaction: 1, 2, 3 …
    pub branch: u32,
    /// The local commit must happen within this time, counted from when the
    /// registration was sent, or not at all.
    pub give_up: Duration,
    /// The local transaction shall be kept open until an order comes. It may be prepared before
    /// that, which [`Registrar::done`] tells.
    pub keep_open: bool,
}

/// Asks the coordinator on behalf of branches in phase one.
pub trait Registrar: Send + Sync + 'static {
    /// Registers a branch and takes its row locks, all or none. Resolves when
    /// granted or refused, at the latest a little after the wait limit.
    ///
    /// When the returned future is dropped or ends in an error, the registration
    /// is withdrawn by the implementation (also one still under way), so the
    /// caller only has to roll back locally — before it drops the future or looks
    /// at the error it must not have committed.
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refused>>;

    /// Waits, for a while, as long as much of what is prepared in the database is decided and not
    /// ended yet: a new branch that will be prepared shall not add to it.
    fn caught_up<'a>(&'a self, resource: &'a str) -> BoxFuture<'a, ()> {
        let _ = resource;
        Box::pin(std::future::ready(()))
    }

    /// Waits until no other transaction holds the rows, without taking them.
    /// The caller holds their local locks.
    fn check_locks(&self, check: RowCheck) -> BoxFuture<'_, Result<(), Refused>>;

    /// The local commit is durable. Never blocks; sent again after a reconnect.
    fn done(&self, xid: Xid, branch: u32);

    /// The branch was registered but its local transaction certainly rolled back.
    fn withdrawn(&self, xid: Xid, branch: u32);

    /// Work of the transaction waits for a lock of the database or for a
    /// connection. Whoever has it may wait at the coordinator for this
    /// transaction, and lets go when the coordinator hears this. Never blocks; said
    /// again while it lasts, so what gets lost does no harm.
    fn blocked(&self, xid: Xid);

    /// How the branch ended is told by the answer to its order; there is nothing to send.
    fn over(&self, xid: Xid, branch: u32) {
        let _ = (xid, branch);
    }

    /// Whether the local commit happened is unknown: the transaction must roll back.
    fn doomed(&self, xid: Xid, branch: u32, detail: String);
}
