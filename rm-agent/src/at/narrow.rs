//! Leaves out of an undo record what its branch did not change.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    codec::{UndoColumn, UndoRow, UndoTable},
    image::RowImage,
    table::Table,
};

/// The undo record's part for one table. Rows that came or went are recorded whole; of changed
/// rows, if `narrow`, only the columns by which they are known (those of the key and of unique
/// indexes), those that the database needs recorded, those that the owner listed for merging, and
/// those that the branch changed in any of them. What is left out, others may change meanwhile: an
/// undo does not touch it.
pub(super) fn record(table: &Table, rows: Vec<UndoRow>, narrow: bool) -> Vec<UndoTable> {
    let all: Vec<usize> = (0..table.columns.len()).collect();
    let (changed, other): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| narrow && row.before.is_some() && row.after.is_some());
    let kept = kept(table, &changed);
    let parts = [(all, other), (kept, changed)];
    let parts = parts.into_iter().filter(|(_, rows)| !rows.is_empty());
    parts
        .map(|(columns, rows)| project(table, &columns, rows))
        .collect()
}

fn kept(table: &Table, rows: &[UndoRow]) -> Vec<usize> {
    let unique = table.unique.iter().flat_map(|index| &index.columns);
    let known_by = table.key.iter().chain(unique).chain(&table.recorded);
    let mut kept: BTreeSet<usize> = known_by.copied().collect();
    kept.extend((0..table.columns.len()).filter(|&position| table.columns[position].merges));
    for row in rows {
        if let (Some(before), Some(after)) = (&row.before, &row.after) {
            let changed = |&position: &usize| before.values[position] != after.values[position];
            kept.extend((0..table.columns.len()).filter(changed));
        }
    }
    // They follow from the others, which may have been changed by others meanwhile.
    kept.retain(|position| !table.columns[*position].generated || table.key.contains(position));
    kept.into_iter().collect()
}

fn project(table: &Table, columns: &[usize], rows: Vec<UndoRow>) -> UndoTable {
    let narrowed = |image: RowImage| match columns.len() == image.values.len() {
        true => image,
        false => RowImage {
            values: columns.iter().map(|&p| image.values[p].clone()).collect(),
        },
    };
    let column = |&position: &usize| {
        let column = &table.columns[position];
        UndoColumn {
            name: Arc::clone(&column.name),
            type_oid: column.type_oid,
            text_type: column.as_text.then(|| Arc::clone(&column.type_name)),
            generated: column.generated,
            merges: column.merges,
        }
    };
    let place = |position| {
        let place = columns.binary_search(position);
        place.expect("columns are sorted, and the key's are always kept")
    };
    UndoTable {
        schema: Arc::clone(&table.schema),
        name: Arc::clone(&table.name),
        key: table.key.iter().map(place).collect(),
        columns: columns.iter().map(column).collect(),
        rows: rows
            .into_iter()
            .map(|row| UndoRow {
                before: row.before.map(narrowed),
                after: row.after.map(narrowed),
                ..row
            })
            .collect(),
    }
}
