//! What was left behind in the undo log, and whose database this is.

use std::time::Duration;

use accede_proto::Xid;
use sqlx::{Row as _, SqlitePool};
use uuid::Uuid;

use super::{super::pool::AtPool, NOW, begin, commit, failure};
use crate::{
    error::Error,
    limits,
    store::finish::{
        BranchKey, LIVE, Ledger, Leftover, LeftoverKind, Meta, PRE_COMMITTED, PhaseTwoError,
    },
};

/// Rows at least `older_than` old, in key order from the key after `after`, at most
/// `limit`.
pub(crate) async fn leftovers(
    pool: &SqlitePool,
    ledger: Ledger,
    older_than: Duration,
    after: Option<BranchKey>,
    limit: usize,
) -> Result<Vec<Leftover>, PhaseTwoError> {
    let millis = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX / 2);
    let (xid, branch) = after.map_or((0, 0), |key| (key.xid_column(), key.branch_column()));
    let Ledger {
        table,
        status,
        time,
    } = ledger;
    let sql = format!(
        "SELECT xid, branch_id, {status}, MAX(0, {NOW} - {time})
         FROM {table} WHERE {NOW} - {time} >= ? AND (xid, branch_id) > (?, ?)
         ORDER BY xid, branch_id LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(millis)
        .bind(xid)
        .bind(branch)
        .bind(i64::try_from(limit.min(limits::PHASE_TWO_BATCH)).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await
        .map_err(|error| failure(&error))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let read = || -> Result<(i64, i32, i16, i64), sqlx::Error> {
            Ok((
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ))
        };
        let (xid, branch, status, age_ms) = read().map_err(|error| failure(&error))?;
        let Some(xid) = u64::try_from(xid).ok().and_then(Xid::from_u64) else {
            continue;
        };
        found.push(Leftover {
            key: BranchKey {
                xid,
                branch: u32::try_from(branch).unwrap_or_default(),
            },
            kind: LeftoverKind::of(status),
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()),
        });
    }
    Ok(found)
}

/// Deletes markers and defence rows (never undo records) of transactions that have
/// ended. A branch that could still run into one has begun before it was written, which
/// the write lock of the branch does not allow.
pub(crate) async fn purge_markers(
    pool: &AtPool,
    ledger: Ledger,
    branches: &[BranchKey],
) -> Result<(), PhaseTwoError> {
    let Ledger { table, status, .. } = ledger;
    let sql = format!(
        "DELETE FROM main.{table} WHERE xid = ? AND branch_id = ? AND {status} NOT IN ({LIVE}, {PRE_COMMITTED})"
    );
    for branches in branches.chunks(limits::PHASE_TWO_BATCH) {
        let mut held = begin(pool).await?;
        for key in branches {
            sqlx::query(sqlx::AssertSqlSafe(sql.as_str()))
                .bind(key.xid_column())
                .bind(key.branch_column())
                .execute(held.get())
                .await
                .map_err(|error| failure(&error))?;
        }
        commit(held).await?;
    }
    Ok(())
}

/// Reads `accede_meta`.
pub(crate) async fn read_meta(pool: &SqlitePool) -> Result<Meta, Error> {
    let failed = || Error::database("reading accede_meta");
    let row = sqlx::query("SELECT database_id, cluster_id FROM accede_meta")
        .fetch_optional(pool)
        .await
        .map_err(failed())?
        .ok_or_else(|| Error::Schema {
            reason: "accede_meta is empty".to_owned(),
        })?;
    let parse = |text: &str| {
        Uuid::parse_str(text).map_err(|error| Error::Schema {
            reason: format!("accede_meta holds an id that is no UUID: {error}"),
        })
    };
    let cluster: Option<&str> = row.try_get(1).map_err(failed())?;
    Ok(Meta {
        database_id: parse(row.try_get(0).map_err(failed())?)?,
        cluster_id: cluster.map(parse).transpose()?,
    })
}

/// Ties the database to a cluster, unless it belongs to another one already.
pub(crate) async fn claim_cluster(pool: &SqlitePool, cluster_id: [u8; 16]) -> Result<(), Error> {
    let cluster_id = Uuid::from_bytes(cluster_id);
    sqlx::query("UPDATE accede_meta SET cluster_id = ? WHERE cluster_id IS NULL")
        .bind(cluster_id.to_string())
        .execute(pool)
        .await
        .map_err(Error::database("tying the database to its cluster"))?;
    match read_meta(pool).await?.cluster_id {
        Some(found) if found != cluster_id => Err(Error::OtherCluster {
            found,
            expected: cluster_id,
        }),
        _ => Ok(()),
    }
}
