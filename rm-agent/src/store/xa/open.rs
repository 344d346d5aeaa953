//! A branch whose local transaction is kept open: how it comes to that, and how it ends. The same
//! for each database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use accede_proto::{Xid, v1::Mode};
use bytes::Bytes;
use tokio::time::sleep;

use super::kept_open::{Claim, KeptOpen};
use crate::{
    clock, limits,
    registrar::{LockKey, Refused, Registration},
    store::{finish::BranchKey, outcome::Outcome, watch::Watched},
};

/// A pool that keeps branches open.
pub(in crate::store) trait KeepsOpen: Watched + 'static {
    /// The local transaction of one, on its connection. Dropped, it is rolled back.
    type Local: Send + 'static;

    /// Those that are open.
    fn kept_open(&self) -> &KeptOpen<Open<Self::Local>>;

    /// Whether a transaction waits for a connection.
    fn is_waited_for(&self) -> bool;

    /// Ends one. Whatever comes of it, its connection is free then, or closed.
    fn end_local(
        &self,
        key: BranchKey,
        local: &mut Self::Local,
        end: End,
    ) -> impl Future<Output = Vote> + Send;

    /// Rolls one back; whether that is certain.
    fn roll_back_local(local: &mut Self::Local) -> impl Future<Output = bool> + Send;
}

/// What an open branch is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum End {
    Prepare,
    CommitOnePhase,
}

/// How an open branch was to end, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Vote {
    /// As it was to, durably.
    Yes,
    /// It is rolled back for certain.
    No(String),
    /// Nobody answered: the database must be asked.
    Unknown(String),
}

/// An open branch. Dropped, it is rolled back and the coordinator told that the transaction must
/// roll back: its application was told that the branch is done.
#[derive(Debug)]
pub(in crate::store) struct Open<L> {
    key: BranchKey,
    local: L,
    outcome: Outcome,
}

impl<L> Open<L> {
    /// Ends it for an order, whose answer tells the coordinator.
    pub(super) async fn end<P: KeepsOpen<Local = L>>(mut self, pool: &P, end: End) -> Vote {
        let vote = pool.end_local(self.key, &mut self.local, end).await;
        self.outcome.told_by_order();
        vote
    }

    /// Rolls it back for an order; whether that is certain.
    pub(super) async fn roll_back<P: KeepsOpen<Local = L>>(mut self) -> bool {
        let rolled_back = P::roll_back_local(&mut self.local).await;
        self.outcome.told_by_order();
        rolled_back
    }

    /// Prepares it without an order, as it would have been without being kept open.
    async fn end_alone<P: KeepsOpen<Local = L>>(mut self, pool: &P) {
        let prepare = pool.end_local(self.key, &mut self.local, End::Prepare);
        match prepare.await {
            Vote::Yes => self.outcome.done(),
            Vote::No(why) | Vote::Unknown(why) => self.outcome.doomed(why),
        }
    }
}

/// A branch that the coordinator has taken.
pub(in crate::store) struct Joined<L> {
    pub(in crate::store) key: BranchKey,
    /// Dropped before a message is sent, it withdraws the branch.
    pub(in crate::store) outcome: Outcome,
    /// When its registration was sent, and how long after that it may be prepared.
    pub(in crate::store) sent: Instant,
    pub(in crate::store) give_up: Duration,
    /// It shall be kept open.
    claim: Option<Claim<Open<L>>>,
}

/// Registers a branch, which may stay open if there is room.
///
/// # Errors
/// The coordinator's refusal.
pub(in crate::store) async fn register<P: KeepsOpen>(
    pool: &P,
    xid: Xid,
    row_locks: Vec<LockKey>,
    payload: Bytes,
    wait_limit: Duration,
) -> Result<Joined<P::Local>, Refused> {
    // Whoever waits for a connection must not wait for this one.
    let claim = match pool.is_waited_for() {
        true => None,
        false => pool.kept_open().claim(xid),
    };
    let registration = Registration {
        xid,
        resource: pool.resource().into(),
        mode: Mode::Xa,
        row_locks,
        escrow_locks: Vec::new(),
        payload,
        wait_limit,
        can_keep_open: claim.is_some(),
    };
    let sent = clock::now();
    let registered = pool.registrar().register(registration).await?;
    let key = BranchKey {
        xid,
        branch: registered.branch,
    };
    Ok(Joined {
        key,
        outcome: Outcome::new(Arc::clone(pool.registrar()), xid, key.branch),
        sent,
        give_up: registered.give_up,
        claim: claim.filter(|_| registered.keep_open),
    })
}

impl<L: Send + 'static> Joined<L> {
    /// Whether it is to be [kept open](Self::keep).
    pub(in crate::store) fn stays_open(&self) -> bool {
        self.claim.is_some()
    }

    /// Keeps it open, and sees to it that it does not stay so for too long.
    pub(in crate::store) fn keep<P: KeepsOpen<Local = L>>(self, pool: &P, local: L) {
        let Self {
            key,
            mut outcome,
            claim,
            ..
        } = self;
        let Some(claim) = claim else { return };
        // From now on it cannot be taken back without a word.
        outcome.sent = true;
        let open = Open {
            key,
            local,
            outcome,
        };
        claim.keep(key, open);
        if pool.kept_open().tend() {
            tokio::spawn(tend(pool.clone()));
        }
    }
}

/// Prepares those that nobody came for, and those whose connection somebody waits for.
async fn tend<P: KeepsOpen>(pool: P) {
    loop {
        sleep(limits::XA_OPEN_LOOK).await;
        let patience = match pool.is_waited_for() {
            true => Duration::ZERO,
            false => limits::XA_KEPT_OPEN,
        };
        while let Some((open, claim)) = pool.kept_open().take_older(patience) {
            let pool = pool.clone();
            tokio::spawn(async move {
                open.end_alone(&pool).await;
                drop(claim);
            });
            if patience.is_zero() {
                // One connection for whoever waits; then it looks again.
                break;
            }
        }
        if pool.kept_open().rest() {
            return;
        }
    }
}

/// Keeps none open any more, and prepares those that are.
pub(in crate::store) async fn end_all<P: KeepsOpen>(pool: &P) {
    pool.kept_open().allow(0);
    while let Some((open, claim)) = pool.kept_open().take_older(Duration::ZERO) {
        open.end_alone(pool).await;
        drop(claim);
    }
}
