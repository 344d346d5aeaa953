//! The only place of this crate that reads a clock.

use std::time::Instant;

/// Monotonic time, for measuring how long something took.
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of time in this crate"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
