//! Fences in MariaDB.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, MySqlPool, Row as _,
    mysql::{MySqlQueryResult, MySqlRow, MySqlStatement, MySqlTypeInfo},
};

use super::{
    branch::{commit_error, in_time, send_commit},
    connection::Held,
    failure::connection_is_lost,
    phase_two::failure,
    pool::AtPool,
    session::{self, BEFORE_COMMIT, Session},
};
use crate::{
    at::mysql::quote_qualified,
    clock,
    error::Error,
    store::{
        fence::{Fences, NotCommitted, Opened, Promise, Status, Tried, hex, not_definite},
        finish::{BranchKey, PhaseTwoError},
        watch::Watch,
    },
};

/// What is known of a try's local transaction.
#[derive(Clone, Debug)]
struct Begun {
    session: Session,
    /// When the database's answer was received.
    at: Instant,
}

fenced_transaction!(
    MySql,
    MySqlConnection,
    MySqlQueryResult,
    MySqlRow,
    MySqlStatement,
    MySqlTypeInfo,
    "MariaDB"
);

/// What is promised or pre-committed. In the words of the index `accede_fence_open`, so that the
/// database finds it there.
pub(super) const PROMISES: &str = "SELECT xid, branch_id, status,
            CAST(GREATEST(0, TIMESTAMPDIFF(MICROSECOND, created, SYSDATE(6)) DIV 1000) AS SIGNED),
            payload
     FROM accede_fence
     WHERE resource = ? AND status IN (0, 4) AND payload IS NOT NULL
       AND TIMESTAMPDIFF(MICROSECOND, created, SYSDATE(6)) > ?
     ORDER BY created LIMIT ?";

impl AtPool {
    /// Begins on a connection of this pool.
    async fn begin_on(
        &self,
        mut held: Held,
        pool: &MySqlPool,
        patience: Duration,
    ) -> Result<FencedTransaction, Error> {
        // In whole seconds; rather too long than none at all.
        let seconds = patience.as_secs().max(1);
        let message = session::begin(seconds);
        let begin = held.first(pool, connection_is_lost, |connection, _| {
            Box::pin(session::send(connection, message.clone()))
        });
        let row = begin
            .await
            .and_then(|row| row.ok_or(sqlx::Error::RowNotFound));
        let row = row.map_err(Error::database("beginning the branch"))?;
        let session = session::read(&row, self.database())?;
        let at = clock::now();
        Ok(FencedTransaction {
            held,
            begun: Some(Begun { session, at }),
            key: None,
        })
    }
}

impl Fences for AtPool {
    type Transaction = FencedTransaction;

