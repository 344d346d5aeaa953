//! The one reader of time.

use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "the demo's one reader of the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
