//! Notes every row that a connection changes, as it was before.
//!
//! Temporary triggers of the connection write into a temporary table, which belongs to
//! the transaction: what is rolled back, to a savepoint or inside a failed statement,
//! vanishes from it too. They stay for the next branch of the connection.

use std::collections::BTreeSet;

use sqlx::{Row as _, SqliteConnection};

use super::{
    catalog::{Catalog, TableInfo},
    rows,
};
use crate::{
    at::table::{quote, quote_qualified},
    limits,
};

/// The temporary table.
pub(super) const LOG: &str = "accede_log";
/// The constraint that bounds it.
pub(super) const LOG_LIMIT: &str = "accede_rows";
/// A row that an INSERT made: its key.
pub(super) const INSERTED: i64 = 0;
/// A row that a DELETE is about to remove: all of it.
pub(super) const DELETED: i64 = 1;
/// A row that an UPDATE is about to change: all of it.
pub(super) const UPDATED: i64 = 2;
/// The key that it will have then.
pub(super) const MADE: i64 = 3;
/// The row that has this key, if it is another one, and has to go: all of it.
pub(super) const MET: i64 = 4;

/// What a connection notes.
#[derive(Clone, Debug, Default)]
pub(super) struct Capture {
    /// For which version of the schema, if for any.
    pub(super) version: Option<i64>,
    /// The root page of the temporary table.
    pub(super) log_root: Option<i64>,
    /// Root pages of the tables that are watched.
    watched: BTreeSet<i64>,
}

fn trigger_name(version: i64, root: i64, event: &str) -> String {
    format!("accede_{version}_{root}_{}", event.replace(' ', "_"))
}

fn parse_name(name: &str) -> Option<(i64, i64)> {
    let mut parts = name.strip_prefix("accede_")?.split('_');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Capture {
    /// What the connection notes already.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let found = sqlx::query(
            "SELECT name, COALESCE(rootpage, 0) FROM temp.sqlite_schema \
             WHERE name GLOB 'accede_*' ORDER BY rowid",
        )
        .fetch_all(connection)
        .await?;
        let mut capture = Self::default();
        for row in found {
            let name: String = row.try_get(0)?;
            if name == LOG {
                capture.log_root = Some(row.try_get(1)?);
            } else if let Some((version, root)) = parse_name(&name) {
                capture.version = Some(version);
                capture.watched.insert(root);
            }
        }
        Ok(capture)
    }

    /// Watches a table from now on.
    pub(super) async fn watch(
        &mut self,
        connection: &mut SqliteConnection,
        catalog: &Catalog,
        table: &TableInfo,
    ) -> Result<(), sqlx::Error> {
        if self.watched.contains(&table.root) {
            return Ok(());
        }
        let mut script = String::new();
        if self.log_root.is_none() {
            let columns: Vec<String> = (0..catalog.widest).map(|c| format!("c{c}")).collect();
            script = format!(
                "CREATE TEMP TABLE {LOG} (seq INTEGER PRIMARY KEY \
                 CONSTRAINT {LOG_LIMIT} CHECK (seq <= {}), t, k, {});\n",
                // An update writes two or three.
                3 * limits::MAX_ROWS_PER_BRANCH,
                columns.join(", ")
            );
        }
        // Before the change: a foreign key of the table to itself may change the same row
        // again before the triggers come that run after it.
        for (event, notes) in [
            (
                "AFTER INSERT",
                vec![note(table, INSERTED, "NEW", &table.key)],
            ),
            (
                "BEFORE DELETE",
                vec![note(table, DELETED, "OLD", &all(table))],
            ),
            (
                "BEFORE UPDATE",
                vec![
                    note(table, UPDATED, "OLD", &all(table)),
                    note_met(table),
                    note(table, MADE, "NEW", &table.key),
                ],
            ),
        ] {
            let name = trigger_name(catalog.version, table.root, event);
            script.push_str(&format!(
                "CREATE TEMP TRIGGER {} {event} ON {} BEGIN {} END;\n",
                quote(&name),
                quote_qualified(super::catalog::SCHEMA, &table.name),
                notes.concat()
            ));
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(script))
            .execute(&mut *connection)
            .await?;
        self.watched.insert(table.root);
        self.version = Some(catalog.version);
        if self.log_root.is_none() {
            let root = sqlx::query_scalar(
                "SELECT rootpage FROM temp.sqlite_schema WHERE name = 'accede_log'",
            );
            self.log_root = Some(root.fetch_one(connection).await?);
        }
        Ok(())
    }
}

fn all(table: &TableInfo) -> Vec<usize> {
    (0..table.columns.len()).collect()
}

/// Begins to write so many columns.
fn insert(columns: usize) -> String {
    let targets: Vec<String> = (0..columns).map(|c| format!("c{c}")).collect();
    format!("INSERT INTO {LOG} (t, k, {})", targets.join(", "))
}

/// Writes these columns of a row.
fn note(table: &TableInfo, kind: i64, reference: &str, columns: &[usize]) -> String {
    let values: Vec<String> = columns
        .iter()
        .map(|&position| format!("{reference}.{}", rows::name(table, position)))
        .collect();
    format!(
        "{} VALUES ({}, {kind}, {}); ",
        insert(columns.len()),
        table.root,
        values.join(", ")
    )
}

/// Writes the row that has the key which another one is about to get.
fn note_met(table: &TableInfo) -> String {
    let (mut same, mut differs) = (Vec::new(), Vec::new());
    for (&position, collation) in table.key.iter().zip(&table.collations) {
        let name = rows::name(table, position);
        let collate = if table.without_rowid {
            format!(" COLLATE {}", collation.name())
        } else {
            String::new()
        };
        same.push(format!("r.{name}{collate} = NEW.{name}"));
        differs.push(format!("NEW.{name}{collate} IS NOT OLD.{name}"));
    }
    format!(
        "{} SELECT {}, {MET}, {} FROM {} r WHERE ({}) AND {}; ",
        insert(table.columns.len()),
        table.root,
        rows::columns(table, "r."),
        table.qualified(),
        differs.join(" OR "),
        same.join(" AND ")
    )
}
