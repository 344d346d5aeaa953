//! What the whole-system tests share: a real daemon, an agent that answers orders, a load that
//! remembers what it was promised, and the check that every promise was kept.

pub mod agent;
pub mod bulk;
pub mod clock;
pub mod daemon;
pub mod load;
pub mod order;
pub mod service;

use std::time::Duration;

/// Waits until `condition` answers `Some`, asking again every few milliseconds.
///
/// # Errors
/// After `limit`; the error names `what`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let waiting = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, waiting)
        .await
        .map_err(|_| anyhow::anyhow!("{what}: not within {limit:?}"))
}

/// The number in an environment variable, or a default: how long tests look.
///
/// # Panics
/// If the variable holds no number.
#[must_use]
pub fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text:?} is no number"))
    })
}
