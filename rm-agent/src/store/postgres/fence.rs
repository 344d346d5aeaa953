//! Fences in PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, PgPool, Row as _,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use super::{
    branch::{commit_error, in_time, left, rolled_back_for_sure},
    connection::{Held, Session, connection_is_lost},
    pool::AtPool,
};
use crate::{
    clock,
    error::Error,
    limits,
    store::{
        fence::{Fences, NotCommitted, Opened, Promise, Status, Tried, hex, not_definite},
        finish::{BranchKey, PhaseTwoError},
        watch::Watch,
    },
};

/// What is known of a try's local transaction.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// When the answer to BEGIN was received.
    at: Instant,
    /// The process in the database that runs it.
    backend: Option<i64>,
}

fenced_transaction!(
    Postgres,
    PgConnection,
    PgQueryResult,
    PgRow,
    PgStatement,
    PgTypeInfo,
    "PostgreSQL"
);

/// What is promised or pre-committed. In the words of the index `accede_fence_open`, so that the
/// database finds it there.
pub(super) const PROMISES: &str = "SELECT xid, branch_id, status,
            greatest(0, extract(epoch FROM clock_timestamp() - created) * 1000)::bigint,
            payload
     FROM accede_fence
     WHERE resource = $1 AND payload IS NOT NULL AND status IN (0, 4)
       AND created < clock_timestamp() - $2 * interval '1 millisecond'
     ORDER BY created LIMIT $3";

impl Fences for AtPool {
    type Transaction = FencedTransaction;

    fn begin(&self, patience: Duration) -> BoxFuture<'_, Result<FencedTransaction, Error>> {
        Box::pin(async move { begin(self.lend().await?, self.plain(), patience).await })
    }

    fn begin_step(&self, patience: Duration) -> BoxFuture<'_, Result<FencedTransaction, Error>> {
        Box::pin(async move { begin(self.lend_to_step().await?, self.steps(), patience).await })
    }

    fn join(transaction: &mut FencedTransaction, key: BranchKey) {
        transaction.key = Some(key);
    }

    fn backend(transaction: &FencedTransaction) -> Option<i64> {
        transaction.begun?.backend
    }

    fn commit_tried<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        tried: Tried<'t>,
    ) -> BoxFuture<'t, Result<(), NotCommitted>> {
        let backend = Self::backend(transaction);
        let begun = transaction.begun.map_or_else(clock::now, |begun| begun.at);
        let xid = tried.key.xid;
        let message = format!(
            "INSERT INTO accede_fence (xid, branch_id, status, resource, payload, created) \
             VALUES ({}, {}, {}, {}, {}, {}); COMMIT",
            tried.key.xid_column(),
            tried.key.branch_column(),
            Status::Tried.column(),
            text(tried.resource),
            tried.payload.map_or_else(|| "NULL".to_owned(), bytes),
            in_time(left(begun, tried.sent, tried.give_up)),
        );
        Box::pin(async move {
            let commit = sqlx::raw_sql(AssertSqlSafe(message)).execute(transaction.held.get());
            let committed = Watch::new(self, Some(xid), backend).over(commit).await;
            match committed {
                Ok(_) => {
                    transaction.held.clean();
                    Ok(())
                }
                Err(error) => {
                    let certain = rolled_back_for_sure(&error);
                    let error = commit_error(xid, error, certain);
                    Err(NotCommitted { error, certain })
                }
            }
        })
    }

    fn open<'t>(
        &'t self,
        key: BranchKey,
        resource: &'t str,
    ) -> BoxFuture<'t, Opened<FencedTransaction>> {
        // One that is there is locked and shown as it is. One whose transaction is committing at
        // this moment is waited for.
        let message = format!("BEGIN; {}", enter(key, resource, Status::Barred));
        Box::pin(async move {
            let mut held = self.lend_to_finish().await?;
            held.soil();
            let rows = sqlx::raw_sql(AssertSqlSafe(message))
                .fetch_all(held.get())
                .await?;
            let status = status(&rows)?;
            let transaction = FencedTransaction {
                held,
                begun: None,
                key: Some(key),
            };
            Ok((transaction, status))
        })
    }

    fn claim<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        key: BranchKey,
        resource: &'t str,
    ) -> BoxFuture<'t, Result<Status, PhaseTwoError>> {
        Box::pin(async move {
            transaction.key = Some(key);
            let message = enter(key, resource, Status::Running);
            let rows = sqlx::raw_sql(AssertSqlSafe(message))
                .fetch_all(transaction.held.get())
                .await?;
            status(&rows)
        })
    }

    fn payload<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        key: BranchKey,
    ) -> BoxFuture<'t, Result<Option<Vec<u8>>, PhaseTwoError>> {
        Box::pin(async move {
            let select = "SELECT payload FROM accede_fence WHERE xid = $1 AND branch_id = $2";
            let payload = sqlx::query_scalar(select)
                .bind(key.xid_column())
                .bind(key.branch_column())
                .fetch_one(transaction.held.get());
            Ok(payload.await?)
        })
    }

    fn close<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        key: BranchKey,
        status: Option<Status>,
        payload: Option<&'t [u8]>,
    ) -> BoxFuture<'t, Result<(), PhaseTwoError>> {
        let update = status.map_or_else(String::new, |status| {
            let payload = payload.map_or_else(String::new, |payload| {
                format!(", payload = '\\x{}'::bytea", hex(payload))
            });
            format!(
                "UPDATE accede_fence SET status = {}, created = clock_timestamp(){payload} \
                 WHERE xid = {} AND branch_id = {}; ",
                status.column(),
                key.xid_column(),
                key.branch_column(),
            )
        });
        Box::pin(async move {
            // It is durable: `begin` and the pool that finishes branches see to it.
            sqlx::raw_sql(AssertSqlSafe(format!("{update}COMMIT")))
                .execute(transaction.held.get())
                .await?;
            transaction.held.clean();
            Ok(())
        })
    }

    fn promises<'t>(
        &'t self,
        resource: &'t str,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'t, Result<Vec<Promise>, PhaseTwoError>> {
        Box::pin(async move {
            let rows = sqlx::query_as(PROMISES)
                .bind(resource)
                .bind(older_than.as_millis() as f64)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(self.phase_two())
                .await?;
            Ok(rows.into_iter().filter_map(Promise::read).collect())
        })
    }

    fn roll_back(transaction: &mut FencedTransaction) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The connection is closed if this fails, which rolls back as well.
            let _ = transaction.held.roll_back().await;
        })
    }

    fn failure(error: &sqlx::Error) -> PhaseTwoError {
        not_definite(super::phase_two::failure(error), error)
    }
}

