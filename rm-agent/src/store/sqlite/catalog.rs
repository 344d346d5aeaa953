//! What AT must know about the tables of a database: read as a whole, for one version
//! of its schema.

mod read;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use super::plan::Plan;
use crate::{
    at::{
        image::RowImage,
        lock_key,
        sqlite::value::Collation,
        table::{Table, quote_qualified},
    },
    limits,
};

pub(super) use read::read;

/// The one database of a connection that branches write.
pub(super) const SCHEMA: &str = "main";

/// All tables at one version of the schema.
#[derive(Debug)]
pub(super) struct Catalog {
    /// `PRAGMA schema_version`: every change of the schema changes it.
    pub(super) version: i64,
    /// By the root pages of the tables and of their indexes.
    roots: HashMap<i64, Arc<TableInfo>>,
    /// By their names in small letters.
    names: HashMap<String, Arc<TableInfo>>,
    /// Triggers of views.
    pub(super) view_triggers: Vec<Trigger>,
    /// The root page of `sqlite_sequence`, if there is one.
    pub(super) sequence: Option<i64>,
    /// The most columns of an image.
    pub(super) widest: usize,
    /// Functions that are part of SQLite.
    pub(super) functions: HashSet<String>,
    plans: Mutex<HashMap<String, Arc<Plan>>>,
}

impl Catalog {
    /// The table with this root page, or with an index of this root page.
    pub(super) fn by_root(&self, root: i64) -> Option<&Arc<TableInfo>> {
        self.roots.get(&root)
    }

    /// The table of this name, whatever the case of its letters.
    pub(super) fn by_name(&self, name: &str) -> Option<&Arc<TableInfo>> {
        self.names.get(&name.to_ascii_lowercase())
    }

    pub(super) fn remembered(&self, sql: &str) -> Option<Arc<Plan>> {
        self.plans.lock().get(sql).map(Arc::clone)
    }

    pub(super) fn remember(&self, sql: &str, plan: &Arc<Plan>) {
        let mut plans = self.plans.lock();
        if plans.len() >= limits::MAX_REMEMBERED_STATEMENTS {
            plans.clear();
        }
        plans.insert(sql.to_owned(), Arc::clone(plan));
    }
}

/// One column of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    /// Computed by the database; never written.
    pub(super) generated: bool,
}

/// A trigger of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    /// The table or view, in small letters.
    pub(super) table: String,
    /// It runs before the row changes.
    pub(super) before: bool,
    /// Its statements may remove rows that are in the way of others.
    pub(super) replaces: bool,
    /// Names that it has, in small letters.
    pub(super) words: HashSet<String>,
}

/// A foreign key of another table (or of this one) that references this table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    /// The referencing table, qualified and quoted.
    pub(super) child: String,
    /// The referencing columns, in the order of `columns`.
    pub(super) child_columns: Vec<String>,
    /// Positions of the referenced columns in the image.
    pub(super) columns: Vec<usize>,
    /// How they are compared.
    pub(super) collations: Vec<Collation>,
    /// A delete changes the referencing rows.
    pub(super) delete_changes: bool,
}

/// A foreign key of this table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// The referenced table, qualified and quoted.
    pub(super) parent: String,
    /// The referenced columns, quoted, in the order of `columns`.
    pub(super) parent_columns: Vec<String>,
    /// Positions of the referencing columns in the image.
    pub(super) columns: Vec<usize>,
}

/// One table.
#[derive(Debug)]
pub(super) struct TableInfo {
    pub(super) root: i64,
    pub(super) name: Arc<str>,
    pub(super) without_rowid: bool,
    /// The columns of an image. The first is the hidden row number if rows have one
    /// under no other name.
    pub(super) columns: Vec<Column>,
    /// What tells rows apart: the row number, or the primary key of a table WITHOUT
    /// ROWID. Positions in `columns`.
    pub(super) key: Vec<usize>,
    /// The declared primary key.
    primary: Vec<usize>,
    /// How the columns of `key` are compared.
    pub(super) collations: Vec<Collation>,
    /// The same for row locks: a column for each part of the key and of each unique
    /// index, whose values are in canonical form.
    locks: Table,
    /// Where the columns of `locks` come from.
    sources: Vec<(usize, Collation)>,
    /// A unique index holds some rows only, and which ones an image does not tell.
    has_partial: bool,
    pub(super) incoming: Vec<Incoming>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) triggers: Vec<Trigger>,
    /// Its constraints may remove rows that are in the way of others.
    pub(super) replaces: bool,
    /// What keeps AT from writing it: the part, and what to do.
    pub(super) obstacle: Option<(String, &'static str)>,
}

