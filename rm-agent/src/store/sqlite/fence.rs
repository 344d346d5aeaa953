//! Fences in SQLite.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, Row as _, SqlitePool,
    sqlite::{SqliteQueryResult, SqliteRow, SqliteStatement, SqliteTypeInfo},
};

use super::{
    branch::{commit_error, undo_error},
    connection::Held,
    phase_two::{self, NOW, failure},
    pool::AtPool,
    session,
};
use crate::{
    clock,
    error::Error,
    store::{
        fence::{Fences, NotCommitted, Opened, Promise, Status, Tried, not_definite},
        finish::{BranchKey, PhaseTwoError},
    },
};

/// What is known of a try's local transaction.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// By the database's clock, in milliseconds since 1970.
    ms: i64,
    /// When the database's answer was received.
    at: Instant,
}

fenced_transaction!(
    Sqlite,
    SqliteConnection,
    SqliteQueryResult,
    SqliteRow,
    SqliteStatement,
    SqliteTypeInfo,
    "SQLite"
);

/// What is promised or pre-committed. In the words of the index `accede_fence_open`, so that the
/// database finds it there.
pub(super) fn promises() -> String {
    format!(
        "SELECT xid, branch_id, status, MAX(0, {NOW} - created), payload \
         FROM main.accede_fence \
         WHERE resource = ? AND payload IS NOT NULL AND status IN (0, 4) \
         AND {NOW} - created > ? ORDER BY created LIMIT ?"
    )
}

impl AtPool {
    /// Begins on a connection of this pool.
    async fn begin_on(
        &self,
        pool: &SqlitePool,
        patience: Duration,
    ) -> Result<FencedTransaction, Error> {
        let started = clock::now();
        let mut held = Held::new(self.lend(pool).await?);
        let remaining =
            move || patience.saturating_sub(clock::now().saturating_duration_since(started));
        let remaining: &(dyn Fn() -> Duration + Sync) = &remaining;
        let turn = self.turns().of_branch(remaining()).await;
        let doing = "beginning the branch";
        session::lock(&mut held, turn, remaining)
            .await
            .map_err(Error::database(doing))?;
        let ms = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {NOW}")))
            .fetch_one(held.get())
            .await
            .map_err(Error::database(doing))?;
        let at = clock::now();
        Ok(FencedTransaction {
            held,
            begun: Some(Begun { ms, at }),
            key: None,
        })
    }
}

impl Fences for AtPool {
    type Transaction = FencedTransaction;

    fn begin(&self, patience: Duration) -> BoxFuture<'_, Result<FencedTransaction, Error>> {
        Box::pin(self.begin_on(self.branches(), patience))
    }

    fn begin_step(&self, patience: Duration) -> BoxFuture<'_, Result<FencedTransaction, Error>> {
        Box::pin(self.begin_on(self.steps(), patience))
    }

    fn join(transaction: &mut FencedTransaction, key: BranchKey) {
        transaction.key = Some(key);
    }

    fn backend(_: &FencedTransaction) -> Option<i64> {
        None
    }

    fn commit_tried<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        tried: Tried<'t>,
    ) -> BoxFuture<'t, Result<(), NotCommitted>> {
        Box::pin(async move {
            let xid = tried.key.xid;
            let begun = transaction.begun;
            let (ms, at) = begun.map_or((0, tried.sent), |begun| (begun.ms, begun.at));
            // The database began before its answer arrived: rather too early than too late.
            let after = tried.sent.saturating_duration_since(at) + tried.give_up;
            let left = after.saturating_sub(at.saturating_duration_since(tried.sent));
            let until = ms.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
            let insert = format!(
                "INSERT INTO main.accede_fence \
                 (xid, branch_id, status, resource, payload, created) \
                 SELECT ?, ?, ?, ?, ?, CASE WHEN now >= ? AND now < ? THEN now END \
                 FROM (SELECT {NOW} AS now)"
            );
            let inserted = sqlx::query(AssertSqlSafe(insert))
                .bind(tried.key.xid_column())
                .bind(tried.key.branch_column())
                .bind(Status::Tried.column())
                .bind(tried.resource)
                .bind(tried.payload)
                .bind(ms)
                .bind(until)
                .execute(transaction.held.get())
                .await;
            if let Err(error) = inserted {
                let error = undo_error(xid, error);
                return Err(NotCommitted {
                    error,
                    certain: true,
                });
            }
            match sqlx::raw_sql("COMMIT")
                .execute(transaction.held.get())
                .await
            {
                Ok(_) => {
                    transaction.held.clean();
                    Ok(())
                }
                Err(error) => {
                    let (error, certain) = commit_error(xid, error);
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
        Box::pin(async move {
            let mut held = phase_two::begin(self).await?;
            let status = enter(&mut held, key, resource, Status::Barred).await?;
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
            enter(&mut transaction.held, key, resource, Status::Running).await
        })
    }

    fn payload<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        key: BranchKey,
    ) -> BoxFuture<'t, Result<Option<Vec<u8>>, PhaseTwoError>> {
        Box::pin(async move {
            let select = "SELECT payload FROM main.accede_fence WHERE xid = ? AND branch_id = ?";
            let payload = sqlx::query_scalar(select)
                .bind(key.xid_column())
                .bind(key.branch_column())
                .fetch_one(transaction.held.get());
            payload.await.map_err(|error| failure(&error))
        })
    }

    fn close<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        key: BranchKey,
        status: Option<Status>,
        payload: Option<&'t [u8]>,
    ) -> BoxFuture<'t, Result<(), PhaseTwoError>> {
        let update = format!(
            "UPDATE main.accede_fence SET status = ?, created = {NOW}, \
             payload = coalesce(?, payload) WHERE xid = ? AND branch_id = ?"
        );
        Box::pin(async move {
            if let Some(status) = status {
                sqlx::query(AssertSqlSafe(update))
                    .bind(status.column())
                    .bind(payload)
                    .bind(key.xid_column())
                    .bind(key.branch_column())
                    .execute(transaction.held.get())
                    .await
                    .map_err(|error| failure(&error))?;
            }
            sqlx::raw_sql("COMMIT")
                .execute(transaction.held.get())
                .await
                .map_err(|error| failure(&error))?;
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
            let rows = sqlx::query_as(AssertSqlSafe(promises()))
                .bind(resource)
                .bind(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX / 2))
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(self.phase_two())
                .await
                .map_err(|error| failure(&error))?;
            Ok(rows.into_iter().filter_map(Promise::read).collect())
        })
    }

    fn roll_back(transaction: &mut FencedTransaction) -> BoxFuture<'_, ()> {
        Box::pin(async move { transaction.held.roll_back().await })
    }

    fn failure(error: &sqlx::Error) -> PhaseTwoError {
        not_definite(failure(error), error)
    }
}

/// Writes a branch's row with this status if it is not there, and shows its status.
async fn enter(
    held: &mut Held,
    key: BranchKey,
    resource: &str,
    otherwise: Status,
) -> Result<Status, PhaseTwoError> {
    let insert = format!(
        "INSERT INTO main.accede_fence (xid, branch_id, status, resource, created) \
         VALUES (?, ?, ?, ?, {NOW}) \
         ON CONFLICT (xid, branch_id) DO UPDATE SET xid = accede_fence.xid RETURNING status"
    );
    let row = sqlx::query(AssertSqlSafe(insert))
        .bind(key.xid_column())
        .bind(key.branch_column())
        .bind(otherwise.column())
        .bind(resource)
        .fetch_one(held.get())
        .await
        .map_err(|error| failure(&error))?;
    Status::read(row.try_get(0).map_err(|error| failure(&error))?)
}
