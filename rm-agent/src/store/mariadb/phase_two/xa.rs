//! Finishing prepared transactions.
//!
//! The prepared transaction itself says that a branch is not finished yet, and its row in
//! `accede_fence`, which becomes visible with its commit, that it was committed. So everything
//! here may run twice, and in two processes at once.
//!
//! As long as the session lives that prepared a transaction, others are told that there is none of
//! this name, although it is in the list. So nothing is taken for gone unless the list says so,
//! twice.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _, mysql::MySqlRow};
use tokio::time::sleep;

use super::{
    super::{
        connection::Held,
        error_number,
        failure::connection_is_lost,
        fence::text,
        pool::AtPool,
        session::XA_SETTINGS,
        xa::{Names, XaName},
    },
    failure,
};
use crate::{
    agent::Ended,
    error::Error,
    limits,
    store::{
        finish::{BranchKey, PhaseTwoError, PreparedOne, PreparedOnes, UndoPolicy},
        xa::{
            BARRED,
            judge::commit_without,
            orders::{self, Finds, Search},
        },
    },
};

/// What there is of a branch that could not be ended.
enum Look {
    /// It is prepared, in the hands of another session.
    Prepared,
    /// It is not; the status of its row in `accede_fence`, if there is one.
    Gone(Option<i16>),
}

/// Commits a branch. Durable when it returns; a repeat finds the branch's row and does nothing.
pub(crate) async fn commit_prepared(
    pool: &AtPool,
    key: BranchKey,
    payload: &[u8],
) -> Result<(), PhaseTwoError> {
    let name = name(pool, key, payload).await?;
    let mut gone = false;
    for attempt in 0..limits::XA_BAR_ATTEMPTS {
        if attempt > 0 {
            sleep(limits::XA_LOOK_AGAIN).await;
        }
        if end(pool, key, "COMMIT", &name).await? {
            return Ok(());
        }
        let mut held = lend(pool).await?;
        match look(&mut held, pool, key, &name).await? {
            // A session that ends hands it over, for which it may leave the list.
            Look::Gone(None) if !gone => gone = true,
            Look::Gone(status) => return commit_without(key, &name.to_string(), status),
            Look::Prepared => gone = false,
        }
    }
    Err(held_elsewhere(&name))
}

/// Rolls a branch back, and keeps it from being prepared later. Durable when it returns.
pub(crate) async fn roll_back_prepared(
    pool: &AtPool,
    key: BranchKey,
    payload: &[u8],
    policy: UndoPolicy,
) -> Result<(), PhaseTwoError> {
    orders::roll_back(pool, key, payload, policy).await
}

/// Prepares a branch that may be open. Durable when it returns, as its refusal is.
pub(crate) async fn prepare_open(
    pool: &AtPool,
    key: BranchKey,
    payload: &[u8],
) -> Result<Ended, PhaseTwoError> {
    orders::prepare_open(pool, key, payload).await
}

/// Commits a branch that may be open in one phase. Durable when it returns, as its refusal is.
pub(crate) async fn commit_open(
    pool: &AtPool,
    key: BranchKey,
    payload: &[u8],
) -> Result<Ended, PhaseTwoError> {
    orders::commit_open(pool, key, payload).await
}

impl Finds for AtPool {
    type Search = InDatabase;

    async fn search(&self, key: BranchKey, payload: &[u8]) -> Result<InDatabase, PhaseTwoError> {
        Ok(InDatabase {
            name: name(self, key, payload).await?,
            pool: self.clone(),
            key,
        })
    }
}

/// A branch that is looked for.
pub(in crate::store) struct InDatabase {
    pool: AtPool,
    key: BranchKey,
    name: XaName,
}

impl Search for InDatabase {
    const COMMITS_BY_HAND: &'static str = "XA COMMIT";

    async fn is_prepared(&mut self) -> Result<bool, PhaseTwoError> {
        is_listed(&mut lend(&self.pool).await?, &self.pool, &self.name).await
    }

    async fn commit(&mut self) -> Result<bool, PhaseTwoError> {
        end(&self.pool, self.key, "COMMIT", &self.name).await
    }

    async fn roll_back(&mut self) -> Result<bool, PhaseTwoError> {
        end(&self.pool, self.key, "ROLLBACK", &self.name).await
    }