impl TableInfo {
    /// Qualified and quoted.
    pub(super) fn qualified(&self) -> String {
        quote_qualified(SCHEMA, &self.name)
    }

    /// Whether a row that is removed may change others of the table. SQLite itself leaves
    /// references without their rows where REPLACE meets that.
    pub(super) fn cascades_to_itself(&self) -> bool {
        let name = self.qualified();
        let mut incoming = self.incoming.iter();
        incoming.any(|reference| reference.delete_changes && reference.child == name)
    }

    /// The same with some of its columns only, which hold the key, for reading and
    /// writing its rows.
    pub(super) fn with_columns(
        &self,
        positions: &[usize],
        key: Vec<usize>,
        incoming: Vec<Incoming>,
        outgoing: Vec<Outgoing>,
    ) -> Self {
        let columns = positions
            .iter()
            .map(|&position| self.columns[position].clone());
        Self {
            root: self.root,
            name: Arc::clone(&self.name),
            without_rowid: self.without_rowid,
            columns: columns.collect(),
            key,
            primary: Vec::new(),
            collations: self.collations.clone(),
            locks: Table::default(),
            sources: Vec::new(),
            has_partial: false,
            incoming,
            outgoing,
            triggers: self.triggers.clone(),
            replaces: self.replaces,
            obstacle: None,
        }
    }

    /// How the columns of a unique index, or of the key, are compared.
    fn collations_of(&self, columns: &[usize]) -> Vec<Collation> {
        let indexes = self.locks.unique.iter().map(|index| &index.columns);
        let found = indexes.chain([&self.locks.key]).find(|index| {
            let of_index = |column: &usize| index.iter().any(|&i| self.sources[i].0 == *column);
            index.len() == columns.len() && columns.iter().all(of_index)
        });
        let collation = |column: &usize| {
            let mut sources = found.into_iter().flatten().map(|&i| self.sources[i]);
            let source = sources.find(|(source, _)| source == column);
            source.map_or(Collation::Binary, |(_, collation)| collation)
        };
        columns.iter().map(collation).collect()
    }

    /// All that a unique index holds for equal, the same for each row.
    fn canonical(&self, image: &RowImage) -> RowImage {
        let value =
            |&(column, collation): &(usize, Collation)| collation.canonical(&image.values[column]);
        RowImage {
            values: self.sources.iter().map(value).collect(),
        }
    }

    /// Adds the row locks of a changed row.
    pub(super) fn add_locks(
        &self,
        keys: &mut std::collections::BTreeSet<Vec<u8>>,
        before: Option<&RowImage>,
        after: Option<&RowImage>,
    ) {
        let before = before.map(|image| self.canonical(image));
        let after = after.map(|image| self.canonical(image));
        if self.has_partial {
            // The row may enter or leave the index with the same values.
            for image in [&before, &after].into_iter().flatten() {
                lock_key::add_keys(keys, &self.locks, Some(image), None);
            }
        } else {
            lock_key::add_keys(keys, &self.locks, before.as_ref(), after.as_ref());
        }
    }

    /// Tells the rows of the table apart; `key` has the values of its key columns.
    pub(super) fn identity(&self, key: &[crate::at::image::Value]) -> Vec<u8> {
        let mut identity = Vec::new();
        for (value, collation) in key.iter().zip(&self.collations) {
            let value = collation.canonical(value).unwrap_or_default();
            identity.extend((value.len() as u64).to_be_bytes());
            identity.extend(&value[..]);
        }
        identity
    }

    /// The values of the key columns.
    pub(super) fn key_of(&self, image: &RowImage) -> Vec<crate::at::image::Value> {
        self.key
            .iter()
            .map(|&position| image.values[position].clone())
            .collect()
    }
}
