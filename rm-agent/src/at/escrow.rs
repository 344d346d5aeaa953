//! Numbers that several transactions change at the same time: each only adds or takes, and its
//! undo does the inverse.

use std::{collections::BTreeSet, ops::ControlFlow};

use bytes::Bytes;
use sqlparser::ast::{
    AssignmentTarget, BinaryOperator, Expr, Ident, SelectItem, Update, visit_expressions,
};

use super::{
    codec::UndoColumn,
    image::{RowImage, Value},
    mysql::types::Class,
    table::{Column, Equality, Table},
};

/// What a column in escrow may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) lower: i64,
    pub(crate) upper: i64,
}

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
/// MariaDB's, as digits.
const SIGNED: u32 = Class::Signed as u32;
const UNSIGNED: u32 = Class::Unsigned as u32;

/// Reads an integer column's value.
fn integer(type_oid: u32, value: &Value) -> Option<i64> {
    let bytes = &value.as_ref()?[..];
    match type_oid {
        INT2 => Some(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        INT4 => Some(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        INT8 => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
        SIGNED | UNSIGNED => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

/// Writes it; `None` if the type cannot hold it.
fn value_of(type_oid: u32, number: i64) -> Option<Bytes> {
    let bytes = match type_oid {
        INT2 => i16::try_from(number).ok()?.to_be_bytes().to_vec(),
        INT4 => i32::try_from(number).ok()?.to_be_bytes().to_vec(),
        INT8 => number.to_be_bytes().to_vec(),
        SIGNED => number.to_string().into_bytes(),
        UNSIGNED => u64::try_from(number).ok()?.to_string().into_bytes(),
        _ => return None,
    };
    Some(bytes.into())
}

/// Why a column that is listed cannot be in escrow; `None` if it can.
pub(crate) fn obstacle(table: &Table, position: usize) -> Option<&'static str> {
    let column = &table.columns[position];
    if !matches!(column.type_oid, INT2 | INT4 | INT8 | SIGNED | UNSIGNED) {
        return Some("is no smallint, integer or bigint");
    }
    if column.type_name.contains("zerofill") {
        return Some("is filled up with zeros");
    }
    if column.generated || column.identity_always {
        return Some("is computed by the database");
    }
    let unique = |position| {
        let mut unique = table.unique.iter();
        unique.any(|index| index.columns.is_empty() || index.columns.contains(position))
    };
    if table.key.contains(&position) || unique(&position) {
        return Some(
            "is part of a key or a unique index, or an index is unique over an expression",
        );
    }
    if table
        .incoming
        .iter()
        .any(|key| key.columns.contains(&position))
    {
        return Some("is referenced by a foreign key");
    }
    let computed = |column: &Column| column.generated && column.type_oid != Class::Weight as u32;
    if table.columns.iter().any(computed) {
        return Some("stands beside a generated column, which may depend on it");
    }
    let coarse = |column: &Column| column.equality == Equality::Unknown;
    if table.key.iter().any(|&key| coarse(&table.columns[key])) {
        return Some("is in a table whose rows share row locks, because of its primary key's type");
    }
    None
}

/// What an UPDATE only adds to or takes from, without looking at what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deltas {
    /// All columns that it assigns, or none.
    pub(crate) columns: Vec<String>,
    /// Numbers of parameters that must have the same value for that.
    pub(crate) equal: Vec<(usize, usize)>,
}

/// The columns that an UPDATE only adds to or takes from. `c >= e` in its condition is no look
/// where it takes `e`: that is what the lower bound says. Parameters are equal if they have the
/// same name; those that are written `?1`, `?2` … may have the same value.
pub(crate) fn deltas(update: &Update, identifier: fn(&Ident) -> String) -> Deltas {
    let reader = DeltaReader { identifier };
    reader.read(update).unwrap_or_default()
}

struct DeltaReader {
    identifier: fn(&Ident) -> String,
}

/// A column, and what is taken from it.
type Changed = (String, Option<String>);

impl DeltaReader {
    fn read(&self, update: &Update) -> Option<Deltas> {
        let mut changed: Vec<Changed> = Vec::new();
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(target) = &assignment.target else {
                return None;
            };
            let [part] = &target.0[..] else {
                return None;
            };
            let Expr::BinaryOp {
                left,
                op: op @ (BinaryOperator::Plus | BinaryOperator::Minus),
                right,
            } = &assignment.value
            else {
                return None;
            };
            let column = part.as_ident().map(self.identifier);
            if column.is_none()
                || self.column_of(left) != column
                || !self.columns_of(right).is_empty()
            {
                return None;
            }
            let taken = (*op == BinaryOperator::Minus).then(|| right.to_string());
            changed.extend(column.map(|column| (column, taken)));
        }
        let mut seen = BTreeSet::new();
        for item in update.returning.iter().flatten() {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    seen.extend(self.columns_of(expr));
                }
                _ => return None,
            }
        }
        let mut equal = Vec::new();
        if let Some(condition) = &update.selection {
            self.look_at(condition, &changed, &mut seen, &mut equal);
        }
        let plain = update.from.is_none()
            && update.table.joins.is_empty()
            && update.order_by.is_empty()
            && update.limit.is_none();
        if !plain || changed.iter().any(|(column, _)| seen.contains(column)) {
            return None;
        }
        Some(Deltas {
            columns: changed.into_iter().map(|(column, _)| column).collect(),
            equal,
        })
    }

    /// Adds the columns that a condition looks at.
    fn look_at(
        &self,
        condition: &Expr,
        changed: &[Changed],
        seen: &mut BTreeSet<String>,
        equal: &mut Vec<(usize, usize)>,
    ) {
        match condition {
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And,
                right,
            } => {
                self.look_at(left, changed, seen, equal);
                self.look_at(right, changed, seen, equal);
            }
            Expr::Nested(inner) => self.look_at(inner, changed, seen, equal),
            Expr::BinaryOp {
                left,
                op: BinaryOperator::GtEq,
                right,
            } => {
                let column = self.column_of(left);
                let mut changed = changed.iter();
                let taken = changed.find(|(name, _)| column.as_ref() == Some(name));
                let taken = taken.and_then(|(_, taken)| taken.as_ref());
                match taken.and_then(|taken| same(taken, &right.to_string())) {
                    Some(pair) => equal.extend(pair),
                    None => seen.extend(self.columns_of(condition)),
                }
            }
            other => seen.extend(self.columns_of(other)),
        }
    }

    fn column_of(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Identifier(name) => Some((self.identifier)(name)),
            Expr::CompoundIdentifier(names) => names.last().map(self.identifier),
            _ => None,
        }
    }

    fn columns_of(&self, expr: &Expr) -> BTreeSet<String> {
        let mut columns = BTreeSet::new();
        let _ = visit_expressions(expr, |expr| {
            columns.extend(self.column_of(expr));
            // What may hide columns counts as one that nobody has.
            if matches!(expr, Expr::Wildcard(_) | Expr::QualifiedWildcard(..)) {
                columns.insert(String::new());
            }
            ControlFlow::<()>::Continue(())
        });
        columns
    }
}

