//! Runs local transactions again that were refused for a passing reason.

use std::time::Duration;

use crate::{error::Error, limits};

/// Counts the attempts of one local transaction.
#[derive(Debug)]
pub(super) struct Retry {
    attempt: u32,
    pause: Duration,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self {
            attempt: 1,
            pause: limits::LOCAL_BACKOFF,
        }
    }

    /// Whether there is another attempt after this error.
    pub(super) fn may_repeat(&self, error: &sqlx::Error) -> bool {
        self.has_attempts() && crate::is_retryable(error)
    }

    /// Whether there is another attempt.
    pub(super) fn has_attempts(&self) -> bool {
        self.attempt < limits::LOCAL_ATTEMPTS
    }

    /// Waits before the next attempt: doubling, with jitter, and not before the
    /// coordinator's own hint.
    pub(super) async fn pause(&mut self, error: Option<&sqlx::Error>) {
        self.attempt += 1;
        let hint = match error.and_then(Error::from_sqlx) {
            Some(Error::Refused(refused)) => refused.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let jittered = self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(limits::LOCAL_BACKOFF_CAP);
        tokio::time::sleep(jittered.max(hint.min(limits::LOCAL_BACKOFF_CAP))).await;
    }
}
