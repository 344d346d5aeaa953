//! What a branch has changed so far: one net change per row.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    codec::{UndoRecord, UndoRow},
    escrow::{self, Bounds, Delta},
    image::RowImage,
    lock_key, narrow,
    table::{ReferentialAction, Table},
};
use crate::{
    error::Error,
    limits,
    registrar::{ColumnDelta, EscrowLock, LockKey},
};

/// Collects the row changes of one branch.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    tables: Vec<TableChanges>,
    /// Rows of the running statement that have a new key: it may be the old key of a
    /// row that comes later, so they are added at the statement's end.
    moved: Vec<(Arc<Table>, RowImage)>,
    locks: BTreeSet<Vec<u8>>,
    order: u32,
    bytes: usize,
    /// How to take changes back, the last one last, while there is a mark.
    journal: Vec<Entry>,
    marks: usize,
    /// Images are not kept: what changed will not be undone.
    locks_only: bool,
    /// Columns that did not change are left out of the record.
    narrow: bool,
}

/// A moment to which the changes can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    order: u32,
    bytes: usize,
    journal: usize,
}

/// What was there before a change.
#[derive(Debug)]
enum Entry {
    Row {
        table: usize,
        identity: Vec<u8>,
        previous: Option<UndoRow>,
    },
    NewLock(Vec<u8>),
}

#[derive(Debug)]
struct TableChanges {
    table: Arc<Table>,
    rows: BTreeMap<Vec<u8>, UndoRow>,
}

impl Changes {
    /// Takes down which row locks the changes touch, and no images: for a local transaction outside
    /// of any global one.
    pub(crate) fn locks_only() -> Self {
        Self {
            locks_only: true,
            ..Self::default()
        }
    }

    /// Leaves columns that did not change out of the record, if so told.
    pub(crate) fn narrow(mut self, narrow: bool) -> Self {
        self.narrow = narrow;
        self
    }

