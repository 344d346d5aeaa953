//! The model of a statement that may run inside a global transaction.

use std::ops::Range;

/// What a statement text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Analysis {
    /// Changes and locks nothing: runs untouched.
    Read(Read),
    /// `SELECT … FOR UPDATE` and its weaker forms.
    LockingRead(LockingRead),
    /// INSERT, UPDATE or DELETE of one table.
    Write(Box<WriteStatement>),
}

/// A statement that reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) uses: Uses,
}

/// What a statement names, and what must not write behind its back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Functions, by their plain names.
    pub(crate) functions: Vec<String>,
    /// Names behind a dot: columns, or functions of a row (`stock.touch`).
    pub(crate) attributes: Vec<String>,
    /// Tables and views.
    pub(crate) tables: Vec<TableName>,
}

/// A table by the name that the statement uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// A table whose rows a SELECT locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockedTable {
    pub(crate) table: TableName,
    /// How the statement refers to it, quoted.
    pub(crate) reference: String,
}

/// What a locking read does about a row that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// Waits for it.
    Block,
    /// NOWAIT: fails.
    Fail,
    /// SKIP LOCKED: leaves it out.
    Skip,
}

/// A SELECT that takes row locks in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockingRead {
    pub(crate) tables: Vec<LockedTable>,
    pub(crate) uses: Uses,
    pub(crate) wait: Wait,
    /// Where further output columns go: right after the select list.
    pub(crate) select_list_end: usize,
    /// Where the statement ends, before a semicolon.
    pub(crate) end: usize,
}

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteKind {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

/// A write of one table, as pieces of the user's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteStatement {
    pub(crate) kind: WriteKind,
    pub(crate) table: TableName,
    /// How the statement's expressions refer to the table, quoted.
    pub(crate) reference: String,
    /// Whether that is an alias.
    pub(crate) aliased: bool,
    /// Columns that an UPDATE or ON CONFLICT DO UPDATE assigns.
    pub(crate) assigned: Vec<String>,
    /// UPDATE: the columns that it only adds to or takes from: all that it assigns, or none.
    pub(crate) deltas: Vec<String>,
    /// INSERT: it has ON CONFLICT DO UPDATE.
    pub(crate) updates_on_conflict: bool,
    pub(crate) uses: Uses,
    /// UPDATE: the text before the keyword (a WITH clause).
    pub(crate) prefix: Range<usize>,
    /// UPDATE: the table with its alias.
    pub(crate) head: Range<usize>,
    /// UPDATE: the assignments. INSERT, DELETE: everything before RETURNING and before
    /// the condition of DO UPDATE.
    pub(crate) body: Range<usize>,
    /// UPDATE: the other tables.
    pub(crate) from: Option<Range<usize>>,
    /// The condition of an UPDATE or of ON CONFLICT DO UPDATE.
    pub(crate) condition: Option<Range<usize>>,
    /// The RETURNING list.
    pub(crate) returning: Option<Range<usize>>,
    /// UPDATE: positions of bare `*` items in the RETURNING list.
    pub(crate) wildcards: Vec<usize>,
    /// What such an item stands for: the names of the row sources, quoted.
    pub(crate) wildcard_sources: Vec<String>,
}

/// Why a statement may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsupported {
    /// The part that is in the way.
    pub(crate) part: String,
    /// What to do instead.
    pub(crate) advice: String,
}

impl Unsupported {
    pub(crate) fn new(part: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            advice: advice.into(),
        }
    }
}