    fn begin(&self, patience: Duration) -> BoxFuture<'_, Result<FencedTransaction, Error>> {
        Box::pin(async move {
            self.begin_on(self.lend().await?, self.plain(), patience)
                .await
        })
    }

    fn begin_step(&self, patience: Duration) -> BoxFuture<'_, Result<FencedTransaction, Error>> {
        Box::pin(async move {
            let held = self.lend_to_step().await?;
            self.begin_on(held, self.steps(), patience).await
        })
    }

    fn join(transaction: &mut FencedTransaction, key: BranchKey) {
        transaction.key = Some(key);
    }

    fn backend(transaction: &FencedTransaction) -> Option<i64> {
        transaction.begun.as_ref()?.session.backend
    }

    fn commit_tried<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        tried: Tried<'t>,
    ) -> BoxFuture<'t, Result<(), NotCommitted>> {
        Box::pin(async move {
            let xid = tried.key.xid;
            let Some(begun) = &transaction.begun else {
                let error = Error::Broken {
                    reason: "it has not begun as a try".to_owned(),
                };
                return Err(NotCommitted {
                    error,
                    certain: true,
                });
            };
            let insert = format!(
                "INSERT INTO {} (xid, branch_id, status, resource, payload, created) \
                 VALUES ({}, {}, {}, {}, {}, {})",
                quote_qualified(self.database(), "accede_fence"),
                tried.key.xid_column(),
                tried.key.branch_column(),
                Status::Tried.column(),
                text(tried.resource),
                tried.payload.map_or_else(|| "NULL".to_owned(), bytes),
                in_time(&begun.session, begun.at, tried.sent, tried.give_up),
            );
            let backend = begun.session.backend;
            let commit = send_commit(
                transaction.held.get(),
                session::commit(&insert),
                BEFORE_COMMIT,
            );
            let committed = Watch::new(self, Some(xid), backend).over(commit).await;
            match committed {
                Ok(()) => {
                    transaction.held.clean();
                    Ok(())
                }
                Err((error, certain)) => {
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
        // One that is there is locked at once and exclusively, so that two of us never wait for
        // each other, and shown as it is.
        let insert = enter(key, resource, Status::Barred, "accede_fence");
        let message = format!("START TRANSACTION; {insert}");
        Box::pin(async move {
            let lent = self.lend_to_finish().await;
            let mut held = lent.map_err(|error| failure(&error))?;
            held.soil();
            let rows = sqlx::raw_sql(AssertSqlSafe(message))
                .fetch_all(held.get())
                .await
                .map_err(|error| failure(&error))?;
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
            let table = quote_qualified(self.database(), "accede_fence");
            let message = enter(key, resource, Status::Running, &table);
            let rows = sqlx::raw_sql(AssertSqlSafe(message))
                .fetch_all(transaction.held.get())
                .await
                .map_err(|error| failure(&error))?;
            status(&rows)
        })
    }

    fn payload<'t>(
        &'t self,
        transaction: &'t mut FencedTransaction,
        key: BranchKey,
    ) -> BoxFuture<'t, Result<Option<Vec<u8>>, PhaseTwoError>> {
        let select = format!(
            "SELECT payload FROM {} WHERE xid = ? AND branch_id = ? FOR UPDATE",
            quote_qualified(self.database(), "accede_fence"),
        );
        Box::pin(async move {
            let payload = sqlx::query_scalar(AssertSqlSafe(select))
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
        let table = quote_qualified(self.database(), "accede_fence");
        let update = status.map_or_else(String::new, |status| {
            let payload = payload.map_or_else(String::new, |payload| {
                format!(", payload = X'{}'", hex(payload))
            });
            format!(
                "UPDATE {table} SET status = {}, created = SYSDATE(6){payload} \
                 WHERE xid = {} AND branch_id = {}; ",
                status.column(),
                key.xid_column(),
                key.branch_column(),
            )
        });
        // A step is done on a connection of the application's, which must not go on without
        // autocommit.
        let commit = match transaction.begun {
            Some(_) => session::COMMIT,
            None => "COMMIT",
        };
        Box::pin(async move {
            sqlx::raw_sql(AssertSqlSafe(format!("{update}{commit}")))
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
            let rows = sqlx::query_as(PROMISES)
                .bind(resource)
                .bind(i64::try_from(older_than.as_micros()).unwrap_or(i64::MAX / 2))
                .bind(limit as u64)
                .fetch_all(self.phase_two())
                .await
                .map_err(|error| failure(&error))?;
            Ok(rows.into_iter().filter_map(Promise::read).collect())
        })
    }

    fn roll_back(transaction: &mut FencedTransaction) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let of_try = transaction.begun.is_some();
            if !of_try || transaction.held.roll_back().await.is_err() {
                // The settings of connections that finish branches are this library's own.
                transaction.held.close().await;
            }
        })
    }

    fn failure(error: &sqlx::Error) -> PhaseTwoError {
        not_definite(failure(error), error)
    }
}

/// Writes a branch's row with this status if it is not there, locks it, and shows its status.
fn enter(key: BranchKey, resource: &str, otherwise: Status, table: &str) -> String {
    format!(
        "INSERT INTO {table} (xid, branch_id, status, resource, created) \
         VALUES ({}, {}, {}, {}, SYSDATE(6)) \
         ON DUPLICATE KEY UPDATE xid = VALUES(xid) RETURNING status",
        key.xid_column(),
        key.branch_column(),
        otherwise.column(),
        text(resource),
    )
}

fn status(rows: &[MySqlRow]) -> Result<Status, PhaseTwoError> {
    let row = rows.last().ok_or_else(|| PhaseTwoError::Failed {
        reason: "the database did not show the branch's row of accede_fence".to_owned(),
    })?;
    Status::read(row.try_get(0).map_err(|error| failure(&error))?)
}

/// A text in a message, whatever is in it.
pub(super) fn text(value: &str) -> String {
    format!("CONVERT({} USING utf8mb4)", bytes(value.as_bytes()))
}

/// Bytes in a message.
fn bytes(value: &[u8]) -> String {
    format!("X'{}'", hex(value))
}
