//! Reads from PostgreSQL's catalog what AT must know about a table.

mod functions;
mod queries;

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

pub(super) use functions::{HARMLESS_BUILT_INS, functions_behind, volatile_functions};
use queries::{COLUMNS_SQL, INCOMING_SQL, INDEXES_SQL, TABLE_SQL};

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
        .bind(HARMLESS_BUILT_INS)
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
        recorded: Vec::new(),
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
        escrow: None,
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
