//! Branches whose local transactions are kept open, each with its connection, until an order says
//! how they end: the first branch of a transaction, which may be the only one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use accede_proto::Xid;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use crate::{clock, limits, store::finish::BranchKey};

/// The open branches of a pool. `S` is what is kept of one.
#[derive(Debug)]
pub(in crate::store) struct KeptOpen<S>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    slots: Mutex<Slots<S>>,
    /// Told when a claim ends.
    settled: Notify,
}

#[derive(Debug)]
struct Slots<S> {
    /// How many there may be, claims included.
    most: usize,
    claims: HashMap<Xid, usize>,
    claimed: usize,
    held: BTreeMap<BranchKey, (S, Instant)>,
    tended: bool,
}

/// Room for one more, from before it is registered until it is kept or ended otherwise. An order
/// about its transaction waits for that: it may come before the answer to the registration was
/// read.
#[derive(Debug)]
pub(in crate::store) struct Claim<S> {
    shared: Arc<Shared<S>>,
    xid: Xid,
}

impl<S> Default for KeptOpen<S> {
    fn default() -> Self {
        Self(Arc::new(Shared {
            slots: Mutex::new(Slots {
                most: 0,
                claims: HashMap::new(),
                claimed: 0,
                held: BTreeMap::new(),
                tended: false,
            }),
            settled: Notify::new(),
        }))
    }
}

impl<S> KeptOpen<S> {
    /// Keeps so many open from now on.
    pub(in crate::store) fn allow(&self, most: usize) {
        self.0.slots.lock().most = most;
    }

    /// The same; fewer, where the pool has too few connections for that and other work.
    pub(in crate::store) fn allow_of(&self, connections: u32, most: usize) {
        self.allow(most.min(connections as usize * limits::XA_OPEN_PERCENT / 100));
    }

    /// Room for a branch of this transaction, if there is some.
    pub(in crate::store) fn claim(&self, xid: Xid) -> Option<Claim<S>> {
        let mut slots = self.0.slots.lock();
        if slots.held.len() + slots.claimed >= slots.most {
            return None;
        }
        Some(self.claim_in(&mut slots, xid))
    }

    fn claim_in(&self, slots: &mut Slots<S>, xid: Xid) -> Claim<S> {
        *slots.claims.entry(xid).or_default() += 1;
        slots.claimed += 1;
        Claim {
            shared: Arc::clone(&self.0),
            xid,
        }
    }

    /// What is open of a branch, for its order. Waits a little for one that is on its way here, or
    /// that ends by itself at this moment.
    pub(in crate::store) async fn take(&self, key: BranchKey) -> Option<S> {
        let look = async {
            loop {
                let mut settled = std::pin::pin!(self.0.settled.notified());
                settled.as_mut().enable();
                {
                    let mut slots = self.0.slots.lock();
                    if let Some((open, _)) = slots.held.remove(&key) {
                        return Some(open);
                    }
                    if !slots.claims.contains_key(&key.xid) {
                        return None;
                    }
                }
                settled.await;
            }
        };
        timeout(limits::XA_CLAIM_WAIT, look).await.ok().flatten()
    }

    /// One that has been open for so long, the oldest first, with a claim as long as it ends.
    pub(in crate::store) fn take_older(&self, than: Duration) -> Option<(S, Claim<S>)> {
        let now = clock::now();
        let mut slots = self.0.slots.lock();
        let oldest = slots.held.iter().min_by_key(|(_, (_, since))| *since);
        let oldest = oldest.filter(|(_, (_, since))| now.duration_since(*since) >= than);
        let key = oldest.map(|(key, _)| *key)?;
        let (open, _) = slots.held.remove(&key)?;
        let claim = self.claim_in(&mut slots, key.xid);
        Some((open, claim))
    }

    /// Whether the caller must begin to look after what is kept; it does so until
    /// [`rest`](Self::rest) says that it may stop.
    pub(in crate::store) fn tend(&self) -> bool {
        !std::mem::replace(&mut self.0.slots.lock().tended, true)
    }