    /// Adds one row's change by one statement, after whose last row comes
    /// [`end_statement`](Self::end_statement). `adds_only`: the statement only adds to columns
    /// in escrow. On an error the branch must roll back.
    pub(crate) fn record(
        &mut self,
        table: &Arc<Table>,
        before: Option<RowImage>,
        after: Option<RowImage>,
        adds_only: bool,
    ) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        let mut escrow = false;
        if let (Some(before), Some(after)) = (&before, &after) {
            check_update(table, before, after)?;
            escrow = adds_only && !self.locks_only && adds_within_bounds(table, before, after)?;
        }
        self.lock(table, before.as_ref(), after.as_ref());
        if self.locks_only {
            return self.check_size();
        }
        let images = before.iter().chain(&after);
        self.bytes += images.map(RowImage::size).sum::<usize>();
        if let (Some(old), Some(new)) = (&before, &after)
            && identity(table, old) != identity(table, new)
        {
            self.moved.extend(after.map(|new| (Arc::clone(table), new)));
            return self.add(table, before, None, false);
        }
        self.add(table, before, after, escrow)
    }

    /// The statement has no more rows.
    pub(crate) fn end_statement(&mut self) -> Result<(), Error> {
        for (table, new) in std::mem::take(&mut self.moved) {
            self.add(&table, None, Some(new), false)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        table: &Arc<Table>,
        before: Option<RowImage>,
        after: Option<RowImage>,
        escrow: bool,
    ) -> Result<(), Error> {
        self.order += 1;
        self.check_size()?;
        let order = self.order;
        let position = self.position(table)?;
        let image = before
            .as_ref()
            .or(after.as_ref())
            .expect("they differ, so one is there");
        let identity = identity(table, image);
        let rows = &mut self.tables[position].rows;
        if self.marks > 0 {
            self.journal.push(Entry::Row {
                table: position,
                previous: rows.get(&identity).cloned(),
                identity: identity.clone(),
            });
        }
        match rows.entry(identity) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(UndoRow {
                    order,
                    before,
                    after,
                    escrow,
                });
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let row = entry.get_mut();
                // An inserted row goes when all that came to reference it has gone.
                if row.before.is_some() || row.after.is_none() {
                    row.order = order;
                }
                row.after = after;
                row.escrow &= escrow;
                if row.before == row.after {
                    entry.remove();
                }
            }
        }
        Ok(())
    }

    fn lock(&mut self, table: &Table, before: Option<&RowImage>, after: Option<&RowImage>) {
        if self.marks == 0 {
            return lock_key::add_keys(&mut self.locks, table, before, after);
        }
        let mut keys = BTreeSet::new();
        lock_key::add_keys(&mut keys, table, before, after);
        for key in keys {
            if self.locks.insert(key.clone()) {
                self.journal.push(Entry::NewLock(key));
            }
        }
    }

    /// Marks this moment. Every mark is given up by [`release`](Self::release).
    pub(crate) fn mark(&mut self) -> Mark {
        self.marks += 1;
        Mark {
            order: self.order,
            bytes: self.bytes,
            journal: self.journal.len(),
        }
    }

    /// Takes back what came after the mark: images and lock keys. The mark stays;
    /// later ones must be released.
    pub(crate) fn take_back(&mut self, mark: Mark) {
        self.moved.clear();
        while self.journal.len() > mark.journal {
            match self.journal.pop() {
                Some(Entry::Row {
                    table,
                    identity,
                    previous,
                }) => {
                    let rows = &mut self.tables[table].rows;
                    match previous {
                        Some(row) => rows.insert(identity, row),
                        None => rows.remove(&identity),
                    };
                }
                Some(Entry::NewLock(key)) => {
                    self.locks.remove(&key);
                }
                None => break,
            }
        }
        self.order = mark.order;
        self.bytes = mark.bytes;
    }

    /// Gives up so many marks, the last ones; what came after them stays.
    pub(crate) fn release(&mut self, marks: usize) {
        self.marks = self.marks.saturating_sub(marks);
        if self.marks == 0 {
            self.journal.clear();
        }
    }

    fn position(&mut self, table: &Arc<Table>) -> Result<usize, Error> {
        let found = self.tables.iter().position(|t| t.table.oid == table.oid);
        match found {
            Some(index) if self.tables[index].table.columns == table.columns => Ok(index),
            Some(_) => Err(Error::TableChanged {
                table: table.display_name(),
            }),
            None => {
                let rows = BTreeMap::new();
                self.tables.push(TableChanges {
                    table: Arc::clone(table),
                    rows,
                });
                Ok(self.tables.len() - 1)
            }
        }
    }

    fn check_size(&self) -> Result<(), Error> {
        let too_large = |what: String, limit: usize| Err(Error::TooLarge { what, limit });
        if self.order as usize > limits::MAX_ROWS_PER_BRANCH {
            return too_large(
                format!("the branch's number of changed rows, {}", self.order),
                limits::MAX_ROWS_PER_BRANCH,
            );
        }
        if self.locks.len() > limits::MAX_ROW_LOCKS {
            return too_large(
                format!("the branch's number of row locks, {}", self.locks.len()),
                limits::MAX_ROW_LOCKS,
            );
        }
        if self.bytes > limits::MAX_UNDO_BYTES {
            return too_large(
                format!("the branch's row images of {} bytes", self.bytes),
                limits::MAX_UNDO_BYTES,
            );
        }
        Ok(())
    }

    /// Whether there is nothing to undo.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.rows.is_empty())
    }

    /// The row locks that the branch needs, sorted, no key twice: exclusive ones, and those of
    /// rows that it only added to.
    pub(crate) fn locks(&self) -> (Vec<LockKey>, Vec<EscrowLock>) {
        let mut escrow = BTreeMap::new();
        for TableChanges { table, rows } in &self.tables {
            for row in rows.values().filter(|row| row.escrow) {
                let (Some(before), Some(after)) = (&row.before, &row.after) else {
                    continue;
                };
                let key = lock_key::primary_key(table, after);
                if let Some(deltas) = escrow::deltas_of_row(table, before, after)
                    && self.locks.contains(&key)
                {
                    escrow.insert(key, column_deltas(table, &deltas));
                }
            }
        }
        let exclusive = self.locks.iter().filter(|key| !escrow.contains_key(*key));
        let exclusive = exclusive.map(|key| key.as_slice().into()).collect();
        let escrow = escrow.into_iter().map(|(key, columns)| EscrowLock {
            key: key.into(),
            columns,
        });
        (exclusive, escrow.collect())
    }

    /// The undo record. Takes the images out.
    pub(crate) fn take_record(&mut self) -> UndoRecord {
        let tables = std::mem::take(&mut self.tables).into_iter();
        let parts = tables.flat_map(|changes| {
            let rows = changes.rows.into_values().collect();
            narrow::record(&changes.table, rows, self.narrow)
        });
        UndoRecord {
            tables: parts.collect(),
        }
    }
}

