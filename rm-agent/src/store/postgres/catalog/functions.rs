//! Which functions may write.

use sqlx::PgConnection;

use super::quoted_name;
use crate::at::statement::TableName;

/// Functions of this name that may write; with a dot in front only those that are
/// called like a column of a row.
const VOLATILE_SQL: &str = "
SELECT DISTINCT name
FROM unnest($1::text[]) name JOIN pg_catalog.pg_proc p
  ON p.proname = ltrim(name, '.')
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.provolatile = 'v'
  AND (name NOT LIKE '.%' OR p.pronargs = 1 AND EXISTS (
        SELECT FROM pg_catalog.pg_type t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p')))
  AND NOT (n.nspname = 'pg_catalog' AND p.proname = ANY($3))
  AND NOT (l.lanname = 'c' AND p.proname = ANY($2))";

/// Functions that may write behind views of these names, at any depth. What views
/// need of the system catalog is not recorded there; it stands in their text.
const BEHIND_VIEWS_SQL: &str = r"
WITH RECURSIVE used(oid) AS (
  SELECT to_regclass(name)::oid FROM unnest($1::text[]) name
  UNION
  SELECT d.refobjid FROM used
  JOIN pg_catalog.pg_rewrite r ON r.ev_class = used.oid AND r.ev_type = '1'
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
       AND d.refclassid = 'pg_catalog.pg_class'::regclass
), views AS (
  SELECT used.oid, pg_catalog.pg_get_viewdef(used.oid) AS text FROM used
  JOIN pg_catalog.pg_class c ON c.oid = used.oid
  WHERE c.relkind = 'v' AND c.relnamespace <> 'pg_catalog'::regnamespace
)
SELECT p.proname::text FROM views
JOIN pg_catalog.pg_rewrite r ON r.ev_class = views.oid
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
     AND d.refclassid = 'pg_catalog.pg_proc'::regclass
JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.provolatile = 'v' AND l.lanname NOT IN ('internal', 'c')
UNION
SELECT p.proname::text FROM views
CROSS JOIN LATERAL regexp_matches(views.text, '([a-z0-9_]+)\(', 'g') call
JOIN pg_catalog.pg_proc p ON p.proname = call[1] AND p.pronamespace = 'pg_catalog'::regnamespace
WHERE p.provolatile = 'v' AND NOT p.proname = ANY($2)";

/// Built-in functions that are volatile and write nothing that an undo would have
/// to bring back: they read what changes by itself, wait, take locks that end with
/// the transaction, or draw numbers that are never given back anyway.
pub(in crate::store::postgres) const HARMLESS_BUILT_INS: &[&str] = &[
    "bernoulli",
    "clock_timestamp",
    "current_query",
    "currtid2",
    "currval",
    "gen_random_uuid",
    "lastval",
    "nextval",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_blocking_pids",
    "pg_database_size",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_last_committed_xact",
    "pg_lock_status",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_prepared_xact",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_xact_commit_timestamp",
    "pg_xact_commit_timestamp_origin",
    "pg_xact_status",
    "random",
    "setseed",
    "system",
    "timeofday",
    "txid_status",
];

/// Volatile functions of extensions that come with PostgreSQL and write nothing.
const HARMLESS_EXTENSION_FUNCTIONS: &[&str] = &[
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "gen_random_uuid",
    "gen_random_bytes",
    "gen_salt",
];

/// Those of `names` that may write, so far as the catalog tells.
pub(in crate::store::postgres) async fn volatile_functions(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    let harmless: Vec<String> = HARMLESS_EXTENSION_FUNCTIONS
        .iter()
        .map(|&name| name.to_owned())
        .collect();
    sqlx::query_scalar(VOLATILE_SQL)
        .bind(names)
        .bind(harmless)
        .bind(HARMLESS_BUILT_INS)
        .fetch_all(connection)
        .await
}

/// Functions behind the views among these tables that may write, so far as the
/// catalog tells.
pub(in crate::store::postgres) async fn functions_behind(
    connection: &mut PgConnection,
    tables: &[&TableName],
) -> Result<Vec<String>, sqlx::Error> {
    let names: Vec<String> = tables.iter().map(|name| quoted_name(name)).collect();
    sqlx::query_scalar(BEHIND_VIEWS_SQL)
        .bind(names)
        .bind(HARMLESS_BUILT_INS)
        .fetch_all(connection)
        .await
}
