//! Local transactions that respect global ones without belonging to any.

use std::{future::Future, time::Duration};

tokio::task_local! {
    /// How long a local transaction of the scope waits, unless its pool knows better.
    static SCOPE: Option<Duration>;
}

/// Runs `work` so that its local transactions respect global ones: before one of them commits,
/// and before it sees the rows of a `SELECT … FOR UPDATE`, the coordinator says that no global
/// transaction may still undo these rows. It waits for that as long as the pool waits for locks.
///
/// This is for code outside of any global transaction. It belongs to none afterwards either: no
/// branch is registered, no undo is written, and what it committed stays. Inside a global
/// transaction the scope changes nothing: branches take their rows' locks anyway.
///
/// If the transaction in the way rolls back, it needs the rows: the local transaction is refused
/// at once with a passing refusal. [`AtPool::run`](crate::AtPool::run) runs it again, and so does
/// a lone statement.
///
/// Its statements are looked at like those of a branch: what writes rows unseen is refused. The
/// scope follows the code through `.await`, not through `tokio::spawn`. Plain reads see what may
/// still be undone, here as everywhere.
///
/// ```no_run
/// # async fn example(pool: accede_rm_agent::AtPool) -> Result<(), sqlx::Error> {
/// use accede_rm_agent::global_lock;
///
/// // What a customer is told will not be taken back.
/// let left: i64 = global_lock(
///     sqlx::query_scalar("SELECT count FROM stock WHERE product = 7 FOR UPDATE").fetch_one(&pool),
/// )
/// .await?;
/// # let _ = left;
/// # Ok(())
/// # }
/// ```
pub async fn global_lock<F: Future>(work: F) -> F::Output {
    SCOPE.scope(None, work).await
}

/// The same with a shorter wait for locks: `limit` counts from the begin of each local
/// transaction, for the locks of the database and for those at the coordinator.
pub async fn global_lock_within<F: Future>(limit: Duration, work: F) -> F::Output {
    SCOPE.scope(Some(limit), work).await
}

/// The limit of the scope that the task runs in, if it is in one.
pub(crate) fn limit() -> Option<Option<Duration>> {
    SCOPE.try_with(|limit| *limit).ok()
}