/// True if the row was only added to, in columns that are in escrow. An error if it was, and
/// one of them left its bounds.
fn adds_within_bounds(table: &Table, before: &RowImage, after: &RowImage) -> Result<bool, Error> {
    let Some(deltas) = escrow::deltas_of_row(table, before, after) else {
        return Ok(false);
    };
    for change in deltas {
        let Bounds { lower, upper } = change.bounds;
        let bounds = lower..=upper;
        // It held something else before escrow was agreed on: nobody else may add meanwhile.
        if !bounds.contains(&(change.value - change.delta)) {
            return Ok(false);
        }
        if !bounds.contains(&change.value) {
            return Err(Error::OutOfBounds {
                table: table.display_name(),
                column: table.columns[change.column].name.to_string(),
                value: change.value,
                lower,
                upper,
            });
        }
    }
    Ok(true)
}

/// For the coordinator, sorted by name.
fn column_deltas(table: &Table, deltas: &[Delta]) -> Vec<ColumnDelta> {
    let mut columns: Vec<ColumnDelta> = deltas
        .iter()
        .map(|change| ColumnDelta {
            column: Arc::clone(&table.columns[change.column].name),
            delta: change.delta,
            value: change.value,
            lower: change.bounds.lower,
            upper: change.bounds.upper,
        })
        .collect();
    columns.sort_by(|a, b| a.column.cmp(&b.column));
    columns
}

/// Tells the rows of a table apart, exactly; sorts them the same way everywhere.
fn identity(table: &Table, image: &RowImage) -> Vec<u8> {
    let mut key = Vec::new();
    for value in table
        .key
        .iter()
        .filter_map(|&column| image.values[column].as_ref())
    {
        key.extend((value.len() as u64).to_be_bytes());
        key.extend(&value[..]);
    }
    key
}

/// What the statement's text could not show: a trigger or a rule of the type
/// system may change more columns than the statement assigns.
fn check_update(table: &Table, before: &RowImage, after: &RowImage) -> Result<(), Error> {
    let changed = |column: usize| before.values[column] != after.values[column];
    let refuse = |reason: String| {
        Err(Error::Row {
            table: table.display_name(),
            reason,
        })
    };
    if let Some(&column) = table.key.iter().find(|&&column| changed(column))
        && table.columns.iter().any(|column| column.identity_always)
    {
        return refuse(format!(
            "its primary key column {} changed, and it has a column that is GENERATED ALWAYS AS \
             IDENTITY",
            table.columns[column].name
        ));
    }
    if let Some(column) = (0..table.columns.len())
        .find(|&column| changed(column) && table.columns[column].identity_always)
    {
        return refuse(format!(
            "its column {}, which is GENERATED ALWAYS AS IDENTITY, changed",
            table.columns[column].name
        ));
    }
    for key in &table.incoming {
        if let ReferentialAction::Change(action) = key.on_update
            && key.columns.iter().any(|&column| changed(column))
        {
            return refuse(format!(
                "the foreign key {} of {} has ON UPDATE {action} and changed other rows",
                key.constraint, key.child
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