    async fn bar(&mut self) -> Result<Option<i16>, PhaseTwoError> {
        bar(&mut lend(&self.pool).await?, &self.pool, self.key).await
    }

    async fn pause(&mut self) {
        sleep(limits::XA_LOOK_AGAIN).await;
    }

    fn in_the_way(&self) -> PhaseTwoError {
        held_elsewhere(&self.name)
    }
}

fn held_elsewhere(name: &XaName) -> PhaseTwoError {
    PhaseTwoError::Failed {
        reason: format!(
            "the session that prepares or has prepared {name} still holds it; it will be tried \
             again, and that session ends after {:?} of silence",
            limits::XA_SESSION_SILENCE
        ),
    }
}

async fn lend(pool: &AtPool) -> Result<Held, PhaseTwoError> {
    pool.lend_to_finish().await.map_err(|error| failure(&error))
}

async fn names(pool: &AtPool) -> Result<&Names, PhaseTwoError> {
    let names = pool.xa_known().names(pool).await;
    names.map_err(|error| match error {
        Error::Database { source, .. } => failure(&source),
        other => PhaseTwoError::Failed {
            reason: other.to_string(),
        },
    })
}

async fn name(pool: &AtPool, key: BranchKey, payload: &[u8]) -> Result<XaName, PhaseTwoError> {
    let names = names(pool).await?;
    match payload.try_into() {
        Ok(token) => Ok(names.of(key.xid, u64::from_be_bytes(token))),
        Err(_) => Err(PhaseTwoError::stuck(format!(
            "the order for branch {} of transaction {} names no prepared transaction: its payload \
             has {} bytes, not 8; update the service, then repair with retry",
            key.branch,
            key.xid,
            payload.len()
        ))),
    }
}

/// Ends a prepared transaction by `verb`; false if no session but perhaps another one can.
async fn end(
    pool: &AtPool,
    key: BranchKey,
    verb: &str,
    name: &XaName,
) -> Result<bool, PhaseTwoError> {
    if let Some(mut held) = pool.parked().take(key) {
        let message = format!("XA {verb} {name}; {XA_SETTINGS}");
        let ended = sqlx::raw_sql(AssertSqlSafe(message)).execute(held.get());
        match ended.await {
            Ok(_) => {
                held.session().xa = None;
                held.clean();
                return Ok(true);
            }
            // It is closed, and the others are asked.
            Err(error) => tracing::debug!(%name, %error, "a parked session did not end it"),
        }
        held.close().await;
    }
    let mut held = lend(pool).await?;
    let message = format!("XA {verb} {name}");
    // A connection that was at hand may be gone: sent twice, it finds what it did.
    let send = held.first(pool.phase_two(), connection_is_lost, |connection, _| {
        Box::pin(sqlx::raw_sql(AssertSqlSafe(message.clone())).execute(connection))
    });
    match send.await {
        Ok(_) => {
            held.clean();
            Ok(true)
        }
        Err(error) if error_number(&error) == Some(1397) => {
            held.clean();
            Ok(false)
        }
        Err(error) => Err(failure(&error)),
    }
}

/// Looks for a branch in the list of what is prepared, then for its row.
async fn look(
    held: &mut Held,
    pool: &AtPool,
    key: BranchKey,
    name: &XaName,
) -> Result<Look, PhaseTwoError> {
    if is_listed(held, pool, name).await? {
        return Ok(Look::Prepared);
    }
    let read = format!(
        "SELECT status FROM accede_fence WHERE xid = {} AND branch_id = {}",
        key.xid_column(),
        key.branch_column()
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(read))
        .fetch_all(held.get())
        .await
        .map_err(|error| failure(&error))?;
    held.clean();
    let status = rows.first().map(|row: &MySqlRow| row.try_get(0));
    let status = status.transpose().map_err(|error| failure(&error))?;
    Ok(Look::Gone(status))
}

/// A row of `XA RECOVER`.
struct Listed {
    format: i64,
    transaction: Vec<u8>,
    branch: Vec<u8>,
}

impl Listed {
    fn read(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        let length = |column| -> Result<usize, sqlx::Error> {
            Ok(usize::try_from(row.try_get_unchecked::<i64, _>(column)?).unwrap_or_default())
        };
        let mut transaction: Vec<u8> = row.try_get_unchecked(3)?;
        let at = length(1)?.min(transaction.len());
        let branch = transaction.split_off(at);
        Ok(Self {
            format: row.try_get_unchecked(0)?,
            transaction,
            branch,
        })
    }

