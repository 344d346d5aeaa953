//! Connections on which a branch is prepared.
//!
//! While the session that prepared a transaction lives, no other one can end it. So the connection
//! is kept for the order, which mostly comes soon and to this agent. After a while, or when others
//! need it, it is closed: from then on any session can end what was prepared.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    clock, limits,
    store::{finish::BranchKey, mariadb::connection::Held},
};

/// Connections that wait for the order of the branch that is prepared on them. They belong to the
/// pool, so there are never more than it has.
#[derive(Debug, Default)]
pub(in crate::store::mariadb) struct Parked(Arc<Mutex<Slots>>);

#[derive(Debug, Default)]
struct Slots {
    held: BTreeMap<BranchKey, Slot>,
    /// A task looks after them.
    tended: bool,
}

#[derive(Debug)]
struct Slot {
    /// Not clean: it is closed when it is dropped.
    held: Held,
    since: Instant,
}

impl Parked {
    /// Keeps a connection for a branch's order, for a while.
    pub(in crate::store::mariadb) fn park(&self, key: BranchKey, held: Held) {
        let slot = Slot {
            held,
            since: clock::now(),
        };
        let mut slots = self.0.lock();
        // A number is given once, so there is no former one.
        slots.held.insert(key, slot);
        if !std::mem::replace(&mut slots.tended, true) {
            tokio::spawn(tend(Arc::downgrade(&self.0)));
        }
    }

    /// The connection on which the branch is prepared, if it is still here.
    pub(in crate::store::mariadb) fn take(&self, key: BranchKey) -> Option<Held> {
        let slot = self.0.lock().held.remove(&key);
        slot.map(|slot| slot.held)
    }

    /// Waits for a connection of the pool; when that takes long, one of those here makes room.
    pub(in crate::store::mariadb) async fn yield_to<T>(&self, lend: impl Future<Output = T>) -> T {
        let mut lend = std::pin::pin!(lend);
        loop {
            tokio::select! {
                biased;
                lent = &mut lend => return lent,
                () = sleep(limits::XA_PARKED_YIELD) => self.close_oldest(),
            }
        }
    }

    fn close_oldest(&self) {
        let mut slots = self.0.lock();
        let oldest = slots.held.iter().min_by_key(|(_, slot)| slot.since);
        let oldest = oldest.map(|(key, _)| *key);
        let slot = oldest.and_then(|key| slots.held.remove(&key));
        drop(slots);
        drop(slot);
    }
}

/// Closes what nobody came for, as long as there is something.
async fn tend(slots: Weak<Mutex<Slots>>) {
    loop {
        sleep(limits::XA_PARKED / 2).await;
        let Some(slots) = slots.upgrade() else { return };
        let now = clock::now();
        let mut slots = slots.lock();
        let waits = |slot: &Slot| now.duration_since(slot.since) < limits::XA_PARKED;
        let (kept, old) = std::mem::take(&mut slots.held)
            .into_iter()
            .partition(|(_, slot)| waits(slot));
        slots.held = kept;
        slots.tended = !slots.held.is_empty();
        let tended = slots.tended;
        drop(slots);
        // Outside of the lock: they are closed.
        let _: BTreeMap<BranchKey, Slot> = old;
        if !tended {
            return;
        }
    }
}
