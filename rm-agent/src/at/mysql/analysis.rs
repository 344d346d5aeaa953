//! SQL text in MariaDB's dialect to [`Analysis`], or a refusal that names the part in
//! the way. As for PostgreSQL, the lexer knows where the clauses stand and the parser
//! what they mean; what one of them does not understand, or what they see
//! differently, is refused.

use std::ops::Range;

use sqlparser::{
    ast::{
        Assignment, AssignmentTarget, Ident, Insert, ObjectName, OnInsert, SetExpr, Statement,
        TableFactor, TableObject, TableWithJoins,
    },
    dialect::MySqlDialect,
    parser::Parser,
};

use super::{
    functions::{groups, inspect},
    insert::{OnConflict, insert_parts},
    lexer::tokenize,
    quote,
    statement::{Analysis, Clause, Locking, Uses, Write, refused_by_name, xa},
};
use crate::{
    at::{
        analysis::{RESERVED_PREFIX, split_by},
        escrow::Deltas,
        lexer::{Token, TokenKind},
        statement::{TableName, Unsupported, Wait, WriteKind},
    },
    limits,
};

/// The single statements of a text, if it has several.
pub(crate) fn split(sql: &str) -> Option<Vec<&str>> {
    split_by(sql, tokenize)
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
        return Ok(Analysis::Read(Uses::default()));
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
        (from..self.tokens.len()).find(|&i| self.tokens[i].depth == 0 && self.word_at(i, word))
    }

    pub(super) fn clause(&self, span: Range<usize>) -> Clause {
        let inside = |t: &&Token| {
            t.kind == TokenKind::Parameter && span.start <= t.span.start && t.span.end <= span.end
        };
        Clause {
            parameters: self.tokens.iter().filter(inside).count(),
            span,
        }
    }

    fn read(&self) -> Result<Analysis, Unsupported> {
        let first = self.tokens.iter().find(|t| !t.is_symbol('('));
        let word = first.map_or("", |t| &self.sql[t.span.clone()]);
        match word.to_ascii_uppercase().as_str() {
            "SELECT" | "VALUES" | "WITH" => self.query(),
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" => self.write(),
            "SHOW" => Ok(Analysis::Read(Uses::default())),
            "EXPLAIN" | "DESCRIBE" | "DESC" => {
                let (_, uses) = self.parse(&self.sql[..self.end()])?;
                Ok(Analysis::Read(uses))
            }
            word => Err(refused_by_name(word)),
        }
    }

    fn parse(&self, text: &str) -> Result<(Statement, Uses), Unsupported> {
        let mut statements = Parser::parse_sql(&MySqlDialect {}, text).map_err(|error| {
            Unsupported::new(
                format!("the parser does not understand it ({error})"),
                "write it in simpler syntax, or use XA mode",
            )
        })?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(self.seen_differently());
        };
        let uses = inspect(&statement)?;
        Ok((statement, uses))
    }

    /// The lock clause at `index`: where it ends and what it does about locks.
    fn lock_clause(&self, index: usize) -> Option<(usize, Wait)> {
        let mut at = if self.word_at(index, "FOR") && self.word_at(index + 1, "UPDATE")
            || self.word_at(index, "FOR") && self.word_at(index + 1, "SHARE")
        {
            index + 2
        } else if self.word_at(index, "LOCK")
            && self.word_at(index + 1, "IN")
            && self.word_at(index + 2, "SHARE")
            && self.word_at(index + 3, "MODE")
        {
            index + 4
        } else {
            return None;
        };
        let mut wait = Wait::Block;
        if self.word_at(at, "NOWAIT") {
            (at, wait) = (at + 1, Wait::Fail);
        } else if self.word_at(at, "SKIP") && self.word_at(at + 1, "LOCKED") {
            (at, wait) = (at + 2, Wait::Skip);
        } else if self.word_at(at, "WAIT") {
            at += 2;
        }
        Some((at, wait))
    }

    fn query(&self) -> Result<Analysis, Unsupported> {
        if self.tokens.iter().any(|t| t.is_word(self.sql, "INTO")) {
            return Err(xa("SELECT … INTO, which writes a file or variables"));
        }
        let lock = (0..self.tokens.len()).find_map(|i| Some((i, self.lock_clause(i)?)));
        let Some((start, (next, wait))) = lock else {
            let (_, uses) = self.parse(&self.sql[..self.end()])?;
            return Ok(Analysis::Read(uses));
        };
        let advice = |part: &str| {
            Unsupported::new(
                part,
                "lock the rows of one plain table in a SELECT of its own",
            )
        };
        if self.tokens[start].depth > 0 || next < self.tokens.len() {
            return Err(advice("a lock clause that does not end the statement"));
        }
        self.no_reserved_names()?;
        let (statement, uses) = self.parse(&self.sql[..self.tokens[start].span.start])?;
        let Statement::Query(query) = &statement else {
            return Err(self.seen_differently());
        };
        let (SetExpr::Select(select), None) = (&*query.body, &query.with) else {
            return Err(advice("a locking read that is no plain SELECT"));
        };
        let [from] = select.from.as_slice() else {
            return Err(advice("a locking read of several tables"));
        };
        if groups(select) {
            return Err(advice("a locking read that groups or aggregates rows"));
        }
        let (table, reference) = single_table(from)?;
        let main = self
            .find(0, "SELECT")
            .ok_or_else(|| self.seen_differently())?;
        let list_end = self
            .find(main, "FROM")
            .ok_or_else(|| self.seen_differently())?;
        Ok(Analysis::Locking(Locking {
            table,
            reference,
            uses,
            wait,
            select_list_end: self.tokens[list_end].span.start,
            end: self.end(),
        }))
    }

    fn write(&self) -> Result<Analysis, Unsupported> {
        self.no_reserved_names()?;
        let returning = self.find(1, "RETURNING");
        let body_end = returning.map_or(self.end(), |r| self.tokens[r].span.start);
        let (statement, mut uses) = self.parse(&self.sql[..body_end])?;
        let returning = returning.map(|r| self.tokens[r].span.end..self.end());
        if let Some(list) = &returning {
            let (_, more) = self.parse(&format!("SELECT {}", &self.sql[list.clone()]))?;
            uses.functions.extend(more.functions);
            uses.tables.extend(more.tables);
        }
        let mut write = match &statement {
            Statement::Insert(insert) => self.insert(insert, body_end)?,
            Statement::Update(update) => self.update(update, body_end)?,
            Statement::Delete(delete) => self.delete(delete, body_end)?,
            _ => return Err(self.seen_differently()),
        };
        let all = self.clause(0..self.end());
        write.parameters = all.parameters;
        write.uses = uses;
        write.returning = returning;
        Ok(Analysis::Write(Box::new(write)))
    }

    fn insert(&self, insert: &Insert, end: usize) -> Result<Write, Unsupported> {
        let place = 1 + usize::from(insert.ignore);
        if !self.word_at(place, "INTO") {
            return Err(Unsupported::new(
                "a word between INSERT or REPLACE and INTO",
                "write INSERT INTO, INSERT IGNORE INTO or REPLACE INTO",
            ));
        }
        if insert.insert_alias.is_some() {
            return Err(Unsupported::new(
                "a name of the new row",
                "write VALUES(column) in ON DUPLICATE KEY UPDATE",
            ));
        }
        let (TableObject::TableName(name), None, None) =
            (&insert.table, &insert.partitioned, &insert.table_alias)
        else {
            return Err(Unsupported::new(
                "its target, which is no plain table",
                "name one table",
            ));
        };
        let table = table_name(name)?;
        let (conflict, assigned, rows_end) = self.conflict(insert, end)?;
        let insert_parts = insert_parts(self, insert, rows_end, conflict)?;
        Ok(Write {
            kind: WriteKind::Insert,
            reference: quote(&table.name),
            table,
            assigned,
            values: Vec::new(),
            deltas: Deltas::default(),
            uses: Uses::default(),
            target: Clause::default(),
            joins: false,
            head: self.clause(0..end),
            condition: None,
            order: None,
            limit: None,
            returning: None,
            parameters: 0,
            insert: Some(insert_parts),
        })
    }

    /// What it does on a conflict, the columns that it assigns then, and where its rows end.
    fn conflict(
        &self,
        insert: &Insert,
        end: usize,
    ) -> Result<(OnConflict, Vec<String>, usize), Unsupported> {
        let on = (1..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0
                && ["ON", "DUPLICATE", "KEY", "UPDATE"]
                    .iter()
                    .enumerate()
                    .all(|(offset, word)| self.word_at(i + offset, word))
        });
        match (&insert.on, on, insert.replace_into, insert.ignore) {
            (None, None, true, false) => Ok((
                OnConflict::Replace(self.tokens[0].span.clone()),
                Vec::new(),
                end,
            )),
            (None, None, false, true) => Ok((OnConflict::Ignore, Vec::new(), end)),
            (None, None, false, false) => Ok((OnConflict::Fail, Vec::new(), end)),
            (Some(OnInsert::DuplicateKeyUpdate(assignments)), Some(on), false, false) => {
                let names = assigned(assignments)?;
                Ok((
                    OnConflict::Update(self.tokens[on + 3].span.end),
                    names.into_iter().map(|(_, name)| name).collect(),
                    self.tokens[on].span.start,
                ))
            }
            (Some(_), Some(_), _, true) => Err(Unsupported::new(
                "IGNORE together with ON DUPLICATE KEY UPDATE",
                "leave one of them out",
            )),
            _ => Err(self.seen_differently()),
        }
    }

    fn no_reserved_names(&self) -> Result<(), Unsupported> {
        let reserved = self.tokens.iter().find(|t| {
            let text = self.sql[t.span.clone()].trim_start_matches('`');
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

/// The columns that these assign, with their table's name if they say it.
pub(super) fn assigned(
    assignments: &[Assignment],
) -> Result<Vec<(Option<String>, String)>, Unsupported> {
    let one = |assignment: &Assignment| {
        let names: Option<Vec<String>> = match &assignment.target {
            AssignmentTarget::ColumnName(name) => {
                let parts = name.0.iter().map(|part| part.as_ident().map(ident));
                parts.collect()
            }
            AssignmentTarget::Tuple(_) => None,
        };
        match names.as_deref() {
            Some([column]) => Ok((None, column.clone())),
            Some([table, column]) => Ok((Some(table.clone()), column.clone())),
            _ => Err(Unsupported::new(
                format!("the assignment to {}", assignment.target),
                "assign plain columns",
            )),
        }
    };
    assignments.iter().map(one).collect()
}

/// A name as the catalog stores it.
pub(super) fn ident(ident: &Ident) -> String {
    ident.value.clone()
}

pub(super) fn table_name(name: &ObjectName) -> Result<TableName, Unsupported> {
    let parts: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
    match parts.as_deref() {
        Some([name]) => Ok(TableName {
            schema: None,
            name: ident(name),
        }),
        Some([schema, name]) => Ok(TableName {
            schema: Some(ident(schema)),
            name: ident(name),
        }),
        _ => Err(Unsupported::new(
            format!("the table name {name}"),
            "name it as table or database.table",
        )),
    }
}

/// The one plain table of a FROM clause, and how the statement refers to it.
pub(super) fn single_table(from: &TableWithJoins) -> Result<(TableName, String), Unsupported> {
    if !from.joins.is_empty() {
        return Err(several());
    }
    plain_table(&from.relation)
}

pub(super) fn several() -> Unsupported {
    Unsupported::new(
        "its target, which is no single plain table",
        "name one table, with an alias at most; read other tables in sub-queries",
    )
}

pub(super) fn plain_table(factor: &TableFactor) -> Result<(TableName, String), Unsupported> {
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
        return Err(several());
    };
    let plain = with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty();
    if !plain {
        return Err(several());
    }
    let table = table_name(name)?;
    let reference = match alias {
        Some(alias) if alias.columns.is_empty() => ident(&alias.name),
        Some(_) => return Err(several()),
        None => table.name.clone(),
    };
    Ok((table, quote(&reference)))
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;
