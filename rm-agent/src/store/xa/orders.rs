//! Orders for branches that may be open: to prepare, to commit in one phase, to roll back. Whoever
//! gets one and has no such branch finds out in the database how it ended, and bars it if it has
//! not. The same for each database.

use super::{
    BARRED, COMMITTED,
    judge::roll_back_without,
    open::{End, KeepsOpen, Vote},
};
use crate::{
    agent::Ended,
    limits,
    store::finish::{BranchKey, PhaseTwoError, UndoPolicy},
};

/// A pool in whose database branches are looked for.
pub(in crate::store) trait Finds: KeepsOpen {
    type Search: Search;

    /// Looks for a branch that was registered with this payload.
    fn search(
        &self,
        key: BranchKey,
        payload: &[u8],
    ) -> impl Future<Output = Result<Self::Search, PhaseTwoError>> + Send;
}

/// A branch that is not open here.
pub(in crate::store) trait Search: Send {
    /// The command by which a person may have committed it.
    const COMMITS_BY_HAND: &'static str;

    /// Whether it is prepared.
    fn is_prepared(&mut self) -> impl Future<Output = Result<bool, PhaseTwoError>> + Send;

    /// Commits what is prepared; false if there is nothing, or nothing that can be had now.
    fn commit(&mut self) -> impl Future<Output = Result<bool, PhaseTwoError>> + Send;

    /// The same, to roll it back.
    fn roll_back(&mut self) -> impl Future<Output = Result<bool, PhaseTwoError>> + Send;

    /// Makes sure that a branch which is not prepared never will be, nor commit. The status of its
    /// row in `accede_fence`; `None` if an agent ends it at this moment, or has prepared it. Its own
    /// row is invisible, and blocks this one, from before it is prepared until it has ended; so
    /// this waits a moment at most.
    fn bar(&mut self) -> impl Future<Output = Result<Option<i16>, PhaseTwoError>> + Send;

    /// Lets a moment pass before all that is repeated, if barring does not wait.
    fn pause(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Somebody was in the way each time.
    fn in_the_way(&self) -> PhaseTwoError;
}

/// Prepares a branch. Durable when it returns, as its refusal is.
pub(in crate::store) async fn prepare_open<P: Finds>(
    pool: &P,
    key: BranchKey,
    payload: &[u8],
) -> Result<Ended, PhaseTwoError> {
    if let Some(open) = pool.kept_open().take(key).await {
        match open.end(pool, End::Prepare).await {
            Vote::Yes => return Ok(Ended::Prepared),
            Vote::No(why) => return Ok(Ended::Refused(why)),
            Vote::Unknown(why) => tracing::debug!(xid = %key.xid, why, "looking for the prepare"),
        }
    }
    let mut search = pool.search(key, payload).await?;
    for attempt in 0..limits::XA_BAR_ATTEMPTS {
        if attempt > 0 {
            search.pause().await;
        }
        if search.is_prepared().await? {
            return Ok(Ended::Prepared);
        }
        match search.bar().await? {
            Some(COMMITTED) => {
                return Err(PhaseTwoError::stuck(format!(
                    "branch {} of transaction {} shall be prepared, but was committed here: \
                     somebody ran {} by hand",
                    key.branch,
                    key.xid,
                    P::Search::COMMITS_BY_HAND
                )));
            }
            Some(status) => return refused(key, status),
            None => {}
        }
    }
    Err(search.in_the_way())
}

/// Commits a branch in one phase. Durable when it returns, as its refusal is; a repeat finds the
/// branch's row.
pub(in crate::store) async fn commit_open<P: Finds>(
    pool: &P,
    key: BranchKey,
    payload: &[u8],
) -> Result<Ended, PhaseTwoError> {
    if let Some(open) = pool.kept_open().take(key).await {
        match open.end(pool, End::CommitOnePhase).await {
            Vote::Yes => return Ok(Ended::Finished),
            Vote::No(why) => return Ok(Ended::Refused(why)),
            Vote::Unknown(why) => tracing::debug!(xid = %key.xid, why, "looking for the commit"),
        }
    }
    let mut search = pool.search(key, payload).await?;
    for attempt in 0..limits::XA_BAR_ATTEMPTS {
        if attempt > 0 {
            search.pause().await;
        }
        // It was prepared because it could not wait any longer.
        if search.commit().await? {
            return Ok(Ended::Finished);
        }
        match search.bar().await? {
            Some(COMMITTED) => return Ok(Ended::Finished),
            Some(status) => return refused(key, status),
            None => {}
        }
    }
    Err(search.in_the_way())
}

/// Rolls a branch back, and keeps it from being prepared later. Durable when it returns.
pub(in crate::store) async fn roll_back<P: Finds>(
    pool: &P,
    key: BranchKey,
    payload: &[u8],
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    if let Some(open) = pool.kept_open().take(key).await
        && open.roll_back::<P>().await
    {
        // Nobody else has it, so nothing of it can come.
        return Ok(());
    }
    let mut search = pool.search(key, payload).await?;
    for attempt in 0..limits::XA_BAR_ATTEMPTS {
        if attempt > 0 {
            search.pause().await;
        }
        if search.roll_back().await? {
            return Ok(());
        }
        if let Some(status) = search.bar().await? {
            return roll_back_without(key, status, policy, P::Search::COMMITS_BY_HAND);
        }
    }
    Err(search.in_the_way())
}

fn refused(key: BranchKey, status: i16) -> Result<Ended, PhaseTwoError> {
    let BranchKey { xid, branch } = key;
    match status {
        BARRED => Ok(Ended::Refused(format!(
            "the session that kept branch {branch} of transaction {xid} open is gone, and the \
             database has rolled it back; do the work again in a new transaction"
        ))),
        other => Err(PhaseTwoError::stuck(format!(
            "accede_fence has the status {other} for branch {branch} of transaction {xid}, which \
             is none of XA: update the service, then repair with retry"
        ))),
    }
}
