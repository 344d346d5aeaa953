//! Orders for branches that are kept open: to prepare, or to commit in one phase. Whoever gets one
//! and has no such branch finds out in the database how it ended, and bars it if it has not.

use sqlx::AssertSqlSafe;

use super::xa::{Bar, Ended, bar, end, name};
use crate::{
    agent::Ended as Answer,
    limits,
    store::{
        finish::{BranchKey, PhaseTwoError},
        postgres::{
            connection::{Held, connection_is_lost},
            pool::AtPool,
            xa::{End, Vote},
        },
        xa::{BARRED, COMMITTED},
    },
};

/// Prepares a branch. Durable when it returns, as its refusal is.
pub(crate) async fn prepare_open(pool: &AtPool, key: BranchKey) -> Result<Answer, PhaseTwoError> {
    if let Some(open) = pool.kept_open().take(key).await {
        match open.end(pool, End::Prepare).await {
            Vote::Yes => return Ok(Answer::Prepared),
            Vote::No(why) => return Ok(Answer::Refused(why)),
            Vote::Unknown(why) => tracing::debug!(xid = %key.xid, why, "looking for the prepare"),
        }
    }
    let name = name(pool, key).await?;
    let mut held = pool.lend_to_finish().await?;
    for _ in 0..limits::XA_BAR_ATTEMPTS {
        if is_prepared(&mut held, pool, &name).await? {
            return Ok(Answer::Prepared);
        }
        match bar(&mut held, pool, key).await? {
            Bar::Row(COMMITTED) => {
                return Err(PhaseTwoError::stuck(format!(
                    "branch {} of transaction {} shall be prepared, but was committed here: \
                     somebody ran COMMIT PREPARED by hand",
                    key.branch, key.xid
                )));
            }
            Bar::Row(status) => return refused(key, status),
            Bar::InTheWay => {}
        }
    }
    Err(still_in_the_way(&name))
}

/// Commits a branch in one phase. Durable when it returns, as its refusal is; a repeat finds the
/// branch's row.
pub(crate) async fn commit_open(pool: &AtPool, key: BranchKey) -> Result<Answer, PhaseTwoError> {
    if let Some(open) = pool.kept_open().take(key).await {
        match open.end(pool, End::CommitOnePhase).await {
            Vote::Yes => return Ok(Answer::Finished),
            Vote::No(why) => return Ok(Answer::Refused(why)),
            Vote::Unknown(why) => tracing::debug!(xid = %key.xid, why, "looking for the commit"),
        }
    }
    let name = name(pool, key).await?;
    let mut held = pool.lend_to_finish().await?;
    for _ in 0..limits::XA_BAR_ATTEMPTS {
        // It was prepared because it could not wait any longer.
        match end(&mut held, pool, "COMMIT", &name).await? {
            Ended::Now => return Ok(Answer::Finished),
            Ended::NotThere => {}
        }
        match bar(&mut held, pool, key).await? {
            Bar::Row(COMMITTED) => return Ok(Answer::Finished),
            Bar::Row(status) => return refused(key, status),
            Bar::InTheWay => {}
        }
    }
    Err(still_in_the_way(&name))
}

fn refused(key: BranchKey, status: i16) -> Result<Answer, PhaseTwoError> {
    let BranchKey { xid, branch } = key;
    match status {
        BARRED => Ok(Answer::Refused(format!(
            "the session that kept branch {branch} of transaction {xid} open is gone, and the \
             database has rolled it back; do the work again in a new transaction"
        ))),
        other => Err(PhaseTwoError::stuck(format!(
            "accede_fence has the status {other} for branch {branch} of transaction {xid}, which \
             is none of XA: update the service, then repair with retry"
        ))),
    }
}

fn still_in_the_way(name: &str) -> PhaseTwoError {
    PhaseTwoError::Failed {
        reason: format!("an agent ends {name} at this moment; it will be tried again"),
    }
}

async fn is_prepared(held: &mut Held, pool: &AtPool, name: &str) -> Result<bool, PhaseTwoError> {
    let ask = format!(
        "SELECT FROM pg_catalog.pg_prepared_xacts \
         WHERE gid = '{name}' AND database = current_database()"
    );
    let send = held.first(pool.phase_two(), connection_is_lost, |connection, _| {
        Box::pin(sqlx::raw_sql(AssertSqlSafe(ask.clone())).fetch_all(connection))
    });
    let rows = send.await?;
    held.clean();
    Ok(!rows.is_empty())
}
