//! When to try again: exponential, capped, with a jitter that depends on nothing but its inputs.

use crate::{
    id::{BranchId, Xid},
    limits::{BACKOFF_CAP_MS, BACKOFF_FIRST_MS},
};

/// Milliseconds to wait after the `failures`th failure in a row (from 1) of a branch: between
/// half and all of the doubled time, so that branches that failed together do not return together.
pub(crate) fn delay_ms(xid: Xid, branch: BranchId, failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let full = (BACKOFF_FIRST_MS << doublings).min(BACKOFF_CAP_MS);
    let half = full / 2;
    half + mix(xid.get() ^ (u64::from(branch.0) << 32) ^ u64::from(failures)) % (half + 1)
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_stays_within_its_band() {
        let xid = Xid::new(77).expect("not zero");
        let mut full = BACKOFF_FIRST_MS;
        for failures in 1..40 {
            let delay = delay_ms(xid, BranchId(1), failures);
            assert!(
                (full / 2..=full).contains(&delay),
                "{failures}: {delay} of {full}"
            );
            full = (full * 2).min(BACKOFF_CAP_MS);
        }
    }

    #[test]
    fn branches_that_fail_together_spread() {
        let xid = Xid::new(77).expect("not zero");
        let delays: alloc::collections::BTreeSet<_> =
            (1..50).map(|b| delay_ms(xid, BranchId(b), 8)).collect();
        assert!(delays.len() > 40);
    }
}
