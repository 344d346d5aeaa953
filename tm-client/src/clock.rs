//! The one place where this crate reads time.

use tokio::time::Instant;

/// Monotonic now; follows tokio's clock, so tests can pause and advance it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the crate's one reader of time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
