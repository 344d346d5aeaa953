//! A table of an undo record, as it is now: how its rows are read, locked, and compared.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{MySqlConnection, mysql::MySqlArguments};

use super::{
    super::{
        catalog::columns::Described,
        executor::Statement,
        keys::RowKeys,
        plan::{Planner, read_sql},
        run::read_images,
    },
    PhaseTwoError, failure,
    rows::Step,
};
use crate::at::{
    codec::{UndoColumn, UndoTable},
    image::{RowImage, Value},
    mysql::{quote_qualified, types::Class},
    table::{Column, Equality, IncomingKey, Table},
};

/// How many rows one statement reads.
pub(super) const ROWS_AT_ONCE: usize = 256;

/// A table of the undo record, as it is now.
pub(super) struct CurrentTable {
    pub(super) undo: UndoTable,
    /// The columns of the images, then the [rest](Self::rest).
    table: Table,
    /// Qualified and quoted.
    pub(super) name: String,
    /// Columns of types that cannot be shown came since.
    has_unknown: bool,
    /// Columns that an UPDATE sets by itself, unless it assigns them.
    set_on_update: Vec<Arc<str>>,
    /// Columns that foreign keys may reference.
    leads_index: Vec<Arc<str>>,
    /// Foreign keys that reference it, once they were asked for.
    incoming: Option<Vec<IncomingKey>>,
}

/// A row as it is now.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) image: RowImage,
    /// What the images do not show of it, and others must find as it was.
    pub(super) rest: Vec<Value>,
}

impl Found {
    pub(super) fn value(&self, position: usize) -> &Value {
        let recorded = self.image.values.len();
        match position.checked_sub(recorded) {
            None => &self.image.values[position],
            Some(position) => &self.rest[position],
        }
    }
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
    /// Compares what the record says with the columns as they are now.
    pub(super) fn new(undo: UndoTable, now: &[Described]) -> Result<Self, PhaseTwoError> {
        let name = quote_qualified(&undo.schema, &undo.name);
        if now.is_empty() {
            return Err(changed(&name, "the table is gone"));
        }
        // Weights are no columns; they follow from those that are.
        let columns = undo.columns.iter();
        for column in columns.filter(|column| column.type_oid != Class::Weight as u32) {
            let found = now.iter().find(|described| described.name == column.name);
            match found.and_then(Described::column) {
                Some(same)
                    if same.type_oid == column.type_oid
                        && Some(&same.type_name) == column.text_type.as_ref() => {}
                None if found.is_none() => {
                    return Err(changed(&name, "a column was dropped or renamed"));
                }
                _ => return Err(changed(&name, &format!("{} changed its type", column.name))),
            }
        }
        let is_recorded = |described: &&Described| {
            let mut columns = undo.columns.iter();
            columns.any(|column| column.name == described.name)
        };
        let rest = now
            .iter()
            .filter(|described| described.generated.is_none() && !is_recorded(described));
        let has_unknown = rest.clone().any(|described| described.column().is_none());
        let recorded = undo.columns.iter().map(column);
        let table = Table {
            schema: Arc::clone(&undo.schema),
            name: Arc::clone(&undo.name),
            columns: recorded.chain(rest.filter_map(Described::column)).collect(),
            key: undo.key.clone(),
            ..Table::default()
        };
        let names = |has: fn(&Described) -> bool| {
            let having = now.iter().filter(|described| has(described));
            having
                .map(|described| Arc::clone(&described.name))
                .collect()
        };
        Ok(Self {
            undo,
            table,
            name,
            has_unknown,
            set_on_update: names(|described| described.set_on_update),
            leads_index: names(|described| described.leads_index),
            incoming: None,
        })
    }

    /// Columns that the images do not have, because they came later or because the branch did not
    /// change them, without generated ones.
    pub(super) fn rest(&self) -> &[Column] {
        &self.table.columns[self.undo.columns.len()..]
    }

    /// Whether there are more columns than the images and the rest have.
    pub(super) fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    /// Whether a row holds something that its image does not show.
    pub(super) fn has_more(&self) -> bool {
        self.has_unknown || !self.rest().is_empty()
    }

    /// Whether a row that the branch changed is gone, and cannot be made again: its record holds
    /// only some of its columns.
    pub(super) fn is_lost(&self, step: &Step) -> bool {
        let changed = step.row.before.is_some() && step.row.after.is_some();
        changed && step.current.is_none() && step.parked.is_none() && self.has_more()
    }

    /// The columns that can be written.
    pub(super) fn written(&self) -> impl Iterator<Item = usize> {
        (0..self.undo.columns.len()).filter(|&position| !self.undo.columns[position].generated)
    }

