//! Foreign keys, seen from the table that they reference.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::MySqlConnection;

use super::required;
use crate::at::{
    mysql::quote_qualified,
    table::{Column, IncomingKey, ReferentialAction},
};

/// A foreign key that references a table.
#[derive(Debug)]
pub(in crate::store::mariadb) struct Reference {
    constraint: Arc<str>,
    /// The referencing table, qualified and quoted.
    child: Arc<str>,
    /// The referencing columns, and those that they reference.
    columns: Vec<(Arc<str>, Arc<str>)>,
    on_delete: ReferentialAction,
    on_update: ReferentialAction,
}

impl Reference {
    /// The same with the positions of the referenced columns among `columns`.
    pub(in crate::store::mariadb) fn to(&self, columns: &[Column]) -> IncomingKey {
        let position = |name: &str| columns.iter().position(|column| *column.name == *name);
        let known = self.columns.iter().filter_map(|(child, referenced)| {
            let position = position(referenced)?;
            Some((Arc::clone(child), position))
        });
        let (child_columns, columns) = known.unzip();
        IncomingKey {
            constraint: Arc::clone(&self.constraint),
            child: Arc::clone(&self.child),
            child_columns,
            columns,
            on_delete: self.on_delete,
            on_update: self.on_update,
        }
    }
}

/// Foreign keys of any table that reference this one.
///
/// `information_schema` cannot look them up by the referenced table: it opens every
/// table. Those of the system, with all their views, take by far the longest and
/// reference nobody's; a join would open everything once more for each row.
pub(in crate::store::mariadb) async fn read(
    connection: &mut MySqlConnection,
    schema: &str,
    table: &str,
) -> Result<Vec<Reference>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME
         FROM information_schema.KEY_COLUMN_USAGE
         WHERE REFERENCED_TABLE_SCHEMA = ? AND REFERENCED_TABLE_NAME = ?
           AND TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')
         ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let rules = read_rules(connection, table).await?;
    let mut references: Vec<Reference> = Vec::new();
    for row in &rows {
        let constraint = required(row, 0)?;
        let child = quote_qualified(&required(row, 1)?, &required(row, 2)?);
        let columns = (required(row, 3)?.into(), required(row, 4)?.into());
        // Without a rule it was dropped since, or may not be seen.
        let unknown = ReferentialAction::Change("an action that is not known");
        let rule = rules.get(&(child.clone(), constraint.clone()));
        let &(on_delete, on_update) = rule.unwrap_or(&(unknown, unknown));
        match references.last_mut() {
            Some(last) if *last.constraint == *constraint && *last.child == *child => {
                last.columns.push(columns);
            }
            _ => references.push(Reference {
                constraint: constraint.into(),
                child: child.into(),
                columns: vec![columns],
                on_delete,
                on_update,
            }),
        }
    }
    Ok(references)
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