/// Begins on a connection of this pool.
async fn begin(
    mut held: Held,
    pool: &PgPool,
    patience: Duration,
) -> Result<FencedTransaction, Error> {
    // What the handler does to its session is not looked at.
    *held.session() = Session::default();
    let timeout = patience.max(limits::MIN_LOCK_TIMEOUT).as_millis();
    // What is reported as done must outlive a crash of the database.
    let message = format!(
        "BEGIN; SELECT pg_backend_pid(), set_config('lock_timeout', '{timeout}', true), \
         CASE current_setting('synchronous_commit') \
         WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END"
    );
    let send = held.first(pool, connection_is_lost, |connection, _| {
        Box::pin(sqlx::raw_sql(AssertSqlSafe(message.clone())).fetch_all(connection))
    });
    let answer = send
        .await
        .map_err(Error::database("beginning the branch"))?;
    let backend = answer
        .first()
        .and_then(|row| row.try_get::<i32, _>(0).ok())
        .map(i64::from);
    let at = clock::now();
    Ok(FencedTransaction {
        held,
        begun: Some(Begun { at, backend }),
        key: None,
    })
}

/// Writes a branch's row with this status if it is not there, locks it, and shows its status.
fn enter(key: BranchKey, resource: &str, otherwise: Status) -> String {
    format!(
        "INSERT INTO accede_fence (xid, branch_id, status, resource, created) \
         VALUES ({}, {}, {}, {}, clock_timestamp()) \
         ON CONFLICT (xid, branch_id) DO UPDATE SET xid = accede_fence.xid RETURNING status",
        key.xid_column(),
        key.branch_column(),
        otherwise.column(),
        text(resource),
    )
}

fn status(rows: &[PgRow]) -> Result<Status, PhaseTwoError> {
    let row = rows.last().ok_or_else(|| PhaseTwoError::Failed {
        reason: "the database did not show the branch's row of accede_fence".to_owned(),
    })?;
    Status::read(row.try_get(0)?)
}

/// A text in a message, whatever is in it.
pub(super) fn text(value: &str) -> String {
    format!("convert_from({}, 'UTF8')", bytes(value.as_bytes()))
}

/// Bytes in a message.
fn bytes(value: &[u8]) -> String {
    format!("'\\x{}'::bytea", hex(value))
}