/// Whether two texts say the same, and which parameters must be equal for that.
fn same(one: &str, other: &str) -> Option<Option<(usize, usize)>> {
    let number = |text: &str| text.strip_prefix('?')?.parse::<usize>().ok();
    match (number(one), number(other)) {
        (Some(one), Some(other)) => Some(Some((one, other))),
        _ => (one == other).then_some(None),
    }
}

/// One column's change in escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) column: usize,
    pub(crate) delta: i64,
    pub(crate) value: i64,
    pub(crate) bounds: Bounds,
}

/// What a row's change did to its columns in escrow; `None` if it did anything else.
pub(crate) fn deltas_of_row(
    table: &Table,
    before: &RowImage,
    after: &RowImage,
) -> Option<Vec<Delta>> {
    let mut deltas = Vec::new();
    for (position, column) in table.columns.iter().enumerate() {
        let (old, new) = (&before.values[position], &after.values[position]);
        if old == new {
            continue;
        }
        let (old, new) = (
            integer(column.type_oid, old)?,
            integer(column.type_oid, new)?,
        );
        deltas.push(Delta {
            column: position,
            delta: new.checked_sub(old)?,
            value: new,
            bounds: column.escrow?,
        });
    }
    Some(deltas)
}

/// The row that an undo makes of `now`: without what the branch added. `None` if a column cannot
/// hold that.
pub(crate) fn taken_back(
    columns: &[UndoColumn],
    before: &RowImage,
    after: &RowImage,
    now: &RowImage,
) -> Option<RowImage> {
    let mut values = now.values.clone();
    for (position, column) in columns.iter().enumerate() {
        let (old, new) = (&before.values[position], &after.values[position]);
        if old == new {
            continue;
        }
        let number = |value| integer(column.type_oid, value);
        let delta = number(new)?.checked_sub(number(old)?)?;
        let number = number(&now.values[position])?.checked_sub(delta)?;
        values[position] = Some(value_of(column.type_oid, number)?);
    }
    Some(RowImage { values })
}

