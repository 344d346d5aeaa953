//! Finishing prepared transactions.
//!
//! The prepared transaction itself says that a branch is not finished yet, and its row in
//! `accede_fence`, which becomes visible with its commit, that it was committed. So everything
//! here may run twice, and in two processes at once.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _};

use super::super::{
    connection::{Held, connection_is_lost},
    fence::text,
    pool::AtPool,
};
use crate::{
    error::{Error, sql_state},
    limits,
    store::{
        finish::{BranchKey, PhaseTwoError, PreparedOne, PreparedOnes, UndoPolicy},
        xa::{
            BARRED,
            judge::{commit_without, roll_back_without},
            name::{branch_of, of_branch},
        },
    },
};

/// What became of `COMMIT PREPARED` and its like.
pub(super) enum Ended {
    /// It was ended by this.
    Now,
    /// There is none of this name.
    NotThere,
}

/// What became of barring a branch.
pub(super) enum Bar {
    /// Its row in `accede_fence` is there, with this status.
    Row(i16),
    /// An agent prepares it at this moment, or has done so.
    InTheWay,
}

/// Commits a branch. Durable when it returns; a repeat finds the branch's row and does nothing.
pub(crate) async fn commit_prepared(pool: &AtPool, key: BranchKey) -> Result<(), PhaseTwoError> {
    let name = name(pool, key).await?;
    let mut held = pool.lend_to_finish().await?;
    match end(&mut held, pool, "COMMIT", &name).await? {
        Ended::Now => return Ok(()),
        Ended::NotThere => {}
    }
    let read = format!(
        "SELECT status FROM accede_fence WHERE xid = {} AND branch_id = {}",
        key.xid_column(),
        key.branch_column()
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(read))
        .fetch_all(held.get())
        .await?;
    held.clean();
    let status: Option<i16> = rows.first().map(|row| row.try_get(0)).transpose()?;
    commit_without(key, &name, status)
}

/// Rolls a branch back, and keeps it from being prepared later. Durable when it returns.
pub(crate) async fn roll_back_prepared(
    pool: &AtPool,
    key: BranchKey,
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    if let Some(open) = pool.kept_open().take(key).await
        && open.roll_back().await
    {
        // Nobody else has it, so nothing of it can come.
        return Ok(());
    }
    let name = name(pool, key).await?;
    let mut held = pool.lend_to_finish().await?;
    // Its row is invisible, and blocks ours, from before it is prepared until it has ended. So
    // ours waits a moment only, and then its name is looked for again.
    for _ in 0..limits::XA_BAR_ATTEMPTS {
        match end(&mut held, pool, "ROLLBACK", &name).await? {
            Ended::Now => return Ok(()),
            Ended::NotThere => {}
        }
        match bar(&mut held, pool, key).await? {
            Bar::Row(status) => {
                return roll_back_without(key, status, policy, "COMMIT PREPARED");
            }
            Bar::InTheWay => {}
        }
    }
    Err(PhaseTwoError::Failed {
        reason: format!("an agent prepares {name} at this moment; it will be tried again"),
    })
}

/// Prepared transactions of this cluster in this database, at most `limit` that are older than
/// `older_than`, and how many the server has.
pub(crate) async fn prepared(
    pool: &AtPool,
    older_than: Duration,
    limit: usize,
) -> Result<PreparedOnes, PhaseTwoError> {
    let prefix = prefix(pool).await?;
    let row = sqlx::query(
        "SELECT current_setting('max_prepared_transactions')::bigint, count(*),
                count(*) FILTER (WHERE ours.yes),
                coalesce(greatest(0, extract(epoch FROM clock_timestamp() -
                    min(prepared) FILTER (WHERE ours.yes)) * 1000), 0)::bigint
         FROM pg_catalog.pg_prepared_xacts
         CROSS JOIN LATERAL
             (SELECT database = current_database() AND starts_with(gid, $1) AS yes) ours",
    )
    .bind(prefix)
    .fetch_one(pool.phase_two())
    .await?;
    let number = |column: usize| -> Result<u64, sqlx::Error> {
        Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
    };
    let mut found = PreparedOnes {
        most: number(0)?,
        used: number(1)?,
        ours: number(2)?,
        oldest: Duration::from_millis(number(3)?),
        old: Vec::new(),
    };
    if found.ours == 0 {
        return Ok(found);
    }
    let rows = sqlx::query(
        "SELECT gid, greatest(0, extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint
         FROM pg_catalog.pg_prepared_xacts
         WHERE database = current_database() AND starts_with(gid, $1)
           AND prepared < clock_timestamp() - $2 * interval '1 millisecond'
         ORDER BY prepared LIMIT $3",
    )
    .bind(prefix)
    .bind(older_than.as_millis() as f64)
    .bind(limit.min(limits::PHASE_TWO_BATCH) as i64)
    .fetch_all(pool.phase_two())
    .await?;
    for row in rows {
        let name: String = row.try_get(0)?;
        let age = u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or_default();
        if let Some(key) = branch_of(prefix, &name) {
            found.old.push(PreparedOne {
                xid: key.xid,
                branch: Some(key.branch),
                name,
                age: Duration::from_millis(age),
            });
        }
    }
    Ok(found)
}

