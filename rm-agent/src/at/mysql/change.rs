//! UPDATE and DELETE, also of joined tables.

use sqlparser::{
    ast::{Delete, FromTable, Statement, TableFactor, TableWithJoins, Update},
    dialect::MySqlDialect,
    parser::Parser,
};

use super::{
    analysis::{Reader, assigned, plain_table, several, single_table, table_name},
    quote,
    statement::{Assigned, Clause, Uses, Write, xa},
};
use crate::at::{
    escrow::{self, Deltas},
    lexer::{Token, TokenKind},
    statement::{TableName, Unsupported, WriteKind},
};

impl Reader<'_> {
    pub(super) fn update(&self, update: &Update, end: usize) -> Result<Write, Unsupported> {
        let modifier = ["IGNORE", "LOW_PRIORITY"]
            .into_iter()
            .find(|word| self.word_at(1, word));
        if let Some(word) = modifier {
            return Err(Unsupported::new(
                format!("UPDATE {word}"),
                "leave the word out",
            ));
        }
        let set = self.find(1, "SET").ok_or_else(|| self.seen_differently())?;
        if update.from.is_some() || self.find(1, "PORTION").is_some_and(|found| found < set) {
            return Err(xa("an UPDATE of parts of a period, or with FROM"));
        }
        let assigned = assigned(&update.assignments)?;
        let joins = !update.table.joins.is_empty();
        let (table, reference) = if joins {
            written(&update.table, &assigned)?
        } else {
            single_table(&update.table)?
        };
        let mut write = self.change(
            WriteKind::Update,
            (set, end),
            [
                update.selection.is_some(),
                !update.order_by.is_empty(),
                update.limit.is_some(),
            ],
        )?;
        write.table = table;
        write.reference = reference;
        write.joins = joins;
        write.target = self.clause(self.tokens[1].span.start..self.tokens[set].span.start);
        write.values = self.values(set + 1, write.head.span.end, assigned.len())?;
        write.assigned = assigned.into_iter().map(|(_, name)| name).collect();
        write.deltas = self.deltas();
        no_order_of_joins(&write)?;
        Ok(write)
    }

    /// Read once more, with parameters that have numbers.
    fn deltas(&self) -> Deltas {
        let mut text = String::with_capacity(self.sql.len() + 16);
        let (mut from, mut number) = (0, 0);
        for token in self
            .tokens
            .iter()
            .filter(|t| t.kind == TokenKind::Parameter)
        {
            number += 1;
            text.push_str(&self.sql[from..token.span.end]);
            text.push_str(&number.to_string());
            from = token.span.end;
        }
        text.push_str(&self.sql[from..self.end()]);
        match Parser::parse_sql(&MySqlDialect {}, &text).as_deref() {
            Ok([Statement::Update(update)]) => {
                escrow::deltas(update, |name| name.value.to_lowercase())
            }
            _ => Deltas::default(),
        }
    }

    /// The values of the assignments from this token on.
    fn values(&self, from: usize, end: usize, count: usize) -> Result<Vec<Assigned>, Unsupported> {
        let until = self.tokens.partition_point(|t| t.span.start < end);
        let parts = self.tokens[from..until].split(|t| t.is_symbol(',') && t.depth == 0);
        let mut values = Vec::with_capacity(count);
        for part in parts {
            let equals = part.iter().position(|t| t.is_symbol('='));
            let value = equals.map_or(&part[..0], |equals| &part[equals + 1..]);
            let (Some(first), Some(last)) = (value.first(), value.last()) else {
                return Err(self.seen_differently());
            };
            values.push(Assigned {
                clause: self.clause(first.span.start..last.span.end),
                names: self.plain_names(value),
            });
        }
        if values.len() != count {
            return Err(self.seen_differently());
        }
        Ok(values)
    }

    /// The names in an expression; `None` if there is a function, a sub-query or a variable.
    fn plain_names(&self, tokens: &[Token]) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            let text = &self.sql[token.span.clone()];
            let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdentifier);
            let called = tokens
                .get(index + 1)
                .is_some_and(|next| next.is_symbol('('));
            let other = token.is_symbol('@')
                || token.is_word(self.sql, "SELECT")
                || token.is_word(self.sql, "DEFAULT");
            if is_name && called || other {
                return None;
            }
            if is_name {
                let name = text.trim_matches('`').replace("``", "`");
                names.push(name.to_lowercase());
            }
        }
        Some(names)
    }

    pub(super) fn delete(&self, delete: &Delete, end: usize) -> Result<Write, Unsupported> {
        let one = || {
            Unsupported::new(
                "DELETE from several tables",
                "delete from one at a time: DELETE a FROM a JOIN b …",
            )
        };
        let FromTable::WithFromKeyword(from) = &delete.from else {
            return Err(one());
        };
        let seen = [
            delete.selection.is_some(),
            !delete.order_by.is_empty(),
            delete.limit.is_some(),
        ];
        // DELETE a FROM a JOIN b, DELETE FROM a USING a JOIN b.
        let (tables, name, first) = match (from.as_slice(), &delete.using, delete.tables.as_slice())
        {
            ([tables], None, [name]) if self.word_at(2, "FROM") => (tables, Some(name), 3),
            ([name], Some(using), []) if self.word_at(1, "FROM") && self.word_at(3, "USING") => {
                let [tables] = using.as_slice() else {
                    return Err(one());
                };
                let TableFactor::Table {
                    name, alias: None, ..
                } = &name.relation
                else {
                    return Err(one());
                };
                (tables, Some(name), 4)
            }
            ([tables], None, []) if self.word_at(1, "FROM") => (tables, None, 2),
            _ if !self.word_at(1, "FROM") && delete.tables.is_empty() => {
                return Err(Unsupported::new(
                    "a word between DELETE and FROM",
                    "write DELETE FROM table",
                ));
            }
            _ => return Err(one()),
        };
        let mut write = self.change(WriteKind::Delete, (first, end), seen)?;
        let (table, reference) = match name {
            Some(name) => {
                let name = table_name(name)?.name;
                write.joins = true;
                factor_named(tables, &name)?
            }
            None => single_table(tables)?,
        };
        if !write.joins && reference != quote(&table.name) {
            return Err(Unsupported::new(
                "an alias of the table that DELETE names",
                "leave it out",
            ));
        }
        write.target = self.clause(self.tokens[first].span.start..write.head.span.end);
        write.table = table;
        write.reference = reference;
        no_order_of_joins(&write)?;
        Ok(write)
    }

    /// The clauses of an UPDATE or DELETE, of which the parser has seen those in `seen`.
    fn change(
        &self,
        kind: WriteKind,
        (from, end): (usize, usize),
        seen: [bool; 3],
    ) -> Result<Write, Unsupported> {
        let before_end = |index: Option<usize>| index.filter(|&i| self.tokens[i].span.start < end);
        let condition = before_end(self.find(from, "WHERE"));
        let order = (from..self.tokens.len()).find(|&i| {
            self.tokens[i].depth == 0 && self.word_at(i, "ORDER") && self.word_at(i + 1, "BY")
        });
        let order = before_end(order);
        let limit = before_end(self.find(from, "LIMIT"));
        let clauses = [condition, order, limit];
        if clauses.map(|clause| clause.is_some()) != seen || !clauses.iter().flatten().is_sorted() {
            return Err(self.seen_differently());
        }
        let start = |index: usize| self.tokens[index].span.start;
        let after_order = limit.map_or(end, start);
        let after_condition = order.map_or(after_order, start);
        let head_end = condition.map_or(after_condition, start);
        let clause = |word: Option<usize>, skip: usize, end: usize| {
            word.map(|word| self.clause(self.tokens[word + skip].span.end..end))
        };
        Ok(Write {
            kind,
            table: TableName {
                schema: None,
                name: String::new(),
            },
            reference: String::new(),
            assigned: Vec::new(),
            values: Vec::new(),
            deltas: Deltas::default(),
            uses: Uses::default(),
            target: Clause::default(),
            joins: false,
            head: self.clause(0..head_end),
            condition: clause(condition, 0, after_condition),
            order: clause(order, 1, after_order),
            limit: clause(limit, 0, end),
            returning: None,
            parameters: 0,
            insert: None,
        })
    }
}

