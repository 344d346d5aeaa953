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
    agent::Ended,
    error::{Error, sql_state},
    limits,
    store::{
        finish::{BranchKey, PhaseTwoError, PreparedOne, PreparedOnes, UndoPolicy},
        xa::{
            BARRED,
            judge::commit_without,
            name::{branch_of, of_branch},
            orders::{self, Finds, Search},
        },
    },
};

/// Commits a branch. Durable when it returns; a repeat finds the branch's row and does nothing.
pub(crate) async fn commit_prepared(pool: &AtPool, key: BranchKey) -> Result<(), PhaseTwoError> {
    let mut search = pool.search(key, &[]).await?;
    if search.commit().await? {
        return Ok(());
    }
    let InDatabase { name, mut held, .. } = search;
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
    orders::roll_back(pool, key, &[], policy).await
}

/// Prepares a branch that may be open. Durable when it returns, as its refusal is.
pub(crate) async fn prepare_open(pool: &AtPool, key: BranchKey) -> Result<Ended, PhaseTwoError> {
    orders::prepare_open(pool, key, &[]).await
}

/// Commits a branch that may be open in one phase. Durable when it returns, as its refusal is.
pub(crate) async fn commit_open(pool: &AtPool, key: BranchKey) -> Result<Ended, PhaseTwoError> {
    orders::commit_open(pool, key, &[]).await
}

impl Finds for AtPool {
    type Search = InDatabase;

    async fn search(&self, key: BranchKey, _: &[u8]) -> Result<InDatabase, PhaseTwoError> {
        Ok(InDatabase {
            name: of_branch(prefix(self).await?, key),
            held: self.lend_to_finish().await?,
            pool: self.clone(),
            key,
        })
    }
}

/// A branch that is looked for.
pub(in crate::store) struct InDatabase {
    pool: AtPool,
    key: BranchKey,
    /// The database's name for it, once it is prepared.
    name: String,
    held: Held,
}

impl Search for InDatabase {
    const COMMITS_BY_HAND: &'static str = "COMMIT PREPARED";

    async fn is_prepared(&mut self) -> Result<bool, PhaseTwoError> {
        let ask = format!(
            "SELECT FROM pg_catalog.pg_prepared_xacts \
             WHERE gid = '{}' AND database = current_database()",
            self.name
        );
        let pool = self.pool.phase_two();
        let send = self.held.first(pool, connection_is_lost, |connection, _| {
            Box::pin(sqlx::raw_sql(AssertSqlSafe(ask.clone())).fetch_all(connection))
        });
        let rows = send.await?;
        self.held.clean();
        Ok(!rows.is_empty())
    }

    async fn commit(&mut self) -> Result<bool, PhaseTwoError> {
        self.end("COMMIT").await
    }

    async fn roll_back(&mut self) -> Result<bool, PhaseTwoError> {
        self.end("ROLLBACK").await
    }

    async fn bar(&mut self) -> Result<Option<i16>, PhaseTwoError> {
        bar(&mut self.held, &self.pool, self.key).await
    }

    fn in_the_way(&self) -> PhaseTwoError {
        PhaseTwoError::Failed {
            reason: format!(
                "an agent prepares or ends {} at this moment; it will be tried again",
                self.name
            ),
        }
    }
}

impl InDatabase {
    /// Ends it by `verb` if it is prepared; false if there is none of its name.
    async fn end(&mut self, verb: &str) -> Result<bool, PhaseTwoError> {
        let message = format!("{verb} PREPARED '{}'", self.name);
        let pool = self.pool.phase_two();
        // A connection that was at hand may be gone: sent twice, it finds what it did.
        let send = self.held.first(pool, connection_is_lost, |connection, _| {
            Box::pin(sqlx::raw_sql(AssertSqlSafe(message.clone())).execute(connection))
        });
        let Err(error) = send.await else {
            self.held.clean();
            return Ok(true);
        };
        match sql_state(&error).as_deref() {
            Some("42704") => {
                self.held.clean();
                Ok(false)
            }
            Some("42501") => Err(PhaseTwoError::Failed {
                reason: other_role(&mut self.held, &self.name).await?,
            }),
            // Another session ends it at this moment.
            Some("55000") => Err(PhaseTwoError::Failed {
                reason: format!("{error}; it will be tried again"),
            }),
            _ => Err(error.into()),
        }
    }
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

/// Makes sure that a branch which is not prepared never will be; `None` if an agent is in the way.
async fn bar(held: &mut Held, pool: &AtPool, key: BranchKey) -> Result<Option<i16>, PhaseTwoError> {
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
                Some("55P03") => Ok(None),
                _ => Err(error.into()),
            };
        }
    };
    held.clean();
    match rows.first() {
        Some(row) => Ok(Some(row.try_get(0)?)),
        None => Err(PhaseTwoError::Failed {
            reason: "the database did not show the branch's row of accede_fence".to_owned(),
        }),
    }
}
