use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::clock;

fn terms(worker: u16, floor_ms: u64, ceiling_ms: u64) -> LeaseTerms {
    LeaseTerms {
        worker,
        floor_ms,
        ceiling_ms,
        ttl: Duration::from_secs(10),
    }
}

#[test]
fn without_a_lease_there_are_no_ids() {
    let mut maker = XidMaker::default();
    assert_eq!(maker.make(clock::now()), Err(NoXid::NoLease));
    assert_eq!(maker.worker(), None);
}

#[test]
fn ids_start_at_the_floor_and_follow_time() {
    let start = clock::now();
    let mut maker = XidMaker::default();
    maker.grant(terms(5, 1000, 9000), start);
    let first = maker.make(start).expect("leased").parts();
    assert_eq!((first.time_ms, first.sequence, first.worker), (1000, 0, 5));
    let second = maker.make(start).expect("leased").parts();
    assert_eq!((second.time_ms, second.sequence), (1000, 1));
    let later = start + Duration::from_millis(40);
    assert_eq!(maker.make(later).expect("leased").parts().time_ms, 1040);
    // A renewal keeps the count.
    maker.grant(terms(5, 1000, 20_000), later);
    assert_eq!(maker.make(later).expect("leased").parts().sequence, 1);
}

#[test]
fn a_full_millisecond_borrows_the_next_and_the_range_ends() {
    let start = clock::now();
    let mut maker = XidMaker::default();
    maker.grant(terms(0, 10, 12), start);
    let made: Vec<_> = std::iter::from_fn(|| maker.make(start).ok()).collect();
    assert_eq!(made.len(), 2 * 512);
    assert_eq!(made[511].parts().time_ms, 10);
    assert_eq!(made[512].parts().time_ms, 11);
    assert_eq!(maker.make(start), Err(NoXid::RangeUsedUp));
    maker.grant(terms(0, 10, 13), start);
    assert_eq!(maker.make(start).expect("more room").parts().time_ms, 12);
}

#[test]
fn a_lease_ends_when_its_time_is_over() {
    let start = clock::now();
    let mut maker = XidMaker::default();
    maker.grant(terms(1, 10, 1_000_000), start);
    let end = start + Duration::from_secs(10);
    assert!(maker.make(end - Duration::from_millis(1)).is_ok());
    assert_eq!(maker.make(end), Err(NoXid::LeaseEnded));
    assert_eq!(maker.worker(), Some(1), "the coordinator may still know it");
    maker.end();
    assert_eq!(maker.worker(), None);
}

#[test]
fn a_fast_clock_does_not_use_the_range_up() {
    let start = clock::now();
    let mut maker = XidMaker::default();
    maker.grant(terms(1, 10, 20), start);
    let later = start + Duration::from_secs(9);
    assert_eq!(maker.make(later).expect("leased").parts().time_ms, 19);
    assert!(maker.make(later).is_ok());
}

#[test]
fn the_zero_id_is_never_made() {
    let start = clock::now();
    let mut maker = XidMaker::default();
    maker.grant(terms(0, 0, 5), start);
    assert_eq!(maker.make(start).expect("leased").parts().time_ms, 1);
}

#[test]
fn senseless_leases_are_refused() {
    let good = v1::Lease {
        worker: 8191,
        floor_ms: 5,
        ceiling_ms: 1 << 41,
        ttl_ms: 1,
        ..v1::Lease::default()
    };
    assert!(LeaseTerms::from_wire(&good).is_ok());
    let cases = [
        (
            v1::Lease {
                worker: 8192,
                ..good.clone()
            },
            "worker 8192",
        ),
        (
            v1::Lease {
                floor_ms: 1 << 41,
                ..good.clone()
            },
            "is empty or beyond",
        ),
        (
            v1::Lease {
                ceiling_ms: (1 << 41) + 1,
                ..good.clone()
            },
            "is empty or beyond",
        ),
        (
            v1::Lease {
                ttl_ms: 0,
                ..good.clone()
            },
            "no time at all",
        ),
    ];
    for (lease, expected) in cases {
        let error = LeaseTerms::from_wire(&lease).expect_err("senseless");
        assert!(error.contains(expected), "{error}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The clock jumps to this many milliseconds after the start, also backwards.
    Clock(u64),
    Make(u16),
    /// The same lease again, its ceiling that much higher.
    Renew(u64),
    /// Another worker number, or the same after its lease ended: a new range.
    NewLease {
        worker: u16,
        gap: u64,
        width: u64,
    },
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u64..30_000).prop_map(Step::Clock),
        6 => (1_u16..1200).prop_map(Step::Make),
        2 => (0_u64..5_000).prop_map(Step::Renew),
        2 => (0_u16..3, 0_u64..50, 1_u64..3_000).prop_map(|(worker, gap, width)| Step::NewLease {
            worker,
            gap,
            width
        }),
        1 => Just(Step::End),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever the clock and the leases do: no id twice, each worker's ids grow,
    /// each lies in the leased range, none is made outside of the lease's life.
    #[test]
    fn ids_are_unique(steps in steps()) {
        let start = clock::now();
        let mut now = start;
        let mut maker = XidMaker::default();
        let mut lease: Option<(LeaseTerms, Instant)> = None;
        let mut ceilings: HashMap<u16, u64> = HashMap::new();
        let mut highest: HashMap<u16, Xid> = HashMap::new();
        let mut seen = HashSet::new();
        for step in steps {
            match step {
                Step::Clock(ms) => now = start + Duration::from_millis(ms),
                Step::End => {
                    maker.end();
                    lease = None;
                }
                Step::Renew(more) => if let Some((old, _)) = lease {
                    let renewed = LeaseTerms { ceiling_ms: old.ceiling_ms + more, ..old };
                    maker.grant(renewed, now);
                    ceilings.insert(renewed.worker, renewed.ceiling_ms);
                    lease = Some((renewed, now));
                },
                Step::NewLease { worker, gap, width } => {
                    let floor = ceilings.get(&worker).copied().unwrap_or(0) + gap;
                    let granted = terms(worker, floor, floor + width);
                    maker.grant(granted, now);
                    ceilings.insert(worker, granted.ceiling_ms);
                    lease = Some((granted, now));
                }
                Step::Make(count) => for _ in 0..count {
                    match (maker.make(now), lease) {
                        (Ok(xid), Some((terms, sent))) => {
                            prop_assert!(now < sent + terms.ttl);
                            let parts = xid.parts();
                            prop_assert_eq!(parts.worker, terms.worker);
                            prop_assert!(parts.time_ms >= terms.floor_ms);
                            prop_assert!(parts.time_ms < terms.ceiling_ms);
                            prop_assert!(seen.insert(xid), "{} twice", xid);
                            let last = highest.insert(parts.worker, xid);
                            prop_assert!(last.is_none_or(|last| last < xid));
                        }
                        (Ok(xid), None) => prop_assert!(false, "{xid} without a lease"),
                        (Err(NoXid::NoLease), lease) => prop_assert!(lease.is_none()),
                        (Err(NoXid::LeaseEnded), Some((terms, sent))) => {
                            prop_assert!(now >= sent + terms.ttl);
                        }
                        (Err(NoXid::LeaseEnded), None) => prop_assert!(false),
                        (Err(NoXid::RangeUsedUp), _) => break,
                    }
                },
            }
        }
    }
}
