//! The one place that reads a clock.

use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "the crate's one reader of the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
