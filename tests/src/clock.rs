//! The one place where these tests read the time.

use std::time::Instant;

/// Now, to measure how long something takes.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one reader of time in this crate"
)]
pub fn now() -> Instant {
    Instant::now()
}
