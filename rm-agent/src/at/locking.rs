//! `SELECT … FOR UPDATE` and its weaker forms.

use std::ops::Range;

use sqlparser::ast::{Query, SetExpr};

use super::{
    analysis::{Reader, plain_table},
    lexer::{Token, TokenKind},
    statement::{Analysis, LockedTable, LockingRead, Unsupported, Uses, Wait},
    table::quote,
};

impl Reader<'_> {
    /// All `FOR UPDATE` clauses, at any depth.
    pub(super) fn locking_clauses(&self) -> Result<Vec<LockingClause>, Unsupported> {
        let mut clauses = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            match self.locking_clause(index) {
                Some((clause, next)) => {
                    clauses.push(clause);
                    index = next;
                }
                None => index += 1,
            }
        }
        Ok(clauses)
    }

    fn locking_clause(&self, start: usize) -> Option<(LockingClause, usize)> {
        if !self.word_at(start, "FOR") {
            return None;
        }
        let mut at = if self.word_at(start + 1, "UPDATE") || self.word_at(start + 1, "SHARE") {
            start + 2
        } else if self.word_at(start + 1, "NO") && self.word_at(start + 2, "KEY") {
            start + 4
        } else if self.word_at(start + 1, "KEY") && self.word_at(start + 2, "SHARE") {
            start + 3
        } else {
            return None;
        };
        let mut of = Vec::new();
        if self.word_at(at, "OF") {
            loop {
                let token = self.tokens.get(at + 1)?;
                of.push(self.identifier_text(token));
                at += 2;
                if !self.tokens.get(at).is_some_and(|t| t.is_symbol(',')) {
                    break;
                }
            }
        }
        let mut wait = Wait::Block;
        if self.word_at(at, "NOWAIT") {
            at += 1;
            wait = Wait::Fail;
        } else if self.word_at(at, "SKIP") && self.word_at(at + 1, "LOCKED") {
            at += 2;
            wait = Wait::Skip;
        }
        let span = self.tokens[start].span.start..self.tokens.get(at - 1)?.span.end;
        let top_level = self.tokens[start].depth == 0;
        Some((
            LockingClause {
                span,
                of,
                wait,
                top_level,
            },
            at,
        ))
    }

    fn identifier_text(&self, token: &Token) -> String {
        let text = &self.sql[token.span.clone()];
        match token.kind {
            TokenKind::QuotedIdentifier => text[1..text.len() - 1].replace("\"\"", "\""),
            _ => text.to_ascii_lowercase(),
        }
    }

    pub(super) fn locking_read(
        &self,
        query: &Query,
        locks: &[LockingClause],
        uses: Uses,
    ) -> Result<Analysis, Unsupported> {
        let SetExpr::Select(select) = &*query.body else {
            return Err(lock_advice("FOR UPDATE over several SELECTs"));
        };
        if locks.iter().any(|lock| !lock.top_level) {
            return Err(lock_advice("FOR UPDATE in a sub-query"));
        }
        self.no_reserved_names()?;
        let everything = locks.iter().any(|lock| lock.of.is_empty());
        let named = |reference: &str| locks.iter().any(|l| l.of.iter().any(|of| of == reference));
        let mut tables = Vec::new();
        for factor in select.from.iter().flat_map(|from| {
            std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
        }) {
            let Some((table, reference)) = plain_table(factor)? else {
                if everything {
                    return Err(lock_advice(
                        "FOR UPDATE over something that is no plain table",
                    ));
                }
                continue;
            };
            if everything || named(&reference) {
                tables.push(LockedTable {
                    table,
                    reference: quote(&reference),
                });
            }
        }
        let select = self.main_keyword("SELECT")?;
        let from = (select + 1..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0 && self.word_at(i, "FROM") && !self.word_at(i - 1, "DISTINCT")
        });
        let (Some(from), false) = (from, tables.is_empty()) else {
            return Err(lock_advice("FOR UPDATE without a table that it names"));
        };
        Ok(Analysis::LockingRead(LockingRead {
            tables,
            uses,
            wait: locks
                .iter()
                .map(|lock| lock.wait)
                .max()
                .unwrap_or(Wait::Block),
            select_list_end: self.tokens[from].span.start,
            end: self.end(),
        }))
    }
}

pub(super) struct LockingClause {
    pub(super) span: Range<usize>,
    of: Vec<String>,
    wait: Wait,
    top_level: bool,
}

fn lock_advice(part: &str) -> Unsupported {
    Unsupported::new(
        part,
        "lock plain tables in one SELECT, naming them by FOR UPDATE OF",
    )
}

/// The text with these parts blanked, which come in order.
pub(super) fn blank(sql: &str, end: usize, parts: &[Range<usize>]) -> String {
    let mut text = String::with_capacity(end);
    let mut from = 0;
    for part in parts {
        text.push_str(&sql[from..part.start]);
        text.push(' ');
        from = part.end;
    }
    text.push_str(&sql[from..end]);
    text
}