    /// If it is of this cluster and database.
    fn name(&self, names: &Names) -> Option<(accede_proto::Xid, XaName)> {
        match self.format {
            1 => names.read(&self.transaction, &self.branch),
            _ => None,
        }
    }
}

/// Whether it is prepared, in whose hands ever.
async fn is_listed(held: &mut Held, pool: &AtPool, name: &XaName) -> Result<bool, PhaseTwoError> {
    let listed = listed(held).await?;
    let names = names(pool).await?;
    let is_it = |row: &Listed| row.name(names).is_some_and(|(_, found)| found == *name);
    Ok(listed.iter().any(is_it))
}

/// All prepared transactions of the server.
async fn listed(held: &mut Held) -> Result<Vec<Listed>, PhaseTwoError> {
    held.soil();
    let rows = sqlx::raw_sql("XA RECOVER")
        .fetch_all(held.get())
        .await
        .map_err(|error| failure(&error))?;
    held.clean();
    let listed = rows.iter().map(Listed::read).collect::<Result<_, _>>();
    listed.map_err(|error| failure(&error))
}

/// Makes sure that a branch which is not prepared never will be. The status of its row; `None` if
/// an agent prepares it at this moment, or has done so.
async fn bar(held: &mut Held, pool: &AtPool, key: BranchKey) -> Result<Option<i16>, PhaseTwoError> {
    // One that is there is locked at once and exclusively, so that two of us never wait for each
    // other, and left as it is. One whose transaction has not ended is not waited for: whoever
    // waits for a key keeps its neighbours out.
    let message = format!(
        "START TRANSACTION; SET STATEMENT innodb_lock_wait_timeout = 0 FOR \
         INSERT INTO accede_fence (xid, branch_id, status, resource, created) \
         VALUES ({}, {}, {BARRED}, {}, SYSDATE(6)) \
         ON DUPLICATE KEY UPDATE xid = VALUES(xid) RETURNING status; COMMIT",
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
            // The settings of connections that finish branches are this library's own.
            held.close().await;
            return match error_number(&error) {
                Some(1205 | 1213) => Ok(None),
                _ => Err(failure(&error)),
            };
        }
    };
    held.clean();
    let status = rows.first().map(|row| row.try_get(0));
    match status.transpose().map_err(|error| failure(&error))? {
        Some(status) => Ok(Some(status)),
        None => Err(PhaseTwoError::Failed {
            reason: "the database did not show the branch's row of accede_fence".to_owned(),
        }),
    }
}

/// Prepared transactions of this cluster in this database, at most `limit` of those that were seen
/// first before `older_than`, and how many the server has. It knows no limit, and no ages.
pub(crate) async fn prepared(
    pool: &AtPool,
    older_than: Duration,
    limit: usize,
) -> Result<PreparedOnes, PhaseTwoError> {
    let names = match pool.xa_known().names(pool).await {
        // Without a cluster, nothing is ours.
        Err(Error::Configuration(_)) => return Ok(PreparedOnes::default()),
        _ => self::names(pool).await?,
    };
    let mut held = lend(pool).await?;
    let listed = listed(&mut held).await?;
    let ours: Vec<_> = listed.iter().filter_map(|row| row.name(names)).collect();
    let texts: Vec<String> = ours.iter().map(|(_, name)| name.to_string()).collect();
    let ages = pool.xa_known().ages(&texts);
    let mut old: Vec<PreparedOne> = ours
        .iter()
        .zip(texts)
        .zip(&ages)
        .filter(|(_, age)| **age >= older_than)
        .map(|(((xid, _), name), age)| PreparedOne {
            xid: *xid,
            branch: None,
            name,
            age: *age,
        })
        .collect();
    old.sort_by_key(|one| std::cmp::Reverse(one.age));
    old.truncate(limit.min(limits::PHASE_TWO_BATCH));
    Ok(PreparedOnes {
        old,
        ours: ours.len() as u64,
        oldest: ages.iter().max().copied().unwrap_or_default(),
        used: listed.len() as u64,
        most: 0,
    })
}
