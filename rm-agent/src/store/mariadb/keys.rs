//! The rows that a statement is about, by their primary keys.

use std::borrow::Borrow;

use sqlx::{Arguments as _, mysql::MySqlArguments};

use super::images::{bind, qualified};
use crate::at::{image::RowImage, mysql::types::Class, table::Table};

/// The most parameters of one statement in MariaDB's protocol.
pub(super) const MAX_PARAMETERS: usize = 65_535;

/// From how many keys on it is looked whether they follow each other.
const RUNS_FROM: usize = 16;

/// How many keys a run must have on average: each run is two ranges to the database, and each
/// key without runs is one.
const KEYS_PER_RUN: usize = 4;

/// So many rows, or so many keys, that few different texts arise. The last one is repeated.
pub(super) fn padded(count: usize) -> usize {
    count.next_power_of_two()
}

/// Rows of a table, for a condition that holds for these and no others.
///
/// Where integer keys follow each other without a gap, the condition has their bounds in place of
/// each: the database takes twice as long to find 1,000 rows by 1,000 keys. A run's last key
/// stands on its own, so that no scan runs on to the row behind it, which may be another's.
pub(super) struct RowKeys<'a, R> {
    table: &'a Table,
    rows: &'a [R],
    /// The first and the last key of each run; none: each row by itself.
    runs: Vec<(i128, i128)>,
}

impl<'a, R: Borrow<RowImage>> RowKeys<'a, R> {
    /// Those of the rows that these images show.
    pub(super) fn of(table: &'a Table, rows: &'a [R]) -> Self {
        let runs = runs(table, rows).unwrap_or_default();
        Self { table, rows, runs }
    }

    /// How many parameters the condition has.
    pub(super) fn parameters(&self) -> usize {
        match (self.rows.len(), self.runs.len()) {
            (0, _) => 0,
            (rows, 0) => padded(rows) * self.table.key.len(),
            (_, runs) => padded(runs) * 3,
        }
    }

    /// The condition. `reference`: how the statement refers to the table, quoted, where other
    /// tables have columns of the same names.
    pub(super) fn condition(&self, reference: Option<&str>) -> String {
        if self.rows.is_empty() {
            return "FALSE".to_owned();
        }
        let column = |&position: &usize| {
            let column = &self.table.columns[position];
            let class = Class::from_number(column.type_oid).unwrap_or(Class::Bytes);
            let name = qualified(reference, &column.name);
            (name, class.comparison(&column.type_name))
        };
        let key: Vec<(String, String)> = self.table.key.iter().map(column).collect();
        let (term, count) = match &key[..] {
            [(name, value)] if self.runs.is_empty() => {
                let values = vec![value.as_str(); padded(self.rows.len())];
                return format!("{name} IN ({})", values.join(", "));
            }
            [(name, _)] => (
                format!("{name} BETWEEN ? AND ? OR {name} = ?"),
                padded(self.runs.len()),
            ),
            columns => {
                let terms = columns
                    .iter()
                    .map(|(name, value)| format!("{name} = {value}"));
                let terms: Vec<String> = terms.collect();
                (
                    format!("({})", terms.join(" AND ")),
                    padded(self.rows.len()),
                )
            }
        };
        format!("({})", vec![term; count].join(" OR "))
    }

    /// Adds the condition's parameters.
    pub(super) fn bind(&self, arguments: &mut MySqlArguments) -> Result<(), sqlx::Error> {
        if !self.runs.is_empty() {
            let last = self.runs.last().into_iter().cycle();
            let runs = self.runs.iter().chain(last);
            for &(first, last) in runs.take(padded(self.runs.len())) {
                for number in [first, (last - 1).max(first), last] {
                    bind_integer(arguments, number)?;
                }
            }
            return Ok(());
        }
        let last = self.rows.last().into_iter().cycle();
        let rows = self.rows.iter().chain(last);
        for row in rows.take(padded(self.rows.len())) {
            let values = &row.borrow().values;
            for &position in &self.table.key {
                let column = &self.table.columns[position];
                bind(arguments, column.type_oid, &values[position])?;
            }
        }
        Ok(())
    }
}

