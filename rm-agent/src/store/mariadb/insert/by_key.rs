//! New rows that are found again by the keys that the text gives them.

use std::sync::Arc;

use sqlx::{Arguments as _, Either, MySqlConnection, mysql::MySqlQueryResult};

use super::{ADD_RETURNING, Branch, Keys, add_keys};
use crate::{
    at::{
        mysql::{
            insert::{Cell, CellKind, InsertParts},
            quote,
            types::Class,
        },
        table::Table,
    },
    error::Error,
    store::mariadb::{
        catalog::TableInfo,
        executor::Statement,
        keys::{self, MAX_PARAMETERS},
        plan::{consumed, read_sql, refuse},
        run::{collect, read_images, row_error},
        transaction::Step,
    },
};

/// Runs an INSERT as it is, and reads its rows.
#[derive(Debug)]
pub(super) struct ByKey {
    sql: String,
    table: Arc<Table>,
    /// Which rows, with the user's parameters; empty if the generated key says it.
    condition: String,
    /// Whether the condition takes the user's parameters.
    parameters: bool,
    /// The key column that the database fills in.
    generated: Option<usize>,
    rows: usize,
}

impl ByKey {
    pub(super) fn new(sql: &str, parts: &InsertParts, info: &TableInfo) -> Result<Self, Error> {
        let Some(rows) = &parts.rows else {
            return Err(refuse(
                "INSERT … SELECT without RETURNING, which does not tell which rows are new",
                ADD_RETURNING,
            ));
        };
        let table = &*info.table;
        let columns = parts.columns.as_ref().unwrap_or(&info.visible);
        let place = |position: usize| {
            let name = &table.columns[position].name;
            columns
                .iter()
                .position(|column| column.eq_ignore_ascii_case(name))
        };
        if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
            // `VALUES ()` gives every column its default.
            if !row.is_empty() {
                return Err(refuse(
                    "a row with another number of values than columns",
                    "give each column a value",
                ));
            }
        }
        let generated = info
            .auto_increment
            .filter(|position| table.key.contains(position))
            .filter(|&position| rows.len() == 1 || is_generated(rows, place(position)));
        let mut alternatives = Vec::with_capacity(rows.len());
        let mut parameters = false;
        let others: Vec<usize> = table
            .key
            .iter()
            .copied()
            .filter(|position| Some(*position) != generated)
            .collect();
        if !others.is_empty() {
            parameters = rows.iter().flatten().any(|cell| cell.parameters > 0);
            for row in rows {
                alternatives.push(row_condition(sql, row, &others, &place, info)?);
            }
        }
        Ok(Self {
            sql: sql.to_owned(),
            table: Arc::clone(&info.table),
            condition: alternatives.join(" OR "),
            parameters,
            generated,
            rows: rows.len(),
        })
    }

    pub(super) async fn run(
        &self,
        connection: &mut MySqlConnection,
        statement: &Statement,
        branch: &mut Branch,
        wrote: &mut bool,
        mut keys: Option<&mut Keys>,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let table = &self.table;
        let inserting = if self.sql == statement.sql.as_str() {
            statement.clone()
        } else {
            statement.with_text(self.sql.clone(), statement.arguments())
        };
        let steps = collect(connection, inserting, true, |_| Ok(())).await?;
        *wrote = true;
        let done = steps.iter().find_map(|step| match step {
            Either::Left(done) => Some(done),
            Either::Right(_) => None,
        });
        let Some(done) = done else {
            return Err(row_error(
                table,
                "the database did not say what it inserted",
            ));
        };
        let reading = self.reading(statement, done, branch.increment())?;
        let found = read_images(connection, reading, table).await?;
        if found.len() != self.rows || done.rows_affected() != self.rows as u64 {
            return Err(row_error(
                table,
                "the inserted rows are not found under the keys that the statement \
                 names; give keys that need no conversion, or add RETURNING",
            ));
        }
        for after in found {
            if let Some(keys) = keys.as_deref_mut() {
                add_keys(keys, table, &after);
            }
            branch.changes.record(table, None, Some(after), false)?;
        }
        Ok(steps)
    }

    /// The statement that reads the new rows.
    fn reading(
        &self,
        statement: &Statement,
        done: &MySqlQueryResult,
        increment: u64,
    ) -> Result<Statement, sqlx::Error> {
        let mut arguments = if self.parameters {
            statement.arguments()
        } else {
            sqlx::mysql::MySqlArguments::default()
        };
        let mut conditions: Vec<String> = Vec::new();
        if !self.condition.is_empty() {
            conditions.push(format!("({})", self.condition));
        }
        if let Some(column) = self.generated {
            let count = keys::padded(self.rows);
            let last = (self.rows as u64).saturating_sub(1);
            for number in 0..count as u64 {
                let id = done.last_insert_id() + number.min(last) * increment;
                arguments.add(id).map_err(sqlx::Error::Encode)?;
            }
            let name = quote(&self.table.columns[column].name);
            conditions.push(format!("{name} IN ({})", vec!["?"; count].join(", ")));
        }
        if arguments.len() > MAX_PARAMETERS {
            return Err(Error::TooLarge {
                what: format!("the statement's number of parameters, {},", arguments.len()),
                limit: MAX_PARAMETERS,
            }
            .into());
        }
        Ok(Statement::own(
            read_sql(&self.table, &conditions.join(" AND ")),
            arguments,
        ))
    }
}

