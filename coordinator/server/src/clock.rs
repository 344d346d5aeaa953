//! The one place of this crate that reads time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use accede_core::{Timestamp, WallTime};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The monotonic clock of this process.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock reader of this crate"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall time, for display and lease floors only.
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock reader of this crate"
)]
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    WallTime(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// The coordinator's time: what the log said last, plus what has passed since.
///
/// It stands still while no coordinator runs, so a restart expires nothing by itself.
#[derive(Debug)]
pub(crate) struct Clock {
    base: Mutex<(Timestamp, Instant)>,
    last: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            base: Mutex::new((Timestamp::default(), now())),
            last: AtomicU64::new(0),
        }
    }

    /// Goes on from the time of the last entry: on taking office.
    pub(crate) fn go_on_from(&self, last: Timestamp) {
        let last = last.0.max(self.last.load(Relaxed));
        *self.base.lock() = (Timestamp(last), now());
        self.last.store(last, Relaxed);
    }

    /// Now; never less than any earlier answer.
    pub(crate) fn at(&self) -> Timestamp {
        let (base, since) = *self.base.lock();
        let at = base.plus(millis(now().saturating_duration_since(since)));
        Timestamp(self.last.fetch_max(at.0, Relaxed).max(at.0))
    }

    /// The moment of this process at which the coordinator's time reaches `at`.
    pub(crate) fn instant_of(&self, at: Timestamp) -> Instant {
        let (base, since) = *self.base.lock();
        // Far enough for a timer that is set anew when it rings.
        since + Duration::from_millis(at.since(base).min(LONGEST_TIMER_MS))
    }
}

/// A year, in milliseconds: keeps the sum of an instant and a time representable.
const LONGEST_TIMER_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_on_and_never_back() {
        let clock = Clock::new();
        clock.go_on_from(Timestamp(1000));
        assert_eq!(clock.at(), Timestamp(1000));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.at(), Timestamp(1250));
        let rings = clock.instant_of(Timestamp(1300));
        assert_eq!(rings - now(), Duration::from_millis(50));
        // A leader that comes back knows less than was stamped here before.
        clock.go_on_from(Timestamp(7));
        assert_eq!(clock.at(), Timestamp(1250));
        assert!(clock.instant_of(Timestamp(u64::MAX)) > now());
    }
}
