//! Brings a branch's rows back to their state before it.
//!
//! First every row is locked and compared; only when all of them can be undone are
//! they changed, the last change first.

use std::sync::Arc;

use sqlx::MySqlConnection;

use super::{
    super::{catalog::columns, plan::Planner},
    PhaseTwoError,
    apply::apply_all,
    failure, report,
    table::{CurrentTable, Found},
};
use crate::at::{
    codec::{UndoRecord, UndoRow},
    escrow::taken_back,
    image::RowImage,
    merge::merge,
};

/// One row that must change.
pub(super) struct Step {
    pub(super) table: usize,
    pub(super) row: UndoRow,
    pub(super) current: Option<Found>,
    /// What it shall be: as before the branch, with what others changed and may.
    pub(super) target: Option<RowImage>,
    /// It left for a moment, and comes back with all that it held.
    pub(super) parked: Option<Found>,
}

/// Undoes a record inside the open transaction of `connection`.
pub(super) async fn undo(
    connection: &mut MySqlConnection,
    planner: &Planner,
    mut record: UndoRecord,
    forced: bool,
) -> Result<(), PhaseTwoError> {
    record
        .tables
        .sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let mut tables = Vec::with_capacity(record.tables.len());
    let mut steps = Vec::new();
    let mut mismatches = Vec::new();
    let mut columns = Vec::new();
    let mut of = None;
    for undo in record.tables {
        let name = (Arc::clone(&undo.schema), Arc::clone(&undo.name));
        // It has one part for rows that changed and one for others.
        if of.as_ref() != Some(&name) {
            columns = columns::read(connection, &name.0, &name.1)
                .await
                .map_err(|error| failure(&error))?;
            of = Some(name);
        }
        let mut table = CurrentTable::new(undo, &columns)?;
        let rows = std::mem::take(&mut table.undo.rows);
        let images: Vec<&RowImage> = rows.iter().map(image_of).collect::<Result<_, _>>()?;
        let mut found = table.read_rows(connection, &images).await?;
        let keys: Vec<_> = images.iter().map(|image| table.key_of(image)).collect();
        for (row, key) in rows.into_iter().zip(keys) {
            let current = found.remove(&key);
            let Some((target, clean)) = target(&table, &row, current.as_ref(), forced) else {
                continue;
            };
            if !forced && !clean {
                mismatches.push(steps.len());
            }
            let step = Step {
                table: tables.len(),
                row,
                current,
                target,
                parked: None,
            };
            if may_meet_references(&table, &step) {
                table.read_incoming(connection, planner).await?;
            }
            steps.push(step);
        }
        tables.push(table);
    }
    if !mismatches.is_empty() {
        return Err(report::stuck(&tables, &steps, &mismatches));
    }
    steps.sort_by_key(|step| std::cmp::Reverse(step.row.order));
    apply_all(connection, planner, &mut tables, steps, forced).await
}

/// What a row shall be, and whether it is as the branch left it; `None` if nothing is to do.
fn target(
    table: &CurrentTable,
    row: &UndoRow,
    current: Option<&Found>,
    forced: bool,
) -> Option<(Option<RowImage>, bool)> {
    let current = current.map(|found| &found.image);
    // Who only added did not leave the row in any certain state.
    if current == row.before.as_ref() && !row.escrow {
        return None;
    }
    let loses = row.before.is_none() && table.has_more();
    if let (Some(before), Some(after), Some(now)) = (&row.before, &row.after, current) {
        let columns = &table.undo.columns;
        if row.escrow
            && let Some(rest) = taken_back(columns, before, after, now)
        {
            return Some((Some(rest), true));
        }
        if (row.escrow || now != after)
            && !forced
            && let Some(merged) = merge(columns, before, after, now)
        {
            return Some((Some(merged), true));
        }
    }
    let clean = !row.escrow && current == row.after.as_ref() && !loses;
    Some((row.before.clone(), clean))
}

/// Whether its change may meet a foreign key that changes other rows.
fn may_meet_references(table: &CurrentTable, step: &Step) -> bool {
    match (&step.current, &step.target) {
        (Some(_), None) => true,
        (Some(now), Some(target)) => table.changes_referenced(&now.image, target),
        (None, _) => false,
    }
}

fn image_of(row: &UndoRow) -> Result<&RowImage, PhaseTwoError> {
    row.before
        .as_ref()
        .or(row.after.as_ref())
        .ok_or_else(|| PhaseTwoError::stuck("the undo record has an empty row"))
}