/// Whether the database makes the value in all rows.
fn is_generated(rows: &[Vec<Cell>], place: Option<usize>) -> bool {
    let Some(place) = place else { return true };
    let absent = |row: &Vec<Cell>| row.get(place).is_none_or(|c| c.kind == CellKind::Absent);
    rows.iter().all(absent)
}

/// The condition for one row: its key, and all its parameters in their order.
fn row_condition(
    sql: &str,
    row: &[Cell],
    key: &[usize],
    place: &impl Fn(usize) -> Option<usize>,
    info: &TableInfo,
) -> Result<String, Error> {
    let table = &*info.table;
    let mut terms: Vec<String> = Vec::new();
    for &position in key {
        let cell = place(position).and_then(|place| row.get(place));
        if cell.is_none_or(|cell| cell.kind == CellKind::Absent) {
            let name = &table.columns[position].name;
            if info.computed_defaults.contains(&position) || info.auto_increment == Some(position) {
                return Err(refuse(
                    format!("the value of the key column {name} is made by the database"),
                    ADD_RETURNING,
                ));
            }
            terms.push(format!("{0} = DEFAULT({0})", quote(name)));
        }
    }
    for (number, cell) in row.iter().enumerate() {
        let column = key
            .iter()
            .find(|&&position| place(position) == Some(number));
        match (column, cell.kind) {
            (Some(&position), CellKind::Plain) => {
                let column = &table.columns[position];
                // Comparing converts another way than storing, so that another row may
                // be found in place of the new one.
                if matches!(
                    Class::from_number(column.type_oid),
                    Some(Class::Number | Class::Float) | None
                ) {
                    return Err(refuse(
                        format!(
                            "its key column {}, whose type {} compares inexactly",
                            column.name,
                            column.type_name.split('|').next().unwrap_or_default()
                        ),
                        ADD_RETURNING,
                    ));
                }
                let value = stored_as(&column.type_name, &sql[cell.span.clone()]);
                terms.push(format!("{} = {value}", quote(&column.name)));
            }
            (Some(&position), CellKind::Other) => {
                let name = &table.columns[position].name;
                return Err(refuse(
                    format!("the value of the key column {name} is an expression"),
                    format!("give it as a constant or a parameter, or {ADD_RETURNING}"),
                ));
            }
            _ => terms.extend(consumed(cell.parameters).into_iter().map(str::to_owned)),
        }
    }
    Ok(format!("({})", terms.join(" AND ")))
}

/// The value as the column keeps it: short ones are filled up with zeros.
pub(super) fn stored_as(type_name: &str, value: &str) -> String {
    if type_name.starts_with("binary(") {
        format!("CAST(({value}) AS {type_name})")
    } else {
        format!("({value})")
    }
}
