//! Waits for conditions, never for a time.

use std::{fmt::Display, time::Duration};

use anyhow::{Result, anyhow};

use crate::clock;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A condition that cannot come true any more; waiting ends at once.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InVain(pub(crate) String);

/// Looks until the condition holds. While `look` fails, its error says what is
/// still missing; the last one is in the error when the limit is reached.
pub(crate) async fn until<T>(
    what: impl Display,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = clock::now() + limit;
    let mut missing = anyhow!("nobody answered");
    loop {
        // A look may hang, when a process is stopped for example.
        let left = end.saturating_duration_since(clock::now());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if error.is::<InVain>() => return Err(error),
            Ok(Err(error)) => missing = error,
            Err(_) => {}
        }
        if clock::now() >= end {
            return Err(anyhow!(
                "waited {} s in vain until {what}: {missing:#}",
                limit.as_secs()
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_was_missing() {
        let error = until("it rains", Duration::from_millis(30), async || {
            Err::<(), _>(anyhow!("no clouds"))
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0 s in vain until it rains: no clouds"
        );
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_given_up() {
        let error = until("it ends", Duration::from_millis(30), async || {
            std::future::pending::<Result<()>>().await
        })
        .await
        .unwrap_err();
        assert!(error.to_string().ends_with("nobody answered"), "{error}");
    }

    #[tokio::test]
    async fn ends_at_once_when_it_is_in_vain() {
        let mut looks = 0;
        let error = until("never", Duration::from_secs(3600), async || {
            looks += 1;
            Err::<(), _>(InVain("it is dead".into()).into())
        })
        .await
        .unwrap_err();
        assert_eq!((looks, error.to_string().as_str()), (1, "it is dead"));
    }
}