async fn prefix(pool: &AtPool) -> Result<&str, PhaseTwoError> {
    let prefix = pool.xa_known().prefix(pool);
    prefix.await.map_err(|error| match error {
        Error::Database { source, .. } => source.into(),
        other => PhaseTwoError::Failed {
            reason: other.to_string(),
        },
    })
}

pub(super) async fn name(pool: &AtPool, key: BranchKey) -> Result<String, PhaseTwoError> {
    Ok(of_branch(prefix(pool).await?, key))
}

/// Ends a prepared transaction by `verb`.
pub(super) async fn end(
    held: &mut Held,
    pool: &AtPool,
    verb: &str,
    name: &str,
) -> Result<Ended, PhaseTwoError> {
    let message = format!("{verb} PREPARED '{name}'");
    // A connection that was at hand may be gone: sent twice, it finds what it did.
    let send = held.first(pool.phase_two(), connection_is_lost, |connection, _| {
        Box::pin(sqlx::raw_sql(AssertSqlSafe(message.clone())).execute(connection))
    });
    let Err(error) = send.await else {
        held.clean();
        return Ok(Ended::Now);
    };
    match sql_state(&error).as_deref() {
        Some("42704") => {
            held.clean();
            Ok(Ended::NotThere)
        }
        Some("42501") => Err(PhaseTwoError::Failed {
            reason: other_role(held, name).await?,
        }),
        // Another session ends it at this moment.
        Some("55000") => Err(PhaseTwoError::Failed {
            reason: format!("{error}; it will be tried again"),
        }),
        _ => Err(error.into()),
    }
}

/// Why the database does not let this role end the prepared transaction.
async fn other_role(held: &mut Held, name: &str) -> Result<String, PhaseTwoError> {
    let ask = format!(
        "SELECT current_user::text, \
         (SELECT owner::text FROM pg_catalog.pg_prepared_xacts WHERE gid = '{name}')"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(ask))
        .fetch_all(held.get())
        .await?;
    held.clean();
    let role = |column: usize| -> Result<String, sqlx::Error> {
        let role = rows
            .first()
            .map(|row| row.try_get::<Option<String>, _>(column));
        Ok(role
            .transpose()?
            .flatten()
            .unwrap_or_else(|| "?".to_owned()))
    };
    let (ours, owner) = (role(0)?, role(1)?);
    Ok(format!(
        "{name} was prepared by the database role {owner}, and {ours} may not end it: let all \
         agents of the resource connect as {owner}, without SET ROLE in their transactions"
    ))
}

/// Makes sure that a branch which is not prepared never will be.
pub(super) async fn bar(
    held: &mut Held,
    pool: &AtPool,
    key: BranchKey,
) -> Result<Bar, PhaseTwoError> {
    // One that is there is left as it is; one whose transaction has not ended is waited for.
    let message = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; \
         INSERT INTO accede_fence (xid, branch_id, status, resource, created) \
         VALUES ({}, {}, {BARRED}, {}, clock_timestamp()) \
         ON CONFLICT (xid, branch_id) DO UPDATE SET xid = accede_fence.xid RETURNING status; COMMIT",
        limits::XA_BAR_LOCK_TIMEOUT.as_millis(),
        key.xid_column(),
        key.branch_column(),
        text(pool.resource()),
    );
    held.soil();
    let answer = sqlx::raw_sql(AssertSqlSafe(message))
        .fetch_all(held.get())
        .await;
    let rows = match answer {
        Ok(rows) => rows,
        Err(error) => {
            held.roll_back().await?;
            return match sql_state(&error).as_deref() {
                Some("55P03") => Ok(Bar::InTheWay),
                _ => Err(error.into()),
            };
        }
    };
    held.clean();
    let status: i16 = match rows.first() {
        Some(row) => row.try_get(0)?,
        None => {
            return Err(PhaseTwoError::Failed {
                reason: "the database did not show the branch's row of accede_fence".to_owned(),
            });
        }
    };
    Ok(Bar::Row(status))
}
