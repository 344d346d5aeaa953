//! Whose turn it is to write, among the users of one pool.
//!
//! SQLite lets whoever asks at the right moment have the write lock, so that somebody may
//! ask in vain for long. In here it goes in order; and at most one branch stands in the
//! way of those that finish branches, of which others may be waiting for.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out turns.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// The branch that asks next.
    branch: Arc<Semaphore>,
    /// Whoever writes.
    writer: Arc<Semaphore>,
}

/// Somebody's turn, until it is dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            branch: Arc::new(Semaphore::new(1)),
            writer: Arc::new(Semaphore::new(1)),
        }
    }

    /// The turn of a branch; `None` if it does not come in time.
    pub(super) async fn of_branch(&self, patience: Duration) -> Option<Turn> {
        let both = async {
            let _next = self.branch.acquire().await.ok()?;
            Arc::clone(&self.writer).acquire_owned().await.ok()
        };
        tokio::time::timeout(patience, both).await.ok().flatten()
    }

    /// The turn of somebody who finishes branches; `None` if it does not come in time.
    pub(super) async fn of_finish(&self, patience: Duration) -> Option<Turn> {
        let turn = Arc::clone(&self.writer).acquire_owned();
        tokio::time::timeout(patience, turn).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn one_branch_at_most_is_before_a_finish() {
        let turns = Turns::new();
        let first = turns.of_branch(LONG).await.expect("free");
        let mut second = Box::pin(turns.of_branch(LONG));
        let mut third = Box::pin(turns.of_branch(LONG));
        let mut finish = Box::pin(turns.of_finish(LONG));
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut third).is_pending());
        assert!(poll!(&mut finish).is_pending());
        drop(first);
        let second = second.await.expect("next");
        assert!(poll!(&mut third).is_pending());
        drop(second);
        let finish = finish.await.expect("next");
        assert!(poll!(&mut third).is_pending());
        drop(finish);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_said_so() {
        let turns = Turns::new();
        let _first = turns.of_finish(LONG).await.expect("free");
        assert!(turns.of_branch(Duration::ZERO).await.is_none());
        assert!(turns.of_finish(Duration::from_millis(1)).await.is_none());
    }
}
