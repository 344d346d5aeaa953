//! What is known about a table that a branch writes.

use std::sync::Arc;

use super::escrow::Bounds;

/// When two values of a column's type are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Equality {
    /// Exactly when their binary forms are.
    Bytes,
    /// `numeric`: trailing zeros do not count.
    Numeric,
    /// `real` and `double precision`: zero has two signs.
    Float,
    /// Unknown (collations that ignore case, intervals, extensions …).
    Unknown,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    pub(crate) type_oid: u32,
    /// The type, schema-qualified and quoted, as a cast may name it.
    pub(crate) type_name: Arc<str>,
    /// The image holds the value's text: the driver cannot send the binary form of
    /// multiranges, the database does not take that of an empty `oidvector`, and that
    /// of xml lacks the declaration.
    pub(crate) as_text: bool,
    /// Others may change it meanwhile; an undo leaves it as they did.
    pub(crate) merges: bool,
    /// Several transactions may add to it at the same time, within these bounds.
    pub(crate) escrow: Option<Bounds>,
    /// Computed by the database; never written.
    pub(crate) generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: an UPDATE cannot bring a value back.
    pub(crate) identity_always: bool,
    pub(crate) equality: Equality,
}

/// A unique index, the primary key's among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UniqueIndex {
    pub(crate) name: Arc<str>,
    /// Positions in [`Table::columns`]. Empty when the index is over
    /// expressions: then all its values share one lock.
    pub(crate) columns: Vec<usize>,
    pub(crate) nulls_are_equal: bool,
}

/// What the database does to referencing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReferentialAction {
    /// NO ACTION or RESTRICT: refuses.
    Refuse,
    /// CASCADE, SET NULL or SET DEFAULT: changes them.
    Change(&'static str),
}

/// A foreign key of another table (or of this one) that references this table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncomingKey {
    pub(crate) constraint: Arc<str>,
    /// The referencing table, qualified and quoted.
    pub(crate) child: Arc<str>,
    /// The referencing columns, in the order of `columns`.
    pub(crate) child_columns: Vec<Arc<str>>,
    /// Positions of the referenced columns in [`Table::columns`].
    pub(crate) columns: Vec<usize>,
    pub(crate) on_delete: ReferentialAction,
    pub(crate) on_update: ReferentialAction,
}

/// A table, as the catalog described it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    /// Where its rows lie: itself, or the partitions of a partitioned table.
    pub(crate) storage: Vec<u32>,
    pub(crate) schema: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) columns: Vec<Column>,
    /// The primary key: positions in `columns`.
    pub(crate) key: Vec<usize>,
    /// All unique indexes but the primary key's.
    pub(crate) unique: Vec<UniqueIndex>,
    pub(crate) incoming: Vec<IncomingKey>,
    /// Columns that undo records always hold, beside those of `key` and `unique`.
    pub(crate) recorded: Vec<usize>,
}

impl Table {
    /// `schema.table` for people.
    pub(crate) fn display_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether images of its rows hold texts.
    pub(crate) fn has_texts(&self) -> bool {
        self.columns.iter().any(|column| column.as_text)
    }

    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == name)
    }
}

/// `xml[]`.
const XML_ARRAY: u32 = 143;

/// The text form of a column whose image holds it.
pub(crate) fn text_form(column: &str, type_oid: u32) -> String {
    // Written out as xml the elements would lose their declarations.
    let elements = if type_oid == XML_ARRAY {
        "::text[]"
    } else {
        ""
    };
    format!("{column}{elements}::text")
}

/// A name in double quotes.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub(crate) fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}
