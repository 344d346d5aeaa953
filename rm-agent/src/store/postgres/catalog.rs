//! Reads from PostgreSQL's catalog what AT must know about a table.

use std::sync::Arc;

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use crate::{
    at::{
        statement::TableName,
        table::{
            Column, Equality, IncomingKey, ReferentialAction, Table, UniqueIndex, quote,
            quote_qualified,
        },
    },
    error::Error,
};

/// Tables of this library; a branch that changed them would change its own record.
const OWN_TABLES: &[&str] = &["undo_log", "accede_meta"];

/// A property of a table that keeps AT from writing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) part: String,
    pub(super) advice: &'static str,
}

/// A table with what the application may have to decide about it.
#[derive(Debug)]
pub(super) struct TableInfo {
    pub(super) table: Arc<Table>,
    pub(super) obstacle: Option<Obstacle>,
    /// Enabled triggers of the application.
    pub(super) triggers: Vec<String>,
    /// Functions of the application that its defaults and checks call, and that may write.
    pub(super) functions: Vec<String>,
}

const TABLE_SQL: &str = "
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       row_security_active(c.oid),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid),
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
       ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger t
             JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
             WHERE (t.tgrelid = c.oid OR t.tgparentid = 0 AND t.tgrelid IN (
                      SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))
               AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
               -- They look at nothing but the row.
               AND NOT (p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN (
                 'suppress_redundant_updates_trigger', 'tsvector_update_trigger',
                 'tsvector_update_trigger_column'))
             ORDER BY 1),
       ARRAY(SELECT DISTINCT p.proname::text FROM (
               SELECT x.refobjid AS id FROM pg_catalog.pg_attrdef d
               JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_attrdef'::regclass
                    AND x.objid = d.oid AND x.refclassid = 'pg_catalog.pg_proc'::regclass
               WHERE d.adrelid = c.oid
               UNION ALL
               SELECT x.refobjid FROM pg_catalog.pg_constraint k
               JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_constraint'::regclass
                    AND x.objid = k.oid AND x.refclassid = 'pg_catalog.pg_proc'::regclass
               WHERE k.conrelid = c.oid OR k.contypid IN (
                 SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = c.oid)
             ) f
             JOIN pg_catalog.pg_proc p ON p.oid = f.id
             JOIN pg_catalog.pg_language l ON l.oid = p.prolang
             WHERE p.provolatile = 'v' AND l.lanname NOT IN ('internal', 'c')
             ORDER BY 1),
       (SELECT quote_ident(rn.nspname) || '.' || quote_ident(r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
        WHERE c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)),
       ARRAY(SELECT relid::oid::int8 FROM pg_catalog.pg_partition_tree(c.oid) WHERE isleaf),
       (SELECT CASE
                 WHEN p.relkind = 'f' THEN 'is a foreign table'
                 WHEN p.relpersistence <> 'p' THEN 'is unlogged or temporary'
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_index i
                              JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                              WHERE i.indrelid = p.oid AND NOT x.relispartition
                                AND (i.indisunique OR i.indisexclusion))
                   THEN 'has a unique index of its own'
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k
                              WHERE k.contype = 'f' AND k.confrelid = p.oid AND k.conparentid = 0)
                   THEN 'is referenced by a foreign key of its own'
               END AS why
        FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class p ON p.oid = t.relid
        WHERE t.relid <> c.oid ORDER BY why LIMIT 1)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1)";

const COLUMNS_SQL: &str = "
SELECT a.attname::text, a.atttypid::int8,
       quote_ident(tn.nspname) || '.' || quote_ident(t.typname),
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END::int8,
       CASE WHEN t.typtype = 'd' THEN b.typtype ELSE t.typtype END::text,
       a.attgenerated::text, a.attidentity::text, a.atttypmod,
       coalesce(l.collisdeterministic, true),
       k.needs_text OR k.has_xml,
       k.has_binary_form,
       k.has_xml AND coalesce(b.oid, t.oid) <> 142 AND t.oid <> 143
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
CROSS JOIN LATERAL (
  WITH RECURSIVE parts(id) AS (
    SELECT a.atttypid
    UNION
    SELECT x.id FROM parts JOIN pg_catalog.pg_type p ON p.oid = parts.id
    CROSS JOIN LATERAL (
      SELECT p.typelem WHERE p.typcategory = 'A' AND p.typelem <> 0
      UNION ALL
      SELECT p.typbasetype WHERE p.typtype = 'd'
      UNION ALL
      SELECT f.atttypid FROM pg_catalog.pg_attribute f
      WHERE p.typtype = 'c' AND f.attrelid = p.typrelid AND f.attnum > 0 AND NOT f.attisdropped
      UNION ALL
      SELECT r.rngsubtype FROM pg_catalog.pg_range r
      WHERE p.oid IN (r.rngtypid, r.rngmultitypid)
    ) x(id)
  )
  SELECT bool_or(y.typtype = 'm' OR y.oid IN (22, 30)) AS needs_text, bool_or(y.oid = 142) AS has_xml,
         bool_and(y.typsend <> 0 AND y.typreceive <> 0
                  AND y.typreceive::text !~ '^(pg|brin)_.*_recv$'
                  OR y.typname IN ('pg_lsn', 'pg_snapshot')) AS has_binary_form
  FROM parts JOIN pg_catalog.pg_type y ON y.oid = parts.id
) k
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

