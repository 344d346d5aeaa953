//! Looks at start whether the database is prepared.

use sqlx::{MySqlPool, Row as _};

use crate::{error::Error, limits};

/// The version of the tables that this library writes.
const SCHEMA_VERSION: i32 = 1;

/// Every column that this library uses, its type, and whether it may be NULL.
const COLUMNS: &[(&str, &str, &str, &str)] = &[
    ("undo_log", "xid", "bigint", "NO"),
    ("undo_log", "branch_id", "int", "NO"),
    ("undo_log", "rollback_info", "longblob", "NO"),
    ("undo_log", "log_status", "smallint", "NO"),
    ("undo_log", "log_created", "datetime", "NO"),
    ("accede_meta", "database_id", "char", "NO"),
    ("accede_meta", "cluster_id", "char", "YES"),
    ("accede_meta", "schema_version", "int", "NO"),
];

/// The same for fences.
const FENCE_COLUMNS: &[(&str, &str, &str, &str)] = &[
    ("accede_fence", "xid", "bigint", "NO"),
    ("accede_fence", "branch_id", "int", "NO"),
    ("accede_fence", "status", "smallint", "NO"),
    ("accede_fence", "resource", "varchar", "NO"),
    ("accede_fence", "created", "datetime", "NO"),
];

/// Checks the server, tables, columns, the undo log's key and engine, and what the
/// role may see.
pub(crate) async fn check(pool: &MySqlPool) -> Result<(), Error> {
    in_time(check_all(pool)).await
}

/// Checks the table of fences, which databases of before do not have.
pub(crate) async fn check_fences(pool: &MySqlPool) -> Result<(), Error> {
    in_time(async {
        check_columns(pool, FENCE_COLUMNS).await?;
        check_key(pool, "accede_fence").await
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

fn failed() -> impl FnOnce(sqlx::Error) -> Error {
    Error::database("checking the database at start")
}

async fn check_all(pool: &MySqlPool) -> Result<(), Error> {
    check_server(pool).await?;
    check_columns(pool, COLUMNS).await?;
    check_key(pool, "undo_log").await?;
    check_version(pool).await
}

fn missing(reason: String) -> Result<(), Error> {
    Err(Error::Schema { reason })
}

async fn check_columns(
    pool: &MySqlPool,
    columns: &[(&str, &str, &str, &str)],
) -> Result<(), Error> {
    let found: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT CAST(TABLE_NAME AS CHAR), CAST(COLUMN_NAME AS CHAR), CAST(DATA_TYPE AS CHAR),
                CAST(IS_NULLABLE AS CHAR)
         FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('undo_log', 'accede_meta', 'accede_fence')",
    )
    .fetch_all(pool)
    .await
    .map_err(failed())?;
    for (table, column, expected, nullable) in columns {
        if !found.iter().any(|row| row.0 == *table) {
            return missing(format!("the table {table} does not exist in the database"));
        }
        let Some(row) = found.iter().find(|row| row.0 == *table && row.1 == *column) else {
            return missing(format!("the table {table} has no column {column}"));
        };
        if row.2 != *expected {
            return missing(format!(
                "{table}.{column} has type {}, not {expected}",
                row.2
            ));
        }
        if row.3 != *nullable && *nullable == "NO" {
            return missing(format!("{table}.{column} is not declared NOT NULL"));
        }
    }
    Ok(())
}

async fn check_key(pool: &MySqlPool, table: &str) -> Result<(), Error> {
    let key: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(s.COLUMN_NAME AS CHAR), CAST(t.ENGINE AS CHAR)
         FROM information_schema.STATISTICS s
         JOIN information_schema.TABLES t
           ON t.TABLE_SCHEMA = s.TABLE_SCHEMA AND t.TABLE_NAME = s.TABLE_NAME
         WHERE s.TABLE_SCHEMA = DATABASE() AND s.TABLE_NAME = ?
           AND s.INDEX_NAME = 'PRIMARY' ORDER BY s.SEQ_IN_INDEX",
    )
    .bind(table)
    .fetch_all(pool)
    .await
    .map_err(failed())?;
    if !key
        .iter()
        .map(|row| row.0.as_str())
        .eq(["xid", "branch_id"])
    {
        return missing(format!(
            "the primary key of {table} is not (xid, branch_id)"
        ));
    }
    if key.iter().any(|row| row.1 != "InnoDB") {
        return missing(format!("{table} is no InnoDB table"));
    }
    Ok(())
}

async fn check_version(pool: &MySqlPool) -> Result<(), Error> {
    let version: Option<i32> = sqlx::query_scalar("SELECT MAX(schema_version) FROM accede_meta")
        .fetch_one(pool)
        .await
        .map_err(failed())?;
    match version {
        Some(SCHEMA_VERSION) => Ok(()),
        Some(newer) if newer > SCHEMA_VERSION => Err(Error::Configuration(format!(
            "accede_meta has schema version {newer}, this library knows {SCHEMA_VERSION}: \
             update the service"
        ))),
        _ => missing("accede_meta holds no row of this version".to_owned()),
    }
}

async fn check_server(pool: &MySqlPool) -> Result<(), Error> {
    let row = sqlx::query(
        "SELECT CAST(VERSION() AS CHAR), CAST(@@global.innodb_flush_log_at_trx_commit AS CHAR),
                CAST(@@log_bin + 0 AS CHAR), CAST(@@global.binlog_format AS CHAR),
                CAST((SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES u
                 WHERE u.PRIVILEGE_TYPE = 'TRIGGER'
                   AND REPLACE(u.GRANTEE, '''', '') = CURRENT_USER())
              + (SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES s
                 WHERE s.PRIVILEGE_TYPE = 'TRIGGER' AND DATABASE() LIKE s.TABLE_SCHEMA
                   AND REPLACE(s.GRANTEE, '''', '') = CURRENT_USER()) AS SIGNED)",
    )
    .fetch_one(pool)
    .await
    .map_err(failed())?;
    let text = |index: usize| row.try_get::<String, _>(index).map_err(failed());
    let wrong = |what: String| Err(Error::Configuration(what));
    let version = text(0)?;
    if !version.contains("MariaDB") {
        return wrong(format!(
            "the server is {version}: MySQL itself is not supported, only MariaDB 10.6 and later"
        ));
    }
    let numbers: Vec<u32> = version
        .split(['.', '-'])
        .map_while(|part| part.parse().ok())
        .take(2)
        .collect();
    if numbers.as_slice() < [10, 6].as_slice() {
        return wrong(format!(
            "the server is {version}; MariaDB 10.6 and later are supported"
        ));
    }
    let flush = text(1)?;
    if flush != "1" && flush != "3" {
        return wrong(format!(
            "innodb_flush_log_at_trx_commit is {flush}: a crash would lose commits that were \
             reported as done; set it to 1"
        ));
    }
    if text(2)? == "1" && text(3)? == "STATEMENT" {
        return wrong(
            "binlog_format is STATEMENT, which takes no writes at READ COMMITTED; set it to \
             MIXED or ROW"
                .to_owned(),
        );
    }
    let sees_triggers: i64 = row.try_get(4).map_err(failed())?;
    if sees_triggers == 0 {
        return wrong(
            "the database user does not see triggers, so writes of theirs would go unnoticed; \
             run GRANT TRIGGER ON its database.* TO it"
                .to_owned(),
        );
    }
    Ok(())
}
