//! Looks at start whether the database is prepared.

use sqlx::{PgPool, Row as _};

use crate::{error::Error, limits};

/// The version of the tables that this library writes.
const SCHEMA_VERSION: i32 = 1;

/// Every column that this library uses, and its type.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("undo_log", "xid", "bigint"),
    ("undo_log", "branch_id", "integer"),
    ("undo_log", "rollback_info", "bytea"),
    ("undo_log", "log_status", "smallint"),
    ("undo_log", "log_created", "timestamp with time zone"),
    ("accede_meta", "database_id", "uuid"),
    ("accede_meta", "cluster_id", "uuid"),
    ("accede_meta", "schema_version", "integer"),
];

/// The same for fences.
const FENCE_COLUMNS: &[(&str, &str, &str)] = &[
    ("accede_fence", "xid", "bigint"),
    ("accede_fence", "branch_id", "integer"),
    ("accede_fence", "status", "smallint"),
    ("accede_fence", "resource", "text"),
    ("accede_fence", "created", "timestamp with time zone"),
];

/// What fences need.
const FENCE_PRIVILEGES: &[(&str, &str)] = &[
    ("accede_fence", "SELECT"),
    ("accede_fence", "INSERT"),
    ("accede_fence", "UPDATE"),
    ("accede_fence", "DELETE"),
];

/// What phase one and two do with the tables.
const PRIVILEGES: &[(&str, &str)] = &[
    ("undo_log", "SELECT"),
    ("undo_log", "INSERT"),
    ("undo_log", "UPDATE"),
    ("undo_log", "DELETE"),
    ("accede_meta", "SELECT"),
    ("accede_meta", "UPDATE"),
];

/// Checks tables, columns, the undo log's key, privileges and the settings
/// that the statement analysis relies on.
pub(crate) async fn check(pool: &PgPool) -> Result<(), Error> {
    in_time(async {
        check_columns(pool, COLUMNS).await?;
        check_key(pool, "undo_log").await?;
        check_privileges(pool, PRIVILEGES).await?;
        check_settings(pool).await
    })
    .await
}

/// Checks the table of fences, which databases of before do not have.
pub(crate) async fn check_fences(pool: &PgPool) -> Result<(), Error> {
    in_time(async {
        check_columns(pool, FENCE_COLUMNS).await?;
        check_key(pool, "accede_fence").await?;
        check_privileges(pool, FENCE_PRIVILEGES).await
    })
    .await
}

async fn in_time(check: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    match tokio::time::timeout(limits::START_CHECK_TIMEOUT, check).await {
        Ok(result) => result,
        Err(_) => Err(Error::Database {
            doing: "checking the database at start",
            source: sqlx::Error::PoolTimedOut,
        }),
    }
}

async fn check_columns(pool: &PgPool, columns: &[(&str, &str, &str)]) -> Result<(), Error> {
    let failed = || Error::database("checking the database at start");
    let found = sqlx::query(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
         WHERE c.oid IN (to_regclass('undo_log'), to_regclass('accede_meta'), to_regclass('accede_fence'))
           AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .fetch_all(pool)
    .await
    .map_err(failed())?;
    let missing = |reason: String| Err(Error::Schema { reason });
    for (table, column, expected) in columns {
        let mut in_table = found
            .iter()
            .filter(|row| row.try_get::<&str, _>(0).is_ok_and(|t| t == *table))
            .peekable();
        if in_table.peek().is_none() {
            return missing(format!(
                "the table {table} does not exist in the search_path"
            ));
        }
        let row = in_table.find(|row| row.try_get::<&str, _>(1).is_ok_and(|c| c == *column));
        let Some(row) = row else {
            return missing(format!("the table {table} has no column {column}"));
        };
        let actual: String = row.try_get(2).map_err(failed())?;
        if actual != *expected {
            return missing(format!(
                "{table}.{column} has type {actual}, not {expected}"
            ));
        }
        let not_null: bool = row.try_get(3).map_err(failed())?;
        if matches!(*column, "log_created" | "created") && !not_null {
            return missing(format!("{table}.{column} is not declared NOT NULL"));
        }
    }
    Ok(())
}

async fn check_privileges(pool: &PgPool, privileges: &[(&str, &str)]) -> Result<(), Error> {
    let failed = || Error::database("checking the database at start");
    for (table, privilege) in privileges {
        let granted: bool = sqlx::query_scalar("SELECT has_table_privilege(to_regclass($1), $2)")
            .bind(table)
            .bind(privilege)
            .fetch_one(pool)
            .await
            .map_err(failed())?;
        if !granted {
            return Err(Error::Configuration(format!(
                "the database role has no {privilege} privilege on {table}; run \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON undo_log, accede_fence, accede_meta TO it"
            )));
        }
    }
    Ok(())
}

async fn check_key(pool: &PgPool, table: &str) -> Result<(), Error> {
    let key: Option<Vec<String>> = sqlx::query_scalar(
        "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) k
                JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k)
         FROM pg_catalog.pg_index i
         WHERE i.indrelid = to_regclass($1) AND i.indisprimary",
    )
    .bind(table)
    .fetch_optional(pool)
    .await
    .map_err(Error::database("checking the database at start"))?;
    match key {
        Some(columns) if columns == ["xid", "branch_id"] => Ok(()),
        _ => Err(Error::Schema {
            reason: format!("the primary key of {table} is not (xid, branch_id)"),
        }),
    }
}

async fn check_settings(pool: &PgPool) -> Result<(), Error> {
    let row = sqlx::query(
        "SELECT current_setting('standard_conforming_strings'),
                (SELECT max(schema_version) FROM accede_meta)",
    )
    .fetch_one(pool)
    .await
    .map_err(Error::database("checking the database at start"))?;
    let failed = || Error::database("checking the database at start");
    if row.try_get::<&str, _>(0).map_err(failed())? != "on" {
        return Err(Error::Configuration(
            "standard_conforming_strings is off; AT reads statements by the standard's rules, \
             so switch it on for this role or database"
                .to_owned(),
        ));
    }
    match row.try_get::<Option<i32>, _>(1).map_err(failed())? {
        Some(SCHEMA_VERSION) => Ok(()),
        Some(newer) if newer > SCHEMA_VERSION => Err(Error::Configuration(format!(
            "accede_meta has schema version {newer}, this library knows {SCHEMA_VERSION}: \
             update the service"
        ))),
        _ => Err(Error::Schema {
            reason: "accede_meta holds no row of this version".to_owned(),
        }),
    }
}
