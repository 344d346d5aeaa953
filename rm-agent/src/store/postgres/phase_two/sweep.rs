//! What was left behind in undo log and fences, and whose database this is.

use std::time::Duration;

use accede_proto::Xid;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use super::{columns_of, is_of_branches};
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
    pool: &PgPool,
    ledger: Ledger,
    older_than: Duration,
    after: Option<BranchKey>,
    limit: usize,
) -> Result<Vec<Leftover>, PhaseTwoError> {
    if ledger == Ledger::FENCES {
        // Databases of before do not have the table, and need it only for what keeps fences.
        let there: bool = sqlx::query_scalar("SELECT to_regclass('accede_fence') IS NOT NULL")
            .fetch_one(pool)
            .await?;
        if !there {
            return Ok(Vec::new());
        }
    }
    let Ledger {
        table,
        status,
        time,
    } = ledger;
    let sql = format!(
        "SELECT xid, branch_id, {status},
                greatest(0, extract(epoch FROM clock_timestamp() - {time}) * 1000)::bigint
         FROM {table}
         WHERE {time} <= clock_timestamp() - $1 * interval '1 millisecond'
           AND (xid, branch_id) > ($2, $3)
         ORDER BY xid, branch_id LIMIT $4"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(older_than.as_millis() as f64)
        .bind(after.map_or(0, BranchKey::xid_column))
        .bind(after.map_or(0, BranchKey::branch_column))
        .bind(limit.min(limits::PHASE_TWO_BATCH) as i64)
        .fetch_all(pool)
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (xid, branch): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
        let Some(xid) = u64::try_from(xid).ok().and_then(Xid::from_u64) else {
            continue;
        };
        let age_ms: i64 = row.try_get(3)?;
        found.push(Leftover {
            key: BranchKey {
                xid,
                branch: u32::try_from(branch).unwrap_or_default(),
            },
            kind: LeftoverKind::of(row.try_get(2)?),
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()),
        });
    }
    Ok(found)
}

/// Deletes markers and defence rows (never undo records) of transactions that
/// have ended. Rows that an older local transaction may still run into stay.
pub(crate) async fn purge_markers(
    pool: &PgPool,
    ledger: Ledger,
    branches: &[BranchKey],
) -> Result<(), PhaseTwoError> {
    let (xids, numbers) = columns_of(branches);
    let Ledger {
        table,
        status,
        time,
    } = ledger;
    let rows = is_of_branches(table);
    let sql = format!(
        "DELETE FROM {table} WHERE {status} NOT IN ($3, $4) AND {rows}
           AND {time} < coalesce(
               (SELECT min(a.xact_start) FROM pg_catalog.pg_stat_activity a
                WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()), 'infinity')"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(xids)
        .bind(numbers)
        .bind(LIVE)
        .bind(PRE_COMMITTED)
        .execute(pool)
        .await?;
    Ok(())
}

/// Reads `accede_meta`.
pub(crate) async fn read_meta(pool: &PgPool) -> Result<Meta, Error> {
    let failed = || Error::database("reading accede_meta");
    let row = sqlx::query("SELECT database_id::text, cluster_id::text FROM accede_meta")
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
pub(crate) async fn claim_cluster(pool: &PgPool, cluster_id: [u8; 16]) -> Result<(), Error> {
    let cluster_id = Uuid::from_bytes(cluster_id);
    sqlx::query("UPDATE accede_meta SET cluster_id = $1::text::uuid WHERE cluster_id IS NULL")
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
