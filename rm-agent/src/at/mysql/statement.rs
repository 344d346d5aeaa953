//! The model of a statement that may run inside a global transaction.

use std::ops::Range;

use super::insert::InsertParts;
use crate::at::{
    escrow::Deltas,
    statement::{TableName, Unsupported, Wait, WriteKind},
};

/// What a statement text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Analysis {
    /// Changes and locks nothing: runs untouched.
    Read(Uses),
    /// `SELECT … FOR UPDATE` and its weaker form.
    Locking(Locking),
    /// INSERT, UPDATE or DELETE of one table.
    Write(Box<Write>),
}

/// What a statement names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Tables and views.
    pub(crate) tables: Vec<TableName>,
    /// Functions that are not known to be harmless, in small letters.
    pub(crate) functions: Vec<String>,
}

/// A SELECT that takes row locks in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locking {
    pub(crate) table: TableName,
    /// How the statement refers to the table, quoted.
    pub(crate) reference: String,
    pub(crate) uses: Uses,
    pub(crate) wait: Wait,
    /// Where further output columns go.
    pub(crate) select_list_end: usize,
    pub(crate) end: usize,
}

/// A clause of the user's text and how many parameters it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clause {
    pub(crate) span: Range<usize>,
    pub(crate) parameters: usize,
}

/// A value that an UPDATE assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) clause: Clause,
    /// The names in it, in small letters, if it is made of nothing but names, constants,
    /// parameters and operators: then it reads the same each time.
    pub(crate) names: Option<Vec<String>>,
}

/// A write of one table, as pieces of the user's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) kind: WriteKind,
    pub(crate) table: TableName,
    /// How the statement's expressions refer to the table, quoted.
    pub(crate) reference: String,
    /// UPDATE, ON DUPLICATE KEY UPDATE: the columns that it assigns.
    pub(crate) assigned: Vec<String>,
    /// UPDATE: their values, in the same order.
    pub(crate) values: Vec<Assigned>,
    /// UPDATE: the columns, in small letters, that it only adds to or takes from.
    pub(crate) deltas: Deltas,
    pub(crate) uses: Uses,
    /// UPDATE, DELETE: the table as the statement names it, with its alias; or all tables, if
    /// it joins several.
    pub(crate) target: Clause,
    /// UPDATE, DELETE: it joins several tables, of which it writes one.
    pub(crate) joins: bool,
    /// Everything before the condition, the order or RETURNING.
    pub(crate) head: Clause,
    pub(crate) condition: Option<Clause>,
    pub(crate) order: Option<Clause>,
    pub(crate) limit: Option<Clause>,
    pub(crate) returning: Option<Range<usize>>,
    /// How many parameters the text has.
    pub(crate) parameters: usize,
    pub(crate) insert: Option<InsertParts>,
}

/// What to say about a statement that its first word rules out.
pub(super) fn refused_by_name(word: &str) -> Unsupported {
    match word {
        "SAVEPOINT" | "RELEASE" => Unsupported::new(
            format!("{word} of a name that is not plain"),
            "use ASCII characters, or AtTransaction's begin",
        ),
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" => Unsupported::new(
            format!("{word}: the local transaction belongs to AtTransaction"),
            "use its commit and rollback, and its begin for a savepoint",
        ),
        "TRUNCATE" => Unsupported::new(
            "TRUNCATE, which keeps no old rows and commits",
            "use DELETE FROM the table",
        ),
        "SET" | "USE" => Unsupported::new(
            format!("{word}, which changes the session"),
            "set variables in the connection options of the pool",
        ),
        "LOCK" | "UNLOCK" => Unsupported::new(
            format!("{word} TABLES, which commits"),
            "lock rows by SELECT … FOR UPDATE",
        ),
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => Unsupported::new(
            format!("{word}, which hides the statement"),
            "send the statement itself; it is prepared and kept anyway",
        ),
        "LOAD" => Unsupported::new("LOAD DATA", "use INSERT with several rows"),
        "CREATE" | "ALTER" | "DROP" | "RENAME" => Unsupported::new(
            format!("{word}, which commits the local transaction"),
            "change the schema outside global transactions",
        ),
        _ => xa(format!("{word}, whose effects cannot be undone")),
    }
}

pub(super) fn xa(part: impl Into<String>) -> Unsupported {
    Unsupported::new(
        part,
        "use XA mode, or run it outside the global transaction",
    )
}