fn bind_integer(arguments: &mut MySqlArguments, number: i128) -> Result<(), sqlx::Error> {
    let added = match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => arguments.add(number),
        (_, Ok(number)) => arguments.add(number),
        (Err(error), _) => Err(error.into()),
    };
    added.map_err(sqlx::Error::Encode)
}

/// The runs of keys that follow each other, if that makes them few.
fn runs<R: Borrow<RowImage>>(table: &Table, rows: &[R]) -> Option<Vec<(i128, i128)>> {
    let &[position] = &table.key[..] else {
        return None;
    };
    let class = Class::from_number(table.columns[position].type_oid);
    if rows.len() < RUNS_FROM || !matches!(class, Some(Class::Signed | Class::Unsigned)) {
        return None;
    }
    let number = |row: &R| -> Option<i128> {
        let value = row.borrow().values[position].as_ref()?;
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    let mut numbers = rows.iter().map(number).collect::<Option<Vec<i128>>>()?;
    numbers.sort_unstable();
    let mut runs: Vec<(i128, i128)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if number - *last <= 1 => *last = number,
            _ => runs.push((number, number)),
        }
    }
    (runs.len() * KEYS_PER_RUN <= rows.len()).then_some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at::table::{Column, Equality};

    fn table(class: Class, columns: usize) -> Table {
        let column = |number: usize| Column {
            name: format!("k{number}").into(),
            type_oid: class as u32,
            type_name: "bigint(20)".into(),
            as_text: true,
            merges: false,
            generated: false,
            identity_always: false,
            escrow: None,
            equality: Equality::Bytes,
        };
        Table {
            columns: (0..columns).map(column).collect(),
            key: (0..columns).collect(),
            ..Table::default()
        }
    }

    fn rows(numbers: impl IntoIterator<Item = i128>, columns: usize) -> Vec<RowImage> {
        let row = |number: i128| RowImage {
            values: vec![Some(number.to_string().into_bytes().into()); columns],
        };
        numbers.into_iter().map(row).collect()
    }

    fn check(table: &Table, rows: &[RowImage], condition: &str) {
        let keys = RowKeys::of(table, rows);
        assert_eq!(keys.condition(None), condition);
        let mut arguments = MySqlArguments::default();
        keys.bind(&mut arguments).expect("they are integers");
        assert_eq!(arguments.len(), keys.parameters());
        assert_eq!(condition.matches('?').count(), keys.parameters());
    }

    #[test]
    fn few_keys_stand_for_themselves() {
        let one = table(Class::Signed, 1);
        check(&one, &[], "FALSE");
        check(&one, &rows([7], 1), "`k0` IN (?)");
        check(&one, &rows(1..=5, 1), "`k0` IN (?, ?, ?, ?, ?, ?, ?, ?)");
        check(
            &table(Class::Signed, 2),
            &rows([1, 2], 2),
            "((`k0` = ? AND `k1` = ?) OR (`k0` = ? AND `k1` = ?))",
        );
    }

    #[test]
    fn keys_that_follow_each_other_stand_by_their_bounds() {
        let run = "`k0` BETWEEN ? AND ? OR `k0` = ?";
        let one = table(Class::Unsigned, 1);
        let top = i128::from(u64::MAX);
        check(&one, &rows(top - 40..=top, 1), &format!("({run})"));
        let numbers = (0..10).rev().chain([40]).chain((-30..-20).rev());
        let four = [run; 4].join(" OR ");
        check(
            &table(Class::Signed, 1),
            &rows(numbers, 1),
            &format!("({four})"),
        );
    }

    #[test]
    fn keys_with_gaps_stand_for_themselves() {
        let gaps = rows((0..32).map(|number| number * 2), 1);
        assert!(runs(&table(Class::Signed, 1), &gaps).is_none());
        let text = rows(0..32, 1);
        assert!(runs(&table(Class::Decimal, 1), &text).is_none());
        assert!(runs(&table(Class::Signed, 2), &rows(0..32, 2)).is_none());
    }
}
