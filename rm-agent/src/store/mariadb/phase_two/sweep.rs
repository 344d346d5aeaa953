//! What was left behind in the undo log, and whose database this is.

use std::time::Duration;

use accede_proto::Xid;
use sqlx::{MySqlPool, Row as _};
use uuid::Uuid;

use super::{super::error_number, failure, keys_condition};
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
    pool: &MySqlPool,
    ledger: Ledger,
    older_than: Duration,
    after: Option<BranchKey>,
    limit: usize,
) -> Result<Vec<Leftover>, PhaseTwoError> {
    let micros = i64::try_from(older_than.as_micros()).unwrap_or(i64::MAX / 2);
    let (xid, branch) = after.map_or((0, 0), |key| (key.xid_column(), key.branch_column()));
    let Ledger {
        table,
        status,
        time,
    } = ledger;
    let sql = format!(
        "SELECT xid, branch_id, {status},
                CAST(GREATEST(0, TIMESTAMPDIFF(MICROSECOND, {time}, SYSDATE(6)) DIV 1000) AS SIGNED)
         FROM {table}
         WHERE TIMESTAMPDIFF(MICROSECOND, {time}, SYSDATE(6)) >= ?
           AND (xid > ? OR (xid = ? AND branch_id > ?))
         ORDER BY xid, branch_id LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(micros)
        .bind(xid)
        .bind(xid)
        .bind(branch)
        .bind(limit.min(limits::PHASE_TWO_BATCH) as u64)
        .fetch_all(pool)
        .await;
    let rows = match rows {
        // A database of before has no fences.
        Err(error) if ledger == Ledger::FENCES && error_number(&error) == Some(1146) => {
            return Ok(Vec::new());
        }
        rows => rows.map_err(|error| failure(&error))?,
    };
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
/// ended. Rows that a statement may still run into which has been running for longer
/// stay; those of other users are seen with the PROCESS privilege only.
pub(crate) async fn purge_markers(
    pool: &MySqlPool,
    ledger: Ledger,
    branches: &[BranchKey],
) -> Result<(), PhaseTwoError> {
    for branches in branches.chunks(limits::PHASE_TWO_BATCH) {
        let Ledger {
            table,
            status,
            time,
        } = ledger;
        let sql = format!(
            "DELETE FROM {table} WHERE {status} NOT IN ({LIVE}, {PRE_COMMITTED}) AND ({})
             AND {time} < SYSDATE(6) - INTERVAL
               (SELECT COALESCE(MAX(p.TIME_MS), 0) * 1000 FROM information_schema.PROCESSLIST p
                WHERE p.ID <> CONNECTION_ID()
                  AND p.COMMAND NOT IN ('Sleep', 'Daemon', 'Binlog Dump')) MICROSECOND",
            keys_condition(branches.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).persistent(false);
        for key in branches {
            query = query.bind(key.xid_column()).bind(key.branch_column());
        }
        query.execute(pool).await.map_err(|error| failure(&error))?;
    }
    Ok(())
}

/// Reads `accede_meta`.
pub(crate) async fn read_meta(pool: &MySqlPool) -> Result<Meta, Error> {
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
pub(crate) async fn claim_cluster(pool: &MySqlPool, cluster_id: [u8; 16]) -> Result<(), Error> {
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