    /// Columns that an UPDATE sets by itself, unless it assigns them.
    pub(super) fn set_on_update(&self) -> impl Iterator<Item = &str> {
        self.set_on_update.iter().map(|name| &**name)
    }

    /// With which images of its rows are read and bound.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Whether foreign keys may reference a column that differs.
    pub(super) fn changes_referenced(&self, now: &RowImage, target: &RowImage) -> bool {
        self.written().any(|position| {
            let name = &self.undo.columns[position].name;
            now.values[position] != target.values[position] && self.leads_index.contains(name)
        })
    }

    /// Reads, if it is not known, which foreign keys reference it.
    pub(super) async fn read_incoming(
        &mut self,
        connection: &mut MySqlConnection,
        planner: &Planner,
    ) -> Result<(), PhaseTwoError> {
        if self.incoming.is_none() {
            let found = planner
                .references(connection, &self.undo.schema, &self.undo.name)
                .await
                .map_err(|error| failure(&error))?;
            let keys = found.iter().map(|key| key.to(&self.table.columns));
            self.incoming = Some(keys.collect());
        }
        Ok(())
    }

    /// Foreign keys that reference it, as far as they were asked for.
    pub(super) fn incoming(&self) -> &[IncomingKey] {
        self.incoming.as_deref().unwrap_or_default()
    }

    pub(super) fn key_of(&self, image: &RowImage) -> Vec<Value> {
        let key = self.table.key.iter();
        key.map(|&position| image.values[position].clone())
            .collect()
    }

    /// Reads the rows with the keys of these images, locked, by their keys.
    pub(super) async fn read_rows(
        &self,
        connection: &mut MySqlConnection,
        rows: &[&RowImage],
    ) -> Result<BTreeMap<Vec<Value>, Found>, PhaseTwoError> {
        let mut found = BTreeMap::new();
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let keys = RowKeys::of(&self.table, rows);
            let mut arguments = MySqlArguments::default();
            keys.bind(&mut arguments).map_err(|error| failure(&error))?;
            let sql = read_sql(&self.table, &keys.condition(None));
            let reading = Statement::own(sql, arguments);
            let rows = read_images(connection, reading, &self.table)
                .await
                .map_err(|error| failure(&error))?;
            for mut image in rows {
                let rest = image.values.split_off(self.undo.columns.len());
                found.insert(self.key_of(&image), Found { image, rest });
            }
        }
        Ok(found)
    }
}

fn changed(table: &str, what: &str) -> PhaseTwoError {
    PhaseTwoError::stuck(format!(
        "{table} changed since the branch ran ({what}), so its rows cannot be undone by \
         themselves; restore them by hand, then repair with accept"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(names: &[&str]) -> UndoTable {
        let column = |name: &&str| UndoColumn {
            name: (*name).into(),
            type_oid: Class::Signed as u32,
            text_type: Some("int(11)".into()),
            generated: false,
            merges: false,
        };
        UndoTable {
            schema: "s".into(),
            name: "t".into(),
            key: vec![0],
            columns: names.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    fn table(recorded: &[&str], now: &[(&str, Option<Class>)]) -> Result<CurrentTable, String> {
        let now = now.iter().map(|(name, class)| Described::of(name, *class));
        let now: Vec<Described> = now.collect();
        CurrentTable::new(undo(recorded), &now).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn what_the_record_does_not_hold_is_the_rest() {
        const INT: Option<Class> = Some(Class::Signed);
        let whole = table(&["id", "v"], &[("id", INT), ("v", INT)]).expect("as it was");
        assert!(!whole.has_more() && !whole.has_unknown());
        let more = table(&["id"], &[("v", INT), ("id", INT), ("w", INT)]).expect("narrow");
        let rest: Vec<&str> = more.rest().iter().map(|column| &*column.name).collect();
        assert_eq!(rest, ["v", "w"]);
        assert!(more.has_more() && !more.has_unknown());
        // A row that holds such a value cannot come back.
        let unknown = table(&["id"], &[("id", INT), ("v", None)]).expect("narrow");
        assert!(unknown.has_more() && unknown.has_unknown() && unknown.rest().is_empty());
        for (now, reason) in [
            (&[][..], "the table is gone"),
            (&[("v", INT)], "a column was dropped or renamed"),
            (&[("id", None)], "id changed its type"),
            (&[("id", Some(Class::Text))], "id changed its type"),
        ] {
            let error = table(&["id"], now).err().expect("it is not as it was");
            assert!(error.contains(reason), "{error}");
        }
    }
}
