//! Judges the prepared transactions that a sweep has found.
//!
//! One whose global transaction is still open is finished by the coordinator's order. One whose
//! global transaction has ended, or was never begun, must not exist: nobody knows any more how it
//! shall end. It is reported and never touched.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::Ordering,
};

use accede_proto::{Xid, v1::ended::State};

use super::{database::PreparedOnes, resource::Resource};
use crate::limits::PREPARED_WARN_PERCENT;

/// What is remembered from one sweep to the next.
#[derive(Debug, Default)]
pub(super) struct Hunter {
    /// Orphans of the round before. A branch may be finished between the look into the database
    /// and the coordinator's answer, so one round is no proof.
    suspects: BTreeSet<String>,
    /// Orphans that were named in the log.
    reported: BTreeSet<String>,
}

impl Hunter {
    /// Takes in what a round has found, and what the coordinator said about the old ones.
    pub(super) fn conclude(
        &mut self,
        resource: &Resource,
        found: &PreparedOnes,
        states: &HashMap<Xid, State>,
    ) {
        let counters = &resource.counters;
        let oldest = u64::try_from(found.oldest.as_millis()).unwrap_or(u64::MAX);
        counters.prepared.store(found.ours, Ordering::Relaxed);
        counters.prepared_oldest_ms.store(oldest, Ordering::Relaxed);
        if is_nearly_full(found) {
            tracing::warn!(
                resource = %resource.name,
                used = found.used,
                max_prepared_transactions = found.most,
                "prepared transactions are about to run out, then XA branches are refused: raise \
                 max_prepared_transactions and restart the server, and look in pg_prepared_xacts \
                 for those that nobody ends"
            );
        }
        let mut suspects = BTreeSet::new();
        let mut confirmed = BTreeSet::new();
        for one in &found.old {
            let state = match states.get(&one.xid) {
                Some(State::Ended) => "has ended",
                Some(State::NeverBegun) => "was never begun",
                _ => continue,
            };
            suspects.insert(one.name.clone());
            if !self.suspects.contains(&one.name) {
                continue;
            }
            confirmed.insert(one.name.clone());
            if !self.reported.contains(&one.name) {
                tracing::error!(
                    xid = %one.xid,
                    branch = one.branch,
                    resource = %resource.name,
                    age = ?one.age,
                    name = %one.name,
                    "OrphanPrepared: the transaction of a prepared branch {state}; the database \
                     or the coordinator went back in time. It keeps its locks. Find out how the \
                     transaction ended and commit it or roll it back by hand, by this name"
                );
            }
        }
        counters
            .orphan_prepared
            .store(confirmed.len() as u64, Ordering::Relaxed);
        self.reported = confirmed;
        self.suspects = suspects;
    }
}

fn is_nearly_full(found: &PreparedOnes) -> bool {
    found.most > 0 && found.used * 100 > found.most * PREPARED_WARN_PERCENT
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::finish::PreparedOne;

    fn one(number: u64) -> PreparedOne {
        let xid = Xid::from_u64(number).expect("not zero");
        PreparedOne {
            xid,
            branch: Some(1),
            name: format!("accede:x:{number:016x}:1"),
            age: Duration::from_secs(3600),
        }
    }

    #[test]
    fn only_what_has_ended_in_two_rounds_is_an_orphan() {
        let resource = Resource::new("stock-db");
        let mut hunter = Hunter::default();
        let found = PreparedOnes {
            old: vec![one(1), one(2), one(3), one(4)],
            ours: 9,
            oldest: Duration::from_secs(3600),
            used: 10,
            most: 100,
        };
        let states = [State::Open, State::Ended, State::NeverBegun];
        let states = (1..)
            .map(|number| Xid::from_u64(number).expect("not zero"))
            .zip(states)
            .collect();
        let orphans = || resource.counters.orphan_prepared.load(Ordering::Relaxed);
        hunter.conclude(&resource, &found, &states);
        assert_eq!(orphans(), 0);
        hunter.conclude(&resource, &found, &states);
        assert_eq!(orphans(), 2);
        assert_eq!(resource.counters.prepared.load(Ordering::Relaxed), 9);
        let age = resource.counters.prepared_oldest_ms.load(Ordering::Relaxed);
        assert_eq!(age, 3_600_000);
        // They were ended by hand.
        hunter.conclude(&resource, &PreparedOnes::default(), &HashMap::new());
        assert_eq!(orphans(), 0);
        assert_eq!(resource.counters.prepared.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn warns_above_its_share_and_not_where_there_is_no_limit() {
        let full = |used, most| {
            is_nearly_full(&PreparedOnes {
                used,
                most,
                ..PreparedOnes::default()
            })
        };
        assert!(!full(80, 100));
        assert!(full(81, 100));
        assert!(!full(0, 0));
    }
}
