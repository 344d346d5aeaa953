//! Reads from MariaDB's catalog what AT must know about a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sqlx::{MySqlConnection, Row as _, mysql::MySqlRow};

use crate::{
    at::{
        mysql::{
            quote, quote_qualified,
            types::{Class, signature, weight},
        },
        statement::TableName,
        table::{Column, Equality, IncomingKey, ReferentialAction, Table, UniqueIndex},
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
    };
    let mut table = Table {
        oid: number,
        schema: schema.as_str().into(),
        name: table_name.as_str().into(),
        ..Table::default()
    };
    let columns = read_columns(connection, &mut table, &mut info).await?;
    info.unique_keys = read_indexes(connection, &mut table, &columns).await?;
    read_references(connection, &mut table).await?;
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
    let rows = sqlx::query(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME,
                EXTRA, COLUMN_DEFAULT
         FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
    )
    .bind(&*table.schema)
    .bind(&*table.name)
    .fetch_all(connection)
    .await?;
    let mut known = Vec::with_capacity(rows.len());
    for row in &rows {
        let name = required(row, 0)?;
        let (data_type, column_type) = (required(row, 1)?, required(row, 2)?);
        let extra = required(row, 5)?.to_ascii_uppercase();
        let is_in_index = in_unique_indexes.contains(&name);
        if !extra.contains("INVISIBLE") {
            info.visible.push(name.clone());
        }
        // It may read differently each time, and nothing depends on it.
        if extra.contains("VIRTUAL GENERATED") && !is_in_index {
            continue;
        }
        let Some(class) = Class::of(&data_type, &column_type) else {
            let part = format!("its column {name} has the type {data_type}");
            let advice = "keep such columns in another table, or use XA mode";
            info.obstacle.get_or_insert((part, advice));
            continue;
        };
        if extra.contains("AUTO_INCREMENT") {
            info.auto_increment = Some(table.columns.len());
        }
        if extra.contains("ON UPDATE") {
            info.set_on_update.push(table.columns.len());
        }
        let signature = signature(
            &column_type,
            text(row, 3)?.as_deref(),
            text(row, 4)?.as_deref(),
        );
        known.push(Known {
            class,
            computed_default: text(row, 6)?.is_some_and(|default| default.contains('(')),
        });
        let equality = match class {
            Class::Float => Equality::Unknown,
            _ => Equality::Bytes,
        };
        table.columns.push(column(
            &name,
            (class, &signature),
            extra.contains("GENERATED"),
            equality,
        ));
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

fn column(
    name: &str,
    (class, signature): (Class, &str),
    generated: bool,
    equality: Equality,
) -> Column {
    Column {
        name: name.into(),
        type_oid: class as u32,
        type_name: signature.into(),
        as_text: true,
        merges: false,
        generated,
        identity_always: false,
        escrow: None,
        equality,
    }
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
        table
            .columns
            .push(column(&name, weight, true, Equality::Bytes));
        table.columns.len() - 1
    })
}

/// Foreign keys of other tables that reference this one.
///
/// `information_schema` cannot look them up by the referenced table: it opens every
/// table. Those of the system, with all their views, take by far the longest and
/// reference nobody's; a join would open everything once more for each row.
async fn read_references(
    connection: &mut MySqlConnection,
    table: &mut Table,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "SELECT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME
         FROM information_schema.KEY_COLUMN_USAGE
         WHERE REFERENCED_TABLE_SCHEMA = ? AND REFERENCED_TABLE_NAME = ?
           AND TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')
         ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
    )
    .bind(&*table.schema)
    .bind(&*table.name)
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let rules = read_rules(connection, &table.name).await?;
    for row in &rows {
        let constraint = required(row, 0)?;
        let child = quote_qualified(&required(row, 1)?, &required(row, 2)?);
        let (child_column, column) = (required(row, 3)?, required(row, 4)?);
        let Some(position) = table.column(&column) else {
            continue;
        };
        // Without a rule it was dropped since, or may not be seen.
        let unknown = ReferentialAction::Change("an action that is not known");
        let rule = rules.get(&(child.clone(), constraint.clone()));
        let &(on_delete, on_update) = rule.unwrap_or(&(unknown, unknown));
        match table.incoming.last_mut() {
            Some(last) if *last.constraint == *constraint && *last.child == *child => {
                last.columns.push(position);
                last.child_columns.push(child_column.as_str().into());
            }
            _ => table.incoming.push(IncomingKey {
                constraint: constraint.as_str().into(),
                child: child.as_str().into(),
                child_columns: vec![child_column.as_str().into()],
                columns: vec![position],
                on_delete,
                on_update,
            }),
        }
    }
    Ok(())
}

/// What the foreign keys that reference tables of this name do ON DELETE and ON UPDATE,
/// by the referencing table and the key's name.
async fn read_rules(
    connection: &mut MySqlConnection,
    referenced: &str,
) -> Result<BTreeMap<(String, String), (ReferentialAction, ReferentialAction)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE
         FROM information_schema.REFERENTIAL_CONSTRAINTS
         WHERE REFERENCED_TABLE_NAME = ?
           AND CONSTRAINT_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')",
    )
    .bind(referenced)
    .fetch_all(connection)
    .await?;
    let mut rules = BTreeMap::new();
    for row in &rows {
        let child = quote_qualified(&required(row, 0)?, &required(row, 1)?);
        let actions = (action(&required(row, 3)?), action(&required(row, 4)?));
        rules.insert((child, required(row, 2)?), actions);
    }
    Ok(rules)
}

fn action(rule: &str) -> ReferentialAction {
    match rule {
        "CASCADE" => ReferentialAction::Change("CASCADE"),
        "SET NULL" => ReferentialAction::Change("SET NULL"),
        "SET DEFAULT" => ReferentialAction::Change("SET DEFAULT"),
        _ => ReferentialAction::Refuse,
    }
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
