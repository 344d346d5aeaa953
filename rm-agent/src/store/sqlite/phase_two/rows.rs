//! Brings a branch's rows back to their state before it.
//!
//! First every row is compared; only when all of them can be undone are they changed,
//! the last change first. Nobody else writes meanwhile.

use sqlx::{Row as _, SqliteConnection};

use super::{
    super::{
        catalog::{SCHEMA, TableInfo},
        pool::AtPool,
        rows::read_row,
    },
    PhaseTwoError,
    apply::{apply_all, quiet},
    failure,
    references::References,
    report,
};
use crate::at::{
    codec::{UndoRecord, UndoRow, UndoTable},
    image::RowImage,
    merge::merge,
    sqlite::value,
    table::quote_qualified,
};

/// A table of the undo record, as it is now.
pub(super) struct CurrentTable {
    pub(super) undo: UndoTable,
    /// With the columns of the images only.
    pub(super) table: TableInfo,
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
    connection: &mut SqliteConnection,
    pool: &AtPool,
    record: UndoRecord,
    forced: bool,
) -> Result<(), PhaseTwoError> {
    let version = sqlx::query("PRAGMA schema_version")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get_unchecked(0));
    let version: i64 = version.map_err(|error| failure(&error))?;
    let catalog = pool.catalog(connection, version).await;
    let catalog = catalog.map_err(|error| failure(&error))?;
    let mut tables = Vec::with_capacity(record.tables.len());
    let mut steps = Vec::new();
    let mut mismatches = Vec::new();
    for undo in record.tables {
        let now = catalog.by_name(&undo.name).map(|now| &**now);
        let mut table = CurrentTable::new(now, undo)?;
        for row in std::mem::take(&mut table.undo.rows) {
            let current = table.current(connection, &row).await?;
            if current == row.before {
                continue;
            }
            let mut target = row.before.clone();
            let loses = table.has_new_columns && target.is_none();
            let mut clean = current == row.after && !loses;
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
                row,
                current,
                target,
            });
        }
        tables.push(table);
    }
    if !mismatches.is_empty() {
        return Err(report::stuck(&tables, &steps, &mismatches));
    }
    steps.sort_by_key(|step| std::cmp::Reverse(step.row.order));
    let references = References::of(connection, &tables, &steps).await?;
    let quieted = quiet(connection, &tables).await?;
    apply_all(connection, &tables, steps, forced).await?;
    quieted.end(connection).await?;
    references.check(connection).await
}

impl CurrentTable {
    fn new(now: Option<&TableInfo>, undo: UndoTable) -> Result<Self, PhaseTwoError> {
        let name = quote_qualified(SCHEMA, &undo.name);
        let now = now.ok_or_else(|| changed(&name, "the table is gone"))?;
        if undo.columns.iter().any(|c| c.type_oid != value::TYPE) {
            return Err(PhaseTwoError::stuck(
                "the undo record is that of another kind of database",
            ));
        }
        let position = |name: &str| now.columns.iter().position(|column| &*column.name == name);
        let Some(positions) = undo
            .columns
            .iter()
            .map(|column| position(&column.name))
            .collect::<Option<Vec<usize>>>()
        else {
            return Err(changed(&name, "a column was dropped or renamed"));
        };
        let known = |position: &usize| positions.iter().position(|p| p == position);
        let key: Option<Vec<usize>> = now.key.iter().map(known).collect();
        if key.as_ref() != Some(&undo.key) {
            return Err(changed(&name, "it has another key"));
        }
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        for reference in &now.outgoing {
            // Those of new columns are as they were.
            let columns: Option<Vec<usize>> = reference.columns.iter().map(known).collect();
            if let Some(columns) = columns {
                let mut reference = reference.clone();
                reference.columns = columns;
                outgoing.push(reference);
            }
        }
        for reference in &now.incoming {
            let columns: Option<Vec<usize>> = reference.columns.iter().map(known).collect();
            let Some(columns) = columns else {
                return Err(changed(&name, "a foreign key references a new column"));
            };
            let mut reference = reference.clone();
            reference.columns = columns;
            incoming.push(reference);
        }
        let is_new = |(position, column): (usize, &super::super::catalog::Column)| {
            !column.generated && known(&position).is_none()
        };
        Ok(Self {
            has_new_columns: now.columns.iter().enumerate().any(is_new),
            table: now.with_columns(&positions, undo.key.clone(), incoming, outgoing),
            undo,
            name,
        })
    }

    /// The row with the key of this one, as it is now.
    async fn current(
        &self,
        connection: &mut SqliteConnection,
        row: &UndoRow,
    ) -> Result<Option<RowImage>, PhaseTwoError> {
        let image = row.before.as_ref().or(row.after.as_ref());
        let image =
            image.ok_or_else(|| PhaseTwoError::stuck("the undo record has an empty row"))?;
        self.read(connection, image).await
    }

    /// The row with the key of this image, as it is now.
    pub(super) async fn read(
        &self,
        connection: &mut SqliteConnection,
        image: &RowImage,
    ) -> Result<Option<RowImage>, PhaseTwoError> {
        let key = self.table.key_of(image);
        read_row(connection, &self.table, &key)
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
