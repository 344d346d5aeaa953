//! The one place of this crate that reads the clock.

use tokio::time::Instant;

/// Monotonic time; tests can pause and advance it.
#[expect(
    clippy::disallowed_methods,
    reason = "the crate's one reader of the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
