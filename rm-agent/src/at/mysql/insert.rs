//! Which rows an INSERT makes, so far as its text says.

use std::ops::Range;

use sqlparser::ast::{Insert, SetExpr};

use super::analysis::{Reader, assigned, ident};
use crate::at::{
    lexer::{Token, TokenKind},
    statement::Unsupported,
};

/// The columns and rows of an INSERT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InsertParts {
    /// The columns that it names; `None`: all that are visible.
    pub(crate) columns: Option<Vec<String>>,
    /// `None`: a query gives the rows.
    pub(crate) rows: Option<Vec<Vec<Cell>>>,
    pub(crate) conflict: OnConflict,
}

/// What it does with a row that meets a unique value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OnConflict {
    /// Fails.
    Fail,
    /// IGNORE: leaves it out.
    Ignore,
    /// ON DUPLICATE KEY UPDATE: changes the row that it meets. Where its assignments begin.
    Update(usize),
    /// REPLACE: deletes the rows that it meets. Where the word stands.
    Replace(Range<usize>),
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) span: Range<usize>,
    pub(crate) parameters: usize,
    pub(crate) kind: CellKind,
}

/// What is known about a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellKind {
    /// DEFAULT or NULL.
    Absent,
    /// Constants, parameters and arithmetic: reads the same each time.
    Plain,
    /// Anything else.
    Other,
}

/// Reads the values. `end`: where the rows end in the text.
pub(super) fn insert_parts(
    reader: &Reader<'_>,
    insert: &Insert,
    end: usize,
    conflict: OnConflict,
) -> Result<InsertParts, Unsupported> {
    let until = reader.tokens.partition_point(|t| t.span.start < end);
    if !insert.assignments.is_empty() {
        let set = reader
            .find(1, "SET")
            .ok_or_else(|| reader.seen_differently())?;
        let mut row = Vec::new();
        for part in split(&reader.tokens[set + 1..until], 0) {
            let equals = part.iter().position(|t| t.is_symbol('='));
            let equals = equals.ok_or_else(|| reader.seen_differently())?;
            row.push(cell(reader, &part[equals + 1..])?);
        }
        let columns = assigned(&insert.assignments)?;
        let columns: Vec<String> = columns.into_iter().map(|(_, name)| name).collect();
        if row.len() != columns.len() {
            return Err(reader.seen_differently());
        }
        return Ok(InsertParts {
            columns: Some(columns),
            rows: Some(vec![row]),
            conflict,
        });
    }
    let columns: Option<Vec<String>> = insert
        .columns
        .iter()
        .map(|name| name.0.last().and_then(|part| part.as_ident()).map(ident))
        .collect();
    let columns = columns.ok_or_else(|| reader.seen_differently())?;
    let columns = (!columns.is_empty()).then_some(columns);
    let parsed = match insert.source.as_deref().map(|source| &*source.body) {
        Some(SetExpr::Values(values)) => values.rows.len(),
        Some(_) => {
            return Ok(InsertParts {
                columns,
                rows: None,
                conflict,
            });
        }
        None => return Err(reader.seen_differently()),
    };
    let word = reader.find(1, "VALUES").or_else(|| reader.find(1, "VALUE"));
    let word = word.ok_or_else(|| reader.seen_differently())?;
    let mut rows = Vec::with_capacity(parsed);
    for row in split(&reader.tokens[word + 1..until], 0) {
        let [open, inside @ .., close] = row else {
            return Err(reader.seen_differently());
        };
        if !(open.is_symbol('(') && close.is_symbol(')')) {
            return Err(reader.seen_differently());
        }
        let cells: Result<Vec<Cell>, Unsupported> = split(inside, 1)
            .into_iter()
            .map(|part| cell(reader, part))
            .collect();
        rows.push(cells?);
    }
    if rows.len() != parsed {
        return Err(reader.seen_differently());
    }
    Ok(InsertParts {
        columns,
        rows: Some(rows),
        conflict,
    })
}

/// The parts between commas at this depth.
fn split(tokens: &[Token], depth: usize) -> Vec<&[Token]> {
    if tokens.is_empty() {
        return Vec::new();
    }
    tokens
        .split(|t| t.is_symbol(',') && t.depth == depth)
        .collect()
}

fn cell(reader: &Reader<'_>, tokens: &[Token]) -> Result<Cell, Unsupported> {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return Err(reader.seen_differently());
    };
    let absent = tokens.len() == 1
        && (first.is_word(reader.sql, "DEFAULT") || first.is_word(reader.sql, "NULL"));
    let plain = tokens.iter().all(|token| match token.kind {
        TokenKind::Parameter | TokenKind::Number => true,
        // X'61' and b'1' are texts here and numbers there.
        TokenKind::Text => reader.sql[token.span.clone()].starts_with(['\'', '"']),
        TokenKind::Symbol(symbol) => matches!(symbol, '+' | '-' | '*'),
        TokenKind::Word => token.is_word(reader.sql, "TRUE") || token.is_word(reader.sql, "FALSE"),
        TokenKind::QuotedIdentifier => false,
    });
    Ok(Cell {
        span: first.span.start..last.span.end,
        parameters: tokens
            .iter()
            .filter(|t| t.kind == TokenKind::Parameter)
            .count(),
        kind: match (absent, plain) {
            (true, _) => CellKind::Absent,
            (_, true) => CellKind::Plain,
            _ => CellKind::Other,
        },
    })
}