    /// Whether nothing is left to look after.
    pub(in crate::store) fn rest(&self) -> bool {
        let mut slots = self.0.slots.lock();
        slots.tended = !slots.held.is_empty();
        !slots.tended
    }

    /// How many there are.
    #[cfg(test)]
    pub(in crate::store) fn len(&self) -> usize {
        self.0.slots.lock().held.len()
    }
}

impl<S> Claim<S> {
    /// The branch is registered, and stays open.
    pub(in crate::store) fn keep(self, key: BranchKey, open: S) {
        let since = clock::now();
        // A number is given once, so there is no former one. The claim ends after this.
        self.shared.slots.lock().held.insert(key, (open, since));
    }
}

impl<S> Drop for Claim<S> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock();
        slots.claimed -= 1;
        if let Some(count) = slots.claims.get_mut(&self.xid) {
            *count -= 1;
            if *count == 0 {
                slots.claims.remove(&self.xid);
            }
        }
        drop(slots);
        self.shared.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64, branch: u32) -> BranchKey {
        BranchKey {
            xid: Xid::from_u64(number).expect("not zero"),
            branch,
        }
    }

    #[tokio::test]
    async fn there_is_room_for_so_many() {
        let kept = KeptOpen::<u8>::default();
        assert!(kept.claim(key(1, 1).xid).is_none(), "off unless allowed");
        kept.allow(2);
        let first = kept.claim(key(1, 1).xid).expect("room");
        let second = kept.claim(key(2, 1).xid).expect("room");
        assert!(kept.claim(key(3, 1).xid).is_none());
        drop(second);
        first.keep(key(1, 1), 7);
        assert_eq!(kept.len(), 1);
        let second = kept.claim(key(2, 1).xid).expect("room again");
        assert!(kept.claim(key(3, 1).xid).is_none());
        second.keep(key(2, 1), 8);
        assert_eq!(kept.take(key(1, 1)).await, Some(7));
        assert_eq!(kept.take(key(1, 1)).await, None);
        assert_eq!(kept.take(key(2, 2)).await, None, "another branch");
    }

    #[tokio::test]
    async fn an_order_waits_for_the_branch_that_is_on_its_way() {
        let kept = Arc::new(KeptOpen::<u8>::default());
        kept.allow(2);
        let claim = kept.claim(key(1, 1).xid).expect("room");
        let order = tokio::spawn({
            let kept = Arc::clone(&kept);
            async move { kept.take(key(1, 1)).await }
        });
        tokio::task::yield_now().await;
        assert!(!order.is_finished());
        claim.keep(key(1, 1), 7);
        assert_eq!(order.await.expect("ran"), Some(7));
        // And for one that is refused.
        let claim = kept.claim(key(1, 1).xid).expect("room");
        let order = tokio::spawn({
            let kept = Arc::clone(&kept);
            async move { kept.take(key(1, 1)).await }
        });
        tokio::task::yield_now().await;
        drop(claim);
        assert_eq!(order.await.expect("ran"), None);
    }

    #[tokio::test]
    async fn the_oldest_goes_first() {
        let kept = KeptOpen::<u8>::default();
        kept.allow(2);
        assert!(kept.tend() && !kept.tend());
        for branch in [2, 1] {
            let claim = kept.claim(key(1, branch).xid).expect("room");
            claim.keep(key(1, branch), branch as u8);
        }
        assert!(kept.take_older(Duration::from_secs(60)).is_none());
        let (open, claim) = kept.take_older(Duration::ZERO).expect("there is one");
        assert_eq!(open, 2);
        assert!(!kept.rest());
        drop(claim);
        assert_eq!(
            kept.take_older(Duration::ZERO).map(|(open, _)| open),
            Some(1)
        );
        assert!(kept.rest() && kept.tend());
    }
}