#[cfg(test)]
mod tests {
    use sqlparser::{ast::Statement, dialect::PostgreSqlDialect, parser::Parser};

    use super::*;
    use crate::at::analysis::identifier;

    fn read(sql: &str) -> Vec<String> {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect("it parses");
        match statements.pop() {
            Some(Statement::Update(update)) => deltas(&update, identifier).columns,
            other => panic!("no UPDATE: {other:?}"),
        }
    }

    #[test]
    fn what_only_adds_or_takes_is_seen() {
        for sql in [
            "UPDATE stock SET count = count - 1",
            "UPDATE stock SET count = count + $1 WHERE product = $2",
            "UPDATE stock AS s SET \"count\" = s.count - $1::int WHERE count >= $1::int AND id = 7",
            "UPDATE stock SET count = count - $1 WHERE (product = $2) AND (count >= $1) RETURNING id",
        ] {
            assert_eq!(read(sql), ["count"], "{sql}");
        }
        assert_eq!(
            read("UPDATE stock SET a = a + 1, b = b - 2 WHERE b >= 2"),
            ["a", "b"]
        );
    }

    #[test]
    fn whatever_depends_on_the_value_is_not() {
        for sql in [
            "UPDATE stock SET count = 5",
            "UPDATE stock SET count = count * 2",
            "UPDATE stock SET count = 5 - count",
            "UPDATE stock SET count = count - price",
            "UPDATE stock SET count = count - (SELECT 1 FROM t WHERE x = 1)",
            "UPDATE stock SET count = price - 1",
            "UPDATE stock SET count = count - 1, note = 'x'",
            "UPDATE stock SET count = count - 1 RETURNING count",
            "UPDATE stock SET count = count - 1 RETURNING *",
            "UPDATE stock SET count = count - 1 RETURNING stock.*",
            "UPDATE stock SET count = count - 1 WHERE count = 7",
            "UPDATE stock SET count = count - 1 WHERE count >= 2",
            "UPDATE stock SET count = count + 1 WHERE count >= 1",
            "UPDATE stock SET count = count - 1 WHERE count >= 1 OR id = 1",
            "UPDATE stock SET count = count - 1 FROM other WHERE other.id = stock.id",
            "UPDATE stock SET (count, a) = (count - 1, 2)",
        ] {
            assert_eq!(read(sql), Vec::<String>::new(), "{sql}");
        }
    }

    #[test]
    fn integers_of_each_size_go_there_and_back() {
        for (oid, most) in [
            (INT2, i64::from(i16::MAX)),
            (INT4, i64::from(i32::MAX)),
            (INT8, i64::MAX),
            (SIGNED, i64::MAX),
        ] {
            for number in [0, -1, most, -most - 1] {
                let value = value_of(oid, number);
                assert!(value.is_some());
                assert_eq!(integer(oid, &value), Some(number));
            }
            if let Some(more) = most.checked_add(1) {
                assert_eq!(value_of(oid, more), None);
            }
        }
        assert_eq!(value_of(UNSIGNED, -1), None);
        assert_eq!(integer(UNSIGNED, &value_of(UNSIGNED, 7)), Some(7));
        assert_eq!(integer(25, &Some(Bytes::from_static(b"7"))), None);
        assert_eq!(integer(INT4, &None), None);
    }
}
