//! SQL text to [`Analysis`], or a refusal that names the part in the way.
//!
//! Two readers look at each text: the lexer, which knows where the clauses
//! stand, and the parser, which knows what they mean. What one of them does not
//! understand, or what they see differently, is refused.

use std::ops::Range;

use sqlparser::{
    ast::{
        Assignment, AssignmentTarget, Delete, DoUpdate, FromTable, Ident, Insert, ObjectName,
        OnConflictAction, OnInsert, SetExpr, Statement, TableFactor, TableObject, TableWithJoins,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::{
    functions::inspect,
    lexer::{LexError, Token, TokenKind, tokenize},
    locking::{LockingClause, blank},
    statement::{Analysis, Read, TableName, Unsupported, Uses, WriteKind, WriteStatement},
    table::quote,
};
use crate::limits;

/// Names that start like this belong to this library.
pub(crate) const RESERVED_PREFIX: &str = "accede_";

/// Settings that `SET LOCAL` may change: none of them touches durability,
/// isolation, lock waits, name resolution or triggers.
const HARMLESS_SETTINGS: &[&str] = &[
    "statement_timeout",
    "application_name",
    "work_mem",
    "timezone",
    "datestyle",
    "intervalstyle",
    "enable_seqscan",
    "enable_nestloop",
    "plan_cache_mode",
    "jit",
];

/// An identifier as the catalog stores it.
pub(crate) fn identifier(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// The single statements of a text, if it has several.
pub(crate) fn split(sql: &str) -> Option<Vec<&str>> {
    split_by(sql, tokenize)
}

/// The same for the texts that `tokenize` reads.
pub(crate) fn split_by(
    sql: &str,
    tokenize: fn(&str) -> Result<Vec<Token>, LexError>,
) -> Option<Vec<&str>> {
    if !sql.contains(';') || sql.len() > limits::MAX_SQL_BYTES {
        return None;
    }
    let tokens = tokenize(sql).ok()?;
    let parts = tokens.split(|token| token.is_symbol(';') && token.depth == 0);
    let texts: Vec<&str> = parts
        .filter_map(|part| Some(&sql[part.first()?.span.start..part.last()?.span.end]))
        .collect();
    (texts.len() > 1).then_some(texts)
}

/// Reads a statement text.
pub(crate) fn analyse(sql: &str) -> Result<Analysis, Unsupported> {
    if sql.len() > limits::MAX_SQL_BYTES {
        return Err(Unsupported::new(
            format!("its text of {} bytes", sql.len()),
            format!("keep it below {} bytes", limits::MAX_SQL_BYTES),
        ));
    }
    let mut tokens = tokenize(sql).map_err(|error| {
        Unsupported::new(
            format!("{} in its text", error.0),
            "write it in plain syntax",
        )
    })?;
    while tokens.last().is_some_and(|t| t.is_symbol(';')) {
        tokens.pop();
    }
    if tokens.is_empty() {
        return Ok(Analysis::Read(Read::default()));
    }
    if tokens.iter().any(|t| t.is_symbol(';')) {
        return Err(Unsupported::new(
            "several statements in one text with parameters",
            "send them one by one, or without parameters through raw_sql",
        ));
    }
    Reader { sql, tokens }.read()
}

pub(super) struct Reader<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: Vec<Token>,
}

impl Reader<'_> {
    pub(super) fn word_at(&self, index: usize, word: &str) -> bool {
        self.tokens
            .get(index)
            .is_some_and(|t| t.is_word(self.sql, word))
    }

    pub(super) fn end(&self) -> usize {
        self.tokens.last().map_or(self.sql.len(), |t| t.span.end)
    }

    /// The first token from `from` on that is this keyword outside all brackets.
    pub(super) fn find(&self, from: usize, word: &str) -> Option<usize> {
        (from..self.tokens.len())
            .find(|&i| self.tokens[i].depth == 0 && self.tokens[i].is_word(self.sql, word))
    }

    fn read(&self) -> Result<Analysis, Unsupported> {
        let first = self
            .tokens
            .iter()
            .position(|t| !t.is_symbol('('))
            .unwrap_or(0);
        let word = self.sql[self.tokens[first].span.clone()].to_ascii_uppercase();
        match word.as_str() {
            "SELECT" | "VALUES" | "WITH" | "INSERT" | "UPDATE" | "DELETE" => self.parsed(),
            "TABLE" => Err(Unsupported::new("TABLE", "write SELECT * FROM the table")),
            "SHOW" => Ok(Analysis::Read(Read::default())),
            "EXPLAIN"
                if !self
                    .tokens
                    .iter()
                    .any(|t| t.is_word(self.sql, "ANALYZE") || t.is_word(self.sql, "ANALYSE")) =>
            {
                Ok(Analysis::Read(Read::default()))
            }
            "LOCK" => Ok(Analysis::Read(Read::default())),
            "SET" => self.set(),
            _ => Err(refused_by_name(&word)),
        }
    }

    fn set(&self) -> Result<Analysis, Unsupported> {
        let name = self
            .tokens
            .get(2)
            .map(|t| self.sql[t.span.clone()].to_ascii_lowercase());
        if self.word_at(1, "LOCAL") && name.is_some_and(|n| HARMLESS_SETTINGS.contains(&&*n)) {
            return Ok(Analysis::Read(Read::default()));
        }
        Err(Unsupported::new(
            "SET of this parameter, which may change durability, isolation or names",
            "set it in the connection options of the pool",
        ))
    }

    fn parsed(&self) -> Result<Analysis, Unsupported> {
        let locks = self.locking_clauses()?;
        let text = blank(self.sql, self.end(), &self.not_for_the_parser(&locks));
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, &text).map_err(|error| {
            Unsupported::new(
                format!("the parser does not understand it ({error})"),
                "write it in simpler syntax, or use XA mode",
            )
        })?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(Unsupported::new(
                "several statements in one text",
                "send them one by one",
            ));
        };
        let uses = inspect(&statement)?;
        match &statement {
            Statement::Insert(insert) => self.insert(insert, uses),
            Statement::Update(update) => self.update(update, uses),
            Statement::Delete(delete) => self.delete(delete, uses),
            Statement::Query(query) => match &*query.body {
                SetExpr::Insert(Statement::Insert(insert)) => self.insert(insert, uses),
                SetExpr::Update(Statement::Update(update)) => self.update(update, uses),
                SetExpr::Delete(Statement::Delete(delete)) => self.delete(delete, uses),
                _ if locks.is_empty() => Ok(Analysis::Read(Read { uses })),
                _ => self.locking_read(query, &locks, uses),
            },
            _ => Err(Unsupported::new("this kind of statement", "use XA mode")),
        }
    }

    /// Clauses that the parser does not know in full: row locks, OVERRIDING, and the
    /// target of ON CONFLICT, which holds no more than columns, immutable expressions
    /// and names.
    fn not_for_the_parser(&self, locks: &[LockingClause]) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = locks.iter().map(|lock| lock.span.clone()).collect();
        let conflict = (1..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0 && self.word_at(i, "CONFLICT") && self.word_at(i - 1, "ON")
        });
        if let Some(conflict) = conflict
            && let Some(action) = self.find(conflict, "DO")
        {
            spans.push(self.tokens[conflict].span.end..self.tokens[action].span.start);
        }
        let overriding = (2..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0
                && self.word_at(i, "VALUE")
                && (self.word_at(i - 1, "SYSTEM") || self.word_at(i - 1, "USER"))
                && self.word_at(i - 2, "OVERRIDING")
        });
        if let Some(value) = overriding {
            spans.push(self.tokens[value - 2].span.start..self.tokens[value].span.end);
        }
        spans.sort_by_key(|span| span.start);
        spans
    }

    fn insert(&self, insert: &Insert, uses: Uses) -> Result<Analysis, Unsupported> {
        let action = match &insert.on {
            None => &OnConflictAction::DoNothing,
            Some(OnInsert::OnConflict(on)) => &on.action,
            Some(_) => {
                return Err(Unsupported::new(
                    "what it does on a conflict",
                    "write ON CONFLICT DO NOTHING or DO UPDATE",
                ));
            }
        };
        let TableObject::TableName(name) = &insert.table else {
            return Err(Unsupported::new(
                "INSERT into something that is no table",
                "name a table",
            ));
        };
        let main = self.main_keyword("INSERT")?;
        let table = table_name(name)?;
        let reference = match &insert.table_alias {
            Some(alias) => quote(&identifier(&alias.alias)),
            None => quote(&table.name),
        };
        let mut write = self.simple_write(
            WriteKind::Insert,
            main,
            (table, reference),
            insert.returning.is_some(),
            uses,
        )?;
        if let OnConflictAction::DoUpdate(update) = action {
            self.conflict_update(main, update, &mut write)?;
        }
        Ok(Analysis::Write(Box::new(write)))
    }

    /// Finds `DO UPDATE SET … WHERE …`.
    fn conflict_update(
        &self,
        main: usize,
        update: &DoUpdate,
        write: &mut WriteStatement,
    ) -> Result<(), Unsupported> {
        let action = (main..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0
                && self.word_at(i, "DO")
                && self.word_at(i + 1, "UPDATE")
                && self.word_at(i + 2, "SET")
        });
        let action = action.ok_or_else(|| self.seen_differently())?;
        let condition = self.find(action, "WHERE");
        if condition.is_some() != update.selection.is_some() {
            return Err(self.seen_differently());
        }
        if let Some(condition) = condition {
            let span = &self.tokens[condition].span;
            write.condition = Some(span.end..write.body.end);
            write.body.end = span.start;
        }
        write.assigned = assigned_columns(&update.assignments)?;
        write.updates_on_conflict = true;
        Ok(())
    }

    fn delete(&self, delete: &Delete, uses: Uses) -> Result<Analysis, Unsupported> {
        let FromTable::WithFromKeyword(from) = &delete.from else {
            return Err(Unsupported::new(
                "DELETE without FROM",
                "write DELETE FROM table",
            ));
        };
        let [table] = from.as_slice() else {
            return Err(Unsupported::new(
                "DELETE from several tables",
                "delete from one at a time",
            ));
        };
        let main = self.main_keyword("DELETE")?;
        self.no_only(main + 2)?;
        let (table, reference) = single_table(table)?;
        self.simple_write(
            WriteKind::Delete,
            main,
            (table, reference),
            delete.returning.is_some(),
            uses,
        )
        .map(|write| Analysis::Write(Box::new(write)))
    }

    /// INSERT and DELETE: what RETURNING shows is the whole image already.
    fn simple_write(
        &self,
        kind: WriteKind,
        main: usize,
        (table, reference): (TableName, String),
        returns: bool,
        uses: Uses,
    ) -> Result<WriteStatement, Unsupported> {
        self.no_reserved_names()?;
        let returning = self.find(main, "RETURNING");
        if returning.is_some() != returns {
            return Err(self.seen_differently());
        }
        let body_end = returning.map_or(self.end(), |r| self.tokens[r].span.start);
        Ok(WriteStatement {
            kind,
            aliased: reference != quote(&table.name),
            table,
            reference,
            assigned: Vec::new(),
            deltas: Vec::new(),
            updates_on_conflict: false,
            uses,
            prefix: 0..0,
            head: 0..0,
            body: 0..body_end,
            from: None,
            condition: None,
            returning: returning.map(|r| self.tokens[r].span.end..self.end()),
            wildcards: Vec::new(),
            wildcard_sources: Vec::new(),
        })
    }

    pub(super) fn main_keyword(&self, word: &str) -> Result<usize, Unsupported> {
        self.find(0, word).ok_or_else(|| self.seen_differently())
    }

    /// The parser reads ONLY as a table's name.
    pub(super) fn no_only(&self, index: usize) -> Result<(), Unsupported> {
        if self.word_at(index, "ONLY") {
            return Err(Unsupported::new(
                "ONLY",
                "leave it out: tables with inheritance children are refused anyway",
            ));
        }
        Ok(())
    }

    pub(super) fn no_reserved_names(&self) -> Result<(), Unsupported> {
        let reserved = self.tokens.iter().find(|t| {
            let text = self.sql[t.span.clone()].trim_start_matches('"');
            matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdentifier)
                && text
                    .get(..RESERVED_PREFIX.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX))
        });
        match reserved {
            Some(token) => Err(Unsupported::new(
                format!("the name {}", &self.sql[token.span.clone()]),
                format!("names that start with {RESERVED_PREFIX} are reserved; choose another"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn seen_differently(&self) -> Unsupported {
        Unsupported::new(
            "its clauses cannot be told apart",
            "put sub-expressions into brackets, or use XA mode",
        )
    }
}

fn refused_by_name(word: &str) -> Unsupported {
    match word {
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            Unsupported::new(
                format!("{word}: the local transaction belongs to AtTransaction"),
                "use its commit and rollback, and its begin for a savepoint",
            )
        }
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => Unsupported::new(
            format!("{word}, which hides the statement"),
            "send the statement itself; it is prepared and kept anyway",
        ),
        "TRUNCATE" => Unsupported::new(
            "TRUNCATE, which keeps no old rows",
            "use DELETE FROM the table",
        ),
        "MERGE" => Unsupported::new("MERGE", "use UPDATE, INSERT and DELETE one by one"),
        "COPY" => Unsupported::new("COPY", "use INSERT with several rows"),
        "RESET" | "DISCARD" => Unsupported::new(
            format!("{word}, which changes the session"),
            "set parameters in the connection options of the pool",
        ),
        _ => Unsupported::new(
            format!("{word}, whose effects cannot be undone"),
            "run it outside the global transaction, or use XA mode",
        ),
    }
}

pub(super) fn table_name(name: &ObjectName) -> Result<TableName, Unsupported> {
    let parts: Option<Vec<_>> = name
        .0
        .iter()
        .map(|part| part.as_ident().map(identifier))
        .collect();
    match parts.as_deref() {
        Some([name]) => Ok(TableName {
            schema: None,
            name: name.clone(),
        }),
        Some([schema, name]) => Ok(TableName {
            schema: Some(schema.clone()),
            name: name.clone(),
        }),
        _ => Err(Unsupported::new(
            format!("the table name {name}"),
            "name it as table or schema.table",
        )),
    }
}

/// A table factor that is a plain table, and how the statement refers to it.
pub(super) fn plain_table(
    factor: &TableFactor,
) -> Result<Option<(TableName, String)>, Unsupported> {
    let TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = factor
    else {
        return Ok(None);
    };
    if !(with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty()) {
        return Ok(None);
    }
    let table = table_name(name)?;
    let reference = match alias {
        Some(alias) if !alias.columns.is_empty() => return Ok(None),
        Some(alias) => identifier(&alias.name),
        None => table.name.clone(),
    };
    Ok(Some((table, reference)))
}

pub(super) fn single_table(table: &TableWithJoins) -> Result<(TableName, String), Unsupported> {
    match plain_table(&table.relation)? {
        Some((name, reference)) if table.joins.is_empty() => Ok((name, quote(&reference))),
        _ => Err(Unsupported::new(
            "its target, which is no plain table",
            "name one table, with an alias at most",
        )),
    }
}

pub(super) fn assigned_columns(assignments: &[Assignment]) -> Result<Vec<String>, Unsupported> {
    assigned_names(assignments, identifier)
}

/// The columns that are assigned, read by `identifier`.
fn assigned_names(
    assignments: &[Assignment],
    identifier: impl Fn(&Ident) -> String,
) -> Result<Vec<String>, Unsupported> {
    let mut columns = Vec::new();
    for assignment in assignments {
        let targets = match &assignment.target {
            AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
            AssignmentTarget::Tuple(names) => names.as_slice(),
        };
        for target in targets {
            // `SET point.x = 1` assigns the column `point`.
            let first = target
                .0
                .first()
                .and_then(|part| part.as_ident())
                .ok_or_else(|| {
                    Unsupported::new(
                        format!("the assignment to {target}"),
                        "assign plain columns",
                    )
                })?;
            columns.push(identifier(first));
        }
    }
    Ok(columns)
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;
