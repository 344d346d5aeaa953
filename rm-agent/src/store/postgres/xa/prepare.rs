//! The end of phase one.

use std::{sync::Arc, time::Duration};

use accede_proto::{Xid, v1::Mode};
use bytes::Bytes;
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    open::{Open, keep},
    prepared_off,
};
use crate::{
    clock,
    error::{Error, sql_state},
    registrar::{LockKey, Registration},
    store::{
        finish::BranchKey,
        outcome::Outcome,
        postgres::{
            AtPool,
            branch::{Branch, FENCE_STATEMENT, NOT_PREPARED, in_time, left, prepare_fence, settle},
            connection::{Held, Session, XaSession},
            fence::text,
        },
        watch::Watch,
        xa::{COMMITTED, name::of_branch},
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
    // Whoever waits for a connection must not wait for this one.
    let claim = match pool.is_waited_for() {
        true => None,
        false => pool.kept_open().claim(xid),
    };
    let registration = Registration {
        xid,
        resource: resource.into(),
        mode: Mode::Xa,
        row_locks,
        escrow_locks: Vec::new(),
        payload: Bytes::new(),
        wait_limit: branch.wait_limit(),
        can_keep_open: claim.is_some(),
    };
    let sent = clock::now();
    let registered = match pool.registrar().register(registration).await {
        Ok(registered) => registered,
        Err(refused) => {
            let _ = held.roll_back().await;
            return Err(refused.into());
        }
    };
    // Dropped before the message is sent, it withdraws the branch.
    let mut outcome = Outcome::new(Arc::clone(pool.registrar()), xid, registered.branch);
    let key = BranchKey {
        xid,
        branch: registered.branch,
    };
    let known = pool.xa_known();
    let fence = known.fence(pool).await?;
    let prefix = known.prefix(pool).await?;
    let begun = branch.begun.expect("an open branch has begun");
    if let Some(claim) = claim.filter(|_| registered.keep_open) {
        let left = left(begun, sent, registered.give_up);
        let open = Open::new(key, held.take(), outcome, (begun, branch.backend), left);
        keep(pool, claim, open);
        return Ok(());
    }
    // What a failed message leaves in the session is asked for the next time.
    let session = std::mem::take(held.session());
    let message = format!(
        "{}; PREPARE TRANSACTION '{}'",
        write_fence(
            fence,
            key,
            resource,
            session.xa,
            left(begun, sent, registered.give_up)
        ),
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