const INDEXES_SQL: &str = "
SELECT x.relname::text, i.indisprimary,
       ARRAY(SELECT a.attname::text
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, ord)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
             WHERE k.ord <= i.indnkeyatts ORDER BY k.ord),
       i.indexprs IS NOT NULL OR i.indisexclusion
       OR EXISTS (SELECT FROM unnest(i.indcollation) u(id)
                  JOIN pg_catalog.pg_collation l ON l.oid = u.id WHERE NOT l.collisdeterministic)
       OR EXISTS (SELECT FROM unnest(i.indclass) u(id)
                  JOIN pg_catalog.pg_opclass o ON o.oid = u.id WHERE NOT o.opcdefault),
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid = $1::int8::oid AND (i.indisunique OR i.indisexclusion)
ORDER BY x.relname";

const INCOMING_SQL: &str = "
SELECT k.conname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num
             ORDER BY u.ord),
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num
             ORDER BY u.ord),
       k.confdeltype::text, k.confupdtype::text
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = $1::int8::oid
ORDER BY k.conname";

/// Functions of this name that may write.
const VOLATILE_SQL: &str = "
SELECT DISTINCT p.proname::text
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.proname = ANY($1) AND p.provolatile = 'v'
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
pub(super) const HARMLESS_BUILT_INS: &[&str] = &[
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
pub(super) async fn volatile_functions(
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
pub(super) async fn functions_behind(
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

fn quoted_name(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => quote_qualified(schema, &name.name),
        None => quote(&name.name),
    }
}

/// Reads a table; `None` if there is none of that name.
pub(super) async fn read_table(
    connection: &mut PgConnection,
    name: &TableName,
) -> Result<Option<TableInfo>, sqlx::Error> {
    let row = sqlx::query(TABLE_SQL)
        .bind(quoted_name(name))
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let oid: i64 = row.try_get(0)?;
    let columns = sqlx::query(COLUMNS_SQL)
        .bind(oid)
        .fetch_all(&mut *connection)
        .await?;
    let indexes = sqlx::query(INDEXES_SQL)
        .bind(oid)
        .fetch_all(&mut *connection)
        .await?;
    let incoming = sqlx::query(INCOMING_SQL)
        .bind(oid)
        .fetch_all(&mut *connection)
        .await?;
    let mut obstacle = table_obstacle(&row)?;
    let leaves: Vec<i64> = row.try_get(11)?;
    let storage = leaves.into_iter().chain([oid]);
    let mut table = Table {
        oid: u32::try_from(oid).unwrap_or_default(),
        storage: storage.filter_map(|oid| u32::try_from(oid).ok()).collect(),
        schema: row.try_get::<String, _>(1)?.into(),
        name: row.try_get::<String, _>(2)?.into(),
        columns: Vec::with_capacity(columns.len()),
        key: Vec::new(),
        unique: Vec::new(),
        incoming: Vec::new(),
    };
    for column in &columns {
        table.columns.push(read_column(column)?);
        if obstacle.is_none() {
            obstacle = column_obstacle(column)?;
        }
    }
    for index in &indexes {
        add_index(&mut table, index)?;
    }
    for key in &incoming {
        let key = read_incoming(&table, key)?;
        table.incoming.push(key);
    }
    if table.key.is_empty() && obstacle.is_none() {
        obstacle = Some(Obstacle {
            part: "it has no primary key, so its rows cannot be told apart".to_owned(),
            advice: "add a primary key, or use XA mode",
        });
    }
    Ok(Some(TableInfo {
        table: Arc::new(table),
        obstacle,
        triggers: row.try_get(8)?,
        functions: row.try_get(9)?,
    }))
}

fn table_obstacle(row: &PgRow) -> Result<Option<Obstacle>, sqlx::Error> {
    let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    let (kind, persistence): (String, String) = (row.try_get(3)?, row.try_get(4)?);
    let partition_of: Option<String> = row.try_get(10)?;
    let partition: Option<String> = row.try_get(12)?;
    let found = |part: &str, advice| {
        Ok(Some(Obstacle {
            part: part.to_owned(),
            advice,
        }))
    };
    const NAME_BASE: &str = "write to its base table";
    match kind.as_str() {
        "r" | "p" => {}
        "v" | "m" => return found("it is a view", NAME_BASE),
        "f" => return found("it is a foreign table", "write to it in its own database"),
        _ => return found("it is no ordinary table", NAME_BASE),
    }
    if schema == "pg_catalog" || OWN_TABLES.contains(&name.as_str()) {
        return found("it is a system table", "leave it to its owner");
    }
    match persistence.as_str() {
        "t" => {
            return found(
                "it is temporary: phase two could not see it",
                "use an ordinary table",
            );
        }
        "u" => {
            return found(
                "it is unlogged: a crash would empty it",
                "use a logged table",
            );
        }
        _ => {}
    }
    if row.try_get(5)? {
        return found(
            "row-level security is active for this role",
            "use a role that bypasses it",
        );
    }
    if row.try_get(6)? {
        return found("it has rewrite rules", "drop the rules, or use XA mode");
    }
    if row.try_get(7)? {
        return found(
            "it has inheritance children",
            "write to a table without children",
        );
    }
    if let Some(root) = partition_of {
        return found(
            &format!("it is a partition of {root}, under whose name its rows are locked"),
            "write to the partitioned table",
        );
    }
    if let Some(why) = partition {
        return found(
            &format!("one of its partitions {why}"),
            "make its partitions alike, or use XA mode",
        );
    }
    Ok(None)
}

fn column_obstacle(row: &PgRow) -> Result<Option<Obstacle>, sqlx::Error> {
    let name: String = row.try_get(0)?;
    let part = if !row.try_get::<bool, _>(10)? {
        format!("its column {name} has a type without a binary form that can be written")
    } else if row.try_get(11)? {
        format!("its column {name} holds xml inside another type, whose declaration would be lost")
    } else {
        return Ok(None);
    };
    let advice = "change the column's type, or use XA mode";
    Ok(Some(Obstacle { part, advice }))
}

fn read_column(row: &PgRow) -> Result<Column, sqlx::Error> {
    let base_oid: i64 = row.try_get(3)?;
    let kind: String = row.try_get(4)?;
    let deterministic: bool = row.try_get(8)?;
    let has_length = row.try_get::<i32, _>(7)? >= 0;
    Ok(Column {
        name: row.try_get::<String, _>(0)?.into(),
        type_oid: u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or_default(),
        type_name: row.try_get::<String, _>(2)?.into(),
        as_text: row.try_get::<Option<bool>, _>(9)?.unwrap_or_default(),
        merges: false,
        generated: !row.try_get::<String, _>(5)?.is_empty(),
        identity_always: row.try_get::<String, _>(6)? == "a",
        equality: if deterministic {
            equality(base_oid, &kind, has_length)
        } else {
            Equality::Unknown
        },
    })
}

/// Which built-in types are equal exactly when their binary forms are.
fn equality(base_oid: i64, kind: &str, has_length: bool) -> Equality {
    match base_oid {
        _ if kind == "e" => Equality::Bytes,
        // bool, bytea, "char", name, int8, int2, int4, text, oid, cidr, macaddr8, money,
        // macaddr, inet, varchar, date, time, timestamp, timestamptz, bit, varbit, uuid, pg_lsn
        16 | 17 | 18 | 19 | 20 | 21 | 23 | 25 | 26 | 650 | 774 | 790 | 829 | 869 | 1043 | 1082
        | 1083 | 1114 | 1184 | 1560 | 1562 | 2950 | 3220 => Equality::Bytes,
        // char(n) is always padded to n; without n, trailing blanks do not count.
        1042 if has_length => Equality::Bytes,
        700 | 701 => Equality::Float,
        1700 => Equality::Numeric,
        _ => Equality::Unknown,
    }
}

fn positions(table: &Table, names: &[String]) -> Result<Vec<usize>, sqlx::Error> {
    names
        .iter()
        .map(|name| {
            table
                .column(name)
                .ok_or_else(|| sqlx::Error::ColumnNotFound(name.clone()))
        })
        .collect()
}

fn add_index(table: &mut Table, row: &PgRow) -> Result<(), sqlx::Error> {
    let columns = positions(table, &row.try_get::<Vec<String>, _>(2)?)?;
    let coarse: bool = row.try_get(3)?;
    if row.try_get(1)? {
        table.key = columns;
        if coarse {
            // Equal keys may have different bytes: lock the table's rows as one.
            for &column in &table.key {
                table.columns[column].equality = Equality::Unknown;
            }
        }
        return Ok(());
    }
    table.unique.push(UniqueIndex {
        name: row.try_get::<String, _>(0)?.into(),
        columns: if coarse { Vec::new() } else { columns },
        nulls_are_equal: row.try_get(4)?,
    });
    Ok(())
}

fn read_incoming(table: &Table, row: &PgRow) -> Result<IncomingKey, sqlx::Error> {
    let action = |code: String| match code.as_str() {
        "c" => ReferentialAction::Change("CASCADE"),
        "n" => ReferentialAction::Change("SET NULL"),
        "d" => ReferentialAction::Change("SET DEFAULT"),
        _ => ReferentialAction::Refuse,
    };
    Ok(IncomingKey {
        constraint: row.try_get::<String, _>(0)?.into(),
        child: row.try_get::<String, _>(1)?.into(),
        child_columns: row
            .try_get::<Vec<String>, _>(2)?
            .into_iter()
            .map(Into::into)
            .collect(),
        columns: positions(table, &row.try_get::<Vec<String>, _>(3)?)?,
        on_delete: action(row.try_get(4)?),
        on_update: action(row.try_get(5)?),
    })
}

/// The refusal that an obstacle becomes.
pub(super) fn table_refusal(table: &Table, part: String, advice: impl Into<String>) -> Error {
    Error::Table {
        table: table.display_name(),
        part,
        advice: advice.into(),
    }
}
