//! Runs local transactions again that were refused for a passing reason.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{error::Error, limits};

/// A local transaction that can be run again.
pub(super) trait Repeatable: Send {
    /// Whether its last failure was a passing one.
    fn failed_retryably(&self) -> bool;
    /// Commits it.
    fn commit(self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// Rolls it back.
    fn rollback(self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Runs `work` in a transaction and commits it, again and again while it fails for a passing
/// reason, a bounded number of times.
///
/// # Errors
/// The last error of `work` or of the commit.
pub(super) async fn repeat<X, B, T, E, F>(begin: impl Fn() -> B, mut work: F) -> Result<T, E>
where
    X: Repeatable,
    B: Future<Output = Result<X, sqlx::Error>>,
    F: for<'t> FnMut(&'t mut X) -> BoxFuture<'t, Result<T, E>>,
    E: From<sqlx::Error>,
{
    let mut retry = Retry::new();
    loop {
        let mut transaction = begin().await.map_err(E::from)?;
        match work(&mut transaction).await {
            Ok(value) => match transaction.commit().await {
                Ok(()) => return Ok(value),
                Err(error) if retry.may_repeat(&error) => retry.pause(Some(&error)).await,
                Err(error) => return Err(error.into()),
            },
            Err(error) => {
                let again = retry.has_attempts() && transaction.failed_retryably();
                // The connection is closed if this fails, which rolls back as well.
                let _ = transaction.rollback().await;
                if !again {
                    return Err(error);
                }
                retry.pause(None).await;
            }
        }
    }
}

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
