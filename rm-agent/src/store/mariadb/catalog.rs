//! Reads from MariaDB's catalog what AT must know about a table.

pub(super) mod columns;
pub(super) mod references;

use std::{collections::BTreeSet, sync::Arc};

use sqlx::{MySqlConnection, Row as _, mysql::MySqlRow};

use self::{columns::Generated, references::Reference};
use crate::{
    at::{
        mysql::{
            quote,
            types::{Class, weight},
        },
        statement::TableName,
        table::{Table, UniqueIndex},
    },
    error::Error,
};

/// Tables of this library; a branch that changed them would change its own record.
const OWN_TABLES: &[&str] = &["undo_log", "accede_meta"];

/// The name under which an index of character columns stands beside the primary key.
const PRIMARY: &str = "PRIMARY";

/// A table with what the application may have to decide about it.
#[derive(Debug)]
pub(super) struct TableInfo {
    pub(super) table: Arc<Table>,
    /// What keeps AT from writing it: the part, and what to do.
    pub(super) obstacle: Option<(String, &'static str)>,
    pub(super) triggers: Vec<String>,
    /// Names of the columns that an INSERT without a list gives values.
    pub(super) visible: Vec<String>,
    pub(super) auto_increment: Option<usize>,
    /// Key columns whose default is made anew for each row.
    pub(super) computed_defaults: Vec<usize>,
    /// Columns that an UPDATE sets by itself.
    pub(super) set_on_update: Vec<usize>,
    /// All unique indexes, the primary key among them.
    pub(super) unique_keys: Vec<UniqueKey>,
    /// Foreign keys that reference it.
    pub(super) references: Arc<[Reference]>,
}

/// A unique index as its definition names it.
#[derive(Debug)]
pub(super) struct UniqueKey {
    /// Columns, and how many characters of them; `None`: all.
    pub(super) parts: Vec<(usize, Option<u64>)>,
}

/// A string of the catalog, which shows some of them as blobs.
fn text(row: &MySqlRow, index: usize) -> Result<Option<String>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get_unchecked(index)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn required(row: &MySqlRow, index: usize) -> Result<String, sqlx::Error> {
    Ok(text(row, index)?.unwrap_or_default())
}

/// Reads a table of the connection's database; `None` if there is none of that name.
/// `number` tells tables of one pool apart.
pub(super) async fn read_table(
    connection: &mut MySqlConnection,
    name: &TableName,
    number: u32,
) -> Result<Option<TableInfo>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE,
                CAST(@@lower_case_table_names AS SIGNED)
         FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?",
    )
    .bind(&name.schema)
    .bind(&name.name)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let (schema, table_name) = (required(&found, 0)?, required(&found, 1)?);
    let exact: i64 = found.try_get(4)?;
    if exact == 0 && table_name != name.name {
        return Ok(None);
    }
    let mut info = TableInfo {
        table: Arc::default(),
        obstacle: table_obstacle(name, &found)?,
        triggers: Vec::new(),
        visible: Vec::new(),
        auto_increment: None,
        computed_defaults: Vec::new(),
        set_on_update: Vec::new(),
        unique_keys: Vec::new(),
        references: Arc::default(),
    };
    let mut table = Table {
        oid: number,
        schema: schema.as_str().into(),
        name: table_name.as_str().into(),
        ..Table::default()
    };
    let columns = read_columns(connection, &mut table, &mut info).await?;
    info.unique_keys = read_indexes(connection, &mut table, &columns).await?;
    info.references = references::read(connection, &schema, &table_name)
        .await?
        .into();
    table.incoming = info
        .references
        .iter()
        .map(|reference| reference.to(&table.columns))
        .collect();
    table.recorded = always_recorded(&table, &info);
    let triggers = sqlx::query(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS
         WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ?",
    )
    .bind(&schema)
    .bind(&table_name)
    .fetch_all(connection)
    .await?;
    for row in &triggers {
        info.triggers.push(required(row, 0)?);
    }
    if table.key.is_empty() {
        let advice = "give it one, or use XA mode";
        info.obstacle
            .get_or_insert(("it has no primary key".to_owned(), advice));
    }
    info.computed_defaults = (0..table.columns.len())
        .filter(|&position| columns.get(position).is_some_and(|c| c.computed_default))
        .collect();
    info.table = Arc::new(table);
    Ok(Some(info))
}

/// Columns that an undo must know although the branch did not change them: those behind the
/// weights of unique indexes; those that foreign keys reference, which need no unique index here;
/// and those that an UPDATE sets by itself, so that it does not depend on the clock whether an
/// undo looks at them.
fn always_recorded(table: &Table, info: &TableInfo) -> Vec<usize> {
    let indexed = info.unique_keys.iter().flat_map(|key| &key.parts);
    let referenced = table.incoming.iter().flat_map(|key| &key.columns);
    let mut recorded: Vec<usize> = indexed.map(|(position, _)| *position).collect();
    recorded.extend(referenced);
    recorded.extend(&info.set_on_update);
    recorded
}

