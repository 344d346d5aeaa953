//! Brings a branch's rows back to their state before it.
//!
//! First every row is locked and compared; only when all of them can be undone are
//! they changed, the last change first.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{MySqlConnection, mysql::MySqlArguments};

use super::{
    super::{catalog, executor::Statement, images, plan::read_sql, run::read_images},
    PhaseTwoError,
    apply::apply_all,
    failure, report,
};
use crate::at::{
    codec::{UndoColumn, UndoRecord, UndoRow, UndoTable},
    escrow::taken_back,
    image::{RowImage, Value},
    merge::merge,
    mysql::quote_qualified,
    statement::TableName,
    table::{Column, Equality, ReferentialAction, Table},
};

/// How many rows one statement locks.
const ROWS_AT_ONCE: usize = 256;

/// A table of the undo record, as it is now.
pub(super) struct CurrentTable {
    pub(super) undo: UndoTable,
    /// The columns of the images; foreign keys that would change other rows.
    pub(super) table: Table,
    /// Qualified and quoted.
    pub(super) name: String,
    /// There are columns that the images do not have.
    pub(super) has_new_columns: bool,
}

/// One row that must change.
pub(super) struct Step {
    pub(super) table: usize,
    pub(super) row: UndoRow,
    pub(super) current: Option<RowImage>,
    /// What it shall be: as before the branch, with what others changed and may.
    pub(super) target: Option<RowImage>,
}

/// Undoes a record inside the open transaction of `connection`.
pub(super) async fn undo(
    connection: &mut MySqlConnection,
    mut record: UndoRecord,
    forced: bool,
) -> Result<(), PhaseTwoError> {
    record
        .tables
        .sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let mut tables = Vec::with_capacity(record.tables.len());
    let mut steps = Vec::new();
    let mut mismatches = Vec::new();
    for undo in record.tables {
        let mut table = CurrentTable::read(connection, undo).await?;
        let rows = std::mem::take(&mut table.undo.rows);
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let mut found = table.lock(connection, rows).await?;
            for row in rows {
                let current = found.remove(&table.key_of(image_of(row)?));
                // Who only added did not leave the row in any certain state.
                if current == row.before && !row.escrow {
                    continue;
                }
                let mut target = row.before.clone();
                let loses = table.has_new_columns && target.is_none();
                let mut clean = current == row.after && !loses;
                if let (true, Some(before), Some(after), Some(now)) =
                    (row.escrow, &row.before, &row.after, &current)
                {
                    let rest = taken_back(&table.undo.columns, before, after, now);
                    clean = rest.is_some();
                    target = rest.or(target);
                }
                if let (false, Some(before), Some(after), Some(now)) =
                    (clean || forced, &row.before, &row.after, &current)
                    && let Some(merged) = merge(&table.undo.columns, before, after, now)
                {
                    clean = true;
                    target = Some(merged);
                }
                if !forced && !clean {
                    mismatches.push(steps.len());
                }
                steps.push(Step {
                    table: tables.len(),
                    row: row.clone(),
                    current,
                    target,
                });
            }
        }
        tables.push(table);
    }
    if !mismatches.is_empty() {
        return Err(report::stuck(&tables, &steps, &mismatches));
    }
    steps.sort_by_key(|step| std::cmp::Reverse(step.row.order));
    apply_all(connection, &tables, steps, forced).await
}

fn image_of(row: &UndoRow) -> Result<&RowImage, PhaseTwoError> {
    row.before
        .as_ref()
        .or(row.after.as_ref())
        .ok_or_else(|| PhaseTwoError::stuck("the undo record has an empty row"))
}

fn column(undo: &UndoColumn) -> Column {
    Column {
        name: Arc::clone(&undo.name),
        type_oid: undo.type_oid,
        type_name: undo.text_type.clone().unwrap_or_default(),
        as_text: true,
        merges: undo.merges,
        generated: undo.generated,
        identity_always: false,
        escrow: None,
        equality: Equality::Bytes,
    }
}

impl CurrentTable {
    async fn read(
        connection: &mut MySqlConnection,
        undo: UndoTable,
    ) -> Result<Self, PhaseTwoError> {
        let name = quote_qualified(&undo.schema, &undo.name);
        let table_name = TableName {
            schema: Some(undo.schema.to_string()),
            name: undo.name.to_string(),
        };
        let now = catalog::read_table(connection, &table_name, 0)
            .await
            .map_err(|error| failure(&error))?
            .ok_or_else(|| changed(&name, "the table is gone"))?;
        for column in &undo.columns {
            match now.table.columns.iter().find(|c| c.name == column.name) {
                Some(same)
                    if same.type_oid == column.type_oid
                        && Some(&same.type_name) == column.text_type.as_ref() => {}
                Some(_) => {
                    return Err(changed(&name, &format!("{} changed its type", column.name)));
                }
                None => return Err(changed(&name, "a column was dropped or renamed")),
            }
        }
        let known = |name: &str| undo.columns.iter().position(|column| &*column.name == name);
        let has_new_columns = now
            .table
            .columns
            .iter()
            .any(|column| !column.generated && known(&column.name).is_none());
        let mut incoming = Vec::new();
        for key in &now.table.incoming {
            if !matches!(key.on_delete, ReferentialAction::Change(_)) {
                continue;
            }
            let mut key = key.clone();
            for position in &mut key.columns {
                *position = known(&now.table.columns[*position].name)
                    .ok_or_else(|| changed(&name, "a foreign key references a new column"))?;
            }
            incoming.push(key);
        }
        let table = Table {
            schema: Arc::clone(&undo.schema),
            name: Arc::clone(&undo.name),
            columns: undo.columns.iter().map(column).collect(),
            key: undo.key.clone(),
            incoming,
            ..Table::default()
        };
        Ok(Self {
            undo,
            table,
            name,
            has_new_columns,
        })
    }

    pub(super) fn key_of(&self, image: &RowImage) -> Vec<Value> {
        self.table
            .key
            .iter()
            .map(|&position| image.values[position].clone())
            .collect()
    }

    /// Locks rows and reads them, by their keys.
    async fn lock(
        &self,
        connection: &mut MySqlConnection,
        rows: &[UndoRow],
    ) -> Result<BTreeMap<Vec<Value>, RowImage>, PhaseTwoError> {
        let images: Result<Vec<RowImage>, PhaseTwoError> =
            rows.iter().map(|row| image_of(row).cloned()).collect();
        let found = self.read_rows(connection, &images?).await?;
        Ok(found
            .into_iter()
            .map(|image| (self.key_of(&image), image))
            .collect())
    }

    /// Reads the rows with the keys of these images, locked.
    pub(super) async fn read_rows(
        &self,
        connection: &mut MySqlConnection,
        rows: &[RowImage],
    ) -> Result<Vec<RowImage>, PhaseTwoError> {
        let count = images::padded(rows.len());
        let mut arguments = MySqlArguments::default();
        images::bind_keys(&mut arguments, &self.table, rows, count)
            .map_err(|error| failure(&error))?;
        let condition = images::key_condition(&images::key_columns(&self.table), count);
        let reading = Statement::own(read_sql(&self.table, &condition), arguments);
        read_images(connection, reading, &self.table)
            .await
            .map_err(|error| failure(&error))
    }
}

fn changed(table: &str, what: &str) -> PhaseTwoError {
    PhaseTwoError::stuck(format!(
        "{table} changed since the branch ran ({what}), so its rows cannot be undone by \
         themselves; restore them by hand, then repair with accept"
    ))
}
