//! The end of phase one.

use std::time::Duration;

use accede_proto::Xid;
use bytes::Bytes;
use sqlx::{AssertSqlSafe, Row as _};

use super::{open::Local, prepared_off};
use crate::{
    error::{Error, sql_state},
    registrar::LockKey,
    store::{
        finish::BranchKey,
        postgres::{
            AtPool,
            branch::{Branch, FENCE_STATEMENT, NOT_PREPARED, in_time, left, prepare_fence, settle},
            connection::{Held, Session, XaSession},
            fence::text,
        },
        watch::Watch,
        xa::{
            COMMITTED,
            name::of_branch,
            open::{self, Joined},
        },
    },
};

/// Asks the database whether anything was written or locked after all, by a function say.
pub(in crate::store::postgres) async fn has_written(held: &mut Held) -> Result<bool, sqlx::Error> {
    let rows = sqlx::raw_sql("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        .fetch_all(held.get())
        .await?;
    rows.first().map_or(Ok(true), |row| row.try_get(0))
}

/// Register, write the fence's row, prepare: rule by rule so that a cancelled or failed step
/// leaves the coordinator knowing the truth.
pub(in crate::store::postgres) async fn prepare(
    pool: &AtPool,
    held: &mut Held,
    xid: Xid,
    branch: &Branch,
    row_locks: Vec<LockKey>,
) -> Result<(), Error> {
    let resource = pool.resource();
    let joined = open::register(pool, xid, row_locks, Bytes::new(), branch.wait_limit());
    let joined = match joined.await {
        Ok(joined) => joined,
        Err(refused) => {
            let _ = held.roll_back().await;
            return Err(refused.into());
        }
    };
    let known = pool.xa_known();
    let fence = known.fence(pool).await?;
    let prefix = known.prefix(pool).await?;
    let begun = branch.begun.expect("an open branch has begun");
    let left = left(begun, joined.sent, joined.give_up);
    if joined.stays_open() {
        let local = Local::new(held.take(), (begun, branch.backend), left);
        joined.keep(pool, local);
        return Ok(());
    }
    let Joined {
        key, mut outcome, ..
    } = joined;
    // What a failed message leaves in the session is asked for the next time.
    let session = std::mem::take(held.session());
    let message = format!(
        "{}; PREPARE TRANSACTION '{}'",
        write_fence(fence, key, resource, session.xa, left),
        of_branch(prefix, key),
    );
    outcome.sent = true;
    let prepare = sqlx::raw_sql(AssertSqlSafe(message)).execute(held.get());
    let prepared = Watch::new(pool, Some(xid), branch.backend)
        .over(prepare)
        .await;
    if let Err(error) = &prepared
        && sql_state(error).as_deref() == Some(NOT_PREPARED)
    {
        pool.doubt_sessions();
    }
    match settle(outcome, held, prepared).await {
        Ok(()) => {
            if pool.sessions_stay() {
                *held.session() = after(session);
            }
            Ok(())
        }
        Err(Error::Database { doing, source }) => Err(match sql_state(&source).as_deref() {
            Some("55000") => prepared_off(resource),
            Some("53200") => Error::PreparedFull {
                resource: resource.into(),
                source,
            },
            _ => Error::Database { doing, source },
        }),
        Err(error) => Err(error),
    }
}

/// Writes the fence's row, by the session's own statement if it is known whether it has one.
pub(super) fn write_fence(
    table: &str,
    key: BranchKey,
    resource: &str,
    session: XaSession,
    left: Duration,
) -> String {
    let (xid, branch) = (key.xid_column(), key.branch_column());
    let resource = text(resource);
    let prepare = match session {
        XaSession::Unknown => {
            return format!(
                "INSERT INTO {table} (xid, branch_id, status, resource, created) \
                 VALUES ({xid}, {branch}, {COMMITTED}, {resource}, {})",
                in_time(left)
            );
        }
        XaSession::Known { fence_prepared, .. } if fence_prepared => String::new(),
        XaSession::Known { .. } => prepare_fence(table, COMMITTED),
    };
    format!(
        "{prepare}EXECUTE {FENCE_STATEMENT}({xid}, {branch}, {resource}, '{} ms')",
        left.as_millis()
    )
}

/// What is known of a session that has written a fence.
pub(super) fn after(session: Session) -> Session {
    let xa = match session.xa {
        XaSession::Unknown => XaSession::Unknown,
        XaSession::Known { backend, .. } => XaSession::Known {
            backend,
            fence_prepared: true,
        },
    };
    Session { xa, ..session }
}