fn table_obstacle(
    name: &TableName,
    found: &MySqlRow,
) -> Result<Option<(String, &'static str)>, sqlx::Error> {
    let (kind, engine) = (required(found, 2)?, required(found, 3)?);
    let own = OWN_TABLES
        .iter()
        .any(|own| own.eq_ignore_ascii_case(&name.name));
    Ok(if own {
        let advice = "leave it to the agent";
        Some(("it belongs to Accede".to_owned(), advice))
    } else if name.schema.is_some() {
        let advice = "give the other database a pool of its own, and write tables without their \
                      database's name";
        Some(("its name has a database in front of it".to_owned(), advice))
    } else if kind != "BASE TABLE" {
        let advice = "write plain tables, or use XA mode";
        Some((format!("it is a {kind}"), advice))
    } else if !engine.eq_ignore_ascii_case("InnoDB") {
        let advice = "ALTER TABLE … ENGINE = InnoDB";
        Some((
            format!("its engine {engine} has no transactions that fit"),
            advice,
        ))
    } else {
        None
    })
}

/// What the indexes must know of a column.
struct Known {
    class: Class,
    computed_default: bool,
}

async fn read_columns(
    connection: &mut MySqlConnection,
    table: &mut Table,
    info: &mut TableInfo,
) -> Result<Vec<Known>, sqlx::Error> {
    let in_unique_indexes = columns_in_unique_indexes(connection, table).await?;
    let described = columns::read(connection, &table.schema, &table.name).await?;
    let mut known = Vec::with_capacity(described.len());
    for described in described {
        let is_in_index = in_unique_indexes.contains(&*described.name);
        if !described.hidden {
            info.visible.push(described.name.to_string());
        }
        // It may read differently each time, and nothing depends on it.
        if described.generated == Some(Generated::Virtual) && !is_in_index {
            continue;
        }
        let Some(column) = described.column() else {
            let part = format!(
                "its column {} has the type {}",
                described.name, described.data_type
            );
            let advice = "keep such columns in another table, or use XA mode";
            info.obstacle.get_or_insert((part, advice));
            continue;
        };
        if described.auto_increment {
            info.auto_increment = Some(table.columns.len());
        }
        if described.set_on_update {
            info.set_on_update.push(table.columns.len());
        }
        known.push(Known {
            class: Class::from_number(column.type_oid).unwrap_or(Class::Bytes),
            computed_default: described.computed_default,
        });
        table.columns.push(column);
    }
    Ok(known)
}

/// Read on its own: a sub-query for each column would open every table of the server.
async fn columns_in_unique_indexes(
    connection: &mut MySqlConnection,
    table: &Table,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT COLUMN_NAME FROM information_schema.STATISTICS
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0",
    )
    .bind(&*table.schema)
    .bind(&*table.name)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| required(row, 0)).collect()
}

async fn read_indexes(
    connection: &mut MySqlConnection,
    table: &mut Table,
    columns: &[Known],
) -> Result<Vec<UniqueKey>, sqlx::Error> {
    let mut keys: Vec<(String, UniqueKey)> = Vec::new();
    let rows = sqlx::query(
        "SELECT INDEX_NAME, COLUMN_NAME, CAST(SUB_PART AS SIGNED)
         FROM information_schema.STATISTICS
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0
         ORDER BY INDEX_NAME, SEQ_IN_INDEX",
    )
    .bind(&*table.schema)
    .bind(&*table.name)
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let (index, name) = (required(row, 0)?, required(row, 1)?);
        let prefix: Option<i64> = row.try_get(2)?;
        let Some(position) = table.column(&name) else {
            continue;
        };
        if index == PRIMARY {
            table.key.push(position);
        }
        let part = (position, prefix.and_then(|p| u64::try_from(p).ok()));
        match keys.last_mut() {
            Some((last, key)) if *last == index => key.parts.push(part),
            _ => keys.push((index.clone(), UniqueKey { parts: vec![part] })),
        }
        let position = match (columns[position].class, prefix) {
            (Class::Text, prefix) => {
                let expression = weight(&name, prefix.and_then(|p| u64::try_from(p).ok()));
                weight_column(table, &expression)
            }
            (_, Some(prefix)) => {
                let expression = format!("CAST(LEFT({}, {prefix}) AS BINARY)", quote(&name));
                weight_column(table, &expression)
            }
            (_, None) => position,
        };
        match table.unique.last_mut() {
            Some(last) if *last.name == *index => last.columns.push(position),
            _ => table.unique.push(UniqueIndex {
                name: index.as_str().into(),
                columns: vec![position],
                nulls_are_equal: false,
            }),
        }
    }
    // The primary key's own values are its locks already, unless others are equal to them.
    let key = table.key.clone();
    table
        .unique
        .retain(|index| *index.name != *PRIMARY || index.columns != key);
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// A column of the images that the table does not have.
fn weight_column(table: &mut Table, expression: &str) -> usize {
    let name = format!("accede_weight {expression}");
    table.column(&name).unwrap_or_else(|| {
        let weight = (Class::Weight, expression);
        table.columns.push(columns::column(&name, weight, true));
        table.columns.len() - 1
    })
}

/// Which of these are views, or no tables at all.
pub(super) async fn views(
    connection: &mut MySqlConnection,
    names: &[&TableName],
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for name in names {
        let kind: Option<String> = sqlx::query_scalar(
            "SELECT CAST(TABLE_TYPE AS CHAR) FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?",
        )
        .bind(&name.schema)
        .bind(&name.name)
        .fetch_optional(&mut *connection)
        .await
        .map_err(Error::database("reading the catalog"))?;
        if kind.as_deref() == Some("VIEW") {
            found.push(name.name.clone());
        }
    }
    Ok(found)
}