/// Several tables have no common order.
fn no_order_of_joins(write: &Write) -> Result<(), Unsupported> {
    if write.joins && (write.order.is_some() || write.limit.is_some()) {
        return Err(Unsupported::new(
            "ORDER BY or LIMIT over several tables",
            "leave it out, or find the rows by a SELECT … FOR UPDATE",
        ));
    }
    Ok(())
}

/// The table that an UPDATE of joined tables writes.
fn written(
    tables: &TableWithJoins,
    assigned: &[(Option<String>, String)],
) -> Result<(TableName, String), Unsupported> {
    let mut names = assigned.iter().map(|(table, _)| table.as_deref());
    match names.next() {
        Some(Some(first)) if names.all(|name| name == Some(first)) => factor_named(tables, first),
        _ => Err(Unsupported::new(
            "an UPDATE of joined tables that does not name the one table it writes",
            "write table.column for each column that it assigns, all of one table",
        )),
    }
}

/// The table of this name or alias among joined ones.
fn factor_named(tables: &TableWithJoins, name: &str) -> Result<(TableName, String), Unsupported> {
    let joined = tables.joins.iter().map(|join| &join.relation);
    std::iter::once(&tables.relation)
        .chain(joined)
        .filter_map(|factor| plain_table(factor).ok())
        .find(|(_, reference)| *reference == quote(name))
        .ok_or_else(several)
}
