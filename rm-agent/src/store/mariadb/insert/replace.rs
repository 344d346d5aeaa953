//! REPLACE: deletes the rows that it meets, then inserts.
//!
//! The rows that hold one of its unique values are locked, read and deleted by statements of
//! this library's own, and the REPLACE runs as an INSERT. So a row that came in between
//! makes it fail instead of vanishing without an image.

use std::{ops::Range, sync::Arc};

use sqlx::{
    Either, MySqlConnection,
    mysql::{MySqlArguments, MySqlQueryResult},
};

use super::{Branch, by_key::stored_as};
use crate::{
    at::{
        image::RowImage,
        mysql::{
            insert::{Cell, CellKind, InsertParts},
            quote, quote_qualified,
            statement::Write,
            types::Class,
        },
        table::Table,
    },
    error::Error,
    store::mariadb::{
        catalog::{TableInfo, UniqueKey},
        executor::Statement,
        keys::{MAX_PARAMETERS, RowKeys},
        plan::{consumed, read_sql, refuse},
        run::{collect, read_images, row_error},
    },
};

#[derive(Debug)]
pub(super) struct Clearing {
    table: Arc<Table>,
    /// Locks and shows the rows; takes all the user's parameters.
    locking_sql: String,
}

/// What was deleted.
#[derive(Debug)]
pub(super) struct Cleared {
    pub(super) rows: Vec<RowImage>,
    pub(super) done: MySqlQueryResult,
}

impl Clearing {
    pub(super) fn new(
        sql: &str,
        write: &Write,
        parts: &InsertParts,
        info: &TableInfo,
    ) -> Result<Self, Error> {
        let Some(rows) = &parts.rows else {
            return Err(refuse(
                "REPLACE … SELECT, whose rows are not known before it runs",
                "SELECT the rows, then REPLACE them by VALUES; or use DELETE and INSERT … SELECT",
            ));
        };
        if let Some(trigger) = info.triggers.first() {
            return Err(Error::Table {
                table: info.table.display_name(),
                part: format!("its trigger {trigger} may change the values that REPLACE looks for"),
                advice: "use DELETE and INSERT".to_owned(),
            });
        }
        let columns = parts.columns.as_ref().unwrap_or(&info.visible);
        let mut alternatives = Vec::with_capacity(rows.len());
        let mut taken = 0;
        for row in rows {
            if row.len() != columns.len() && !row.is_empty() {
                return Err(refuse(
                    "a row with another number of values than columns",
                    "give each column a value",
                ));
            }
            taken += row.iter().map(|cell| cell.parameters).sum::<usize>();
            alternatives.push(
                Row {
                    sql,
                    row,
                    columns,
                    info,
                }
                .condition()?,
            );
        }
        let mut condition = format!("({})", alternatives.join(" OR "));
        for rest in consumed(write.parameters.saturating_sub(taken)) {
            condition = format!("{condition} AND {rest}");
        }
        Ok(Self {
            table: Arc::clone(&info.table),
            locking_sql: read_sql(&info.table, &condition),
        })
    }

    pub(super) async fn run(
        &self,
        connection: &mut MySqlConnection,
        statement: &Statement,
        branch: &mut Branch,
        wrote: &mut bool,
    ) -> Result<Cleared, sqlx::Error> {
        let table = &self.table;
        let reading = statement.with_text(self.locking_sql.clone(), statement.arguments());
        let rows = read_images(connection, reading, table).await?;
        let mut done = MySqlQueryResult::default();
        let most = (MAX_PARAMETERS / 2) / table.key.len().max(1);
        for rows in rows.chunks(most) {
            let keys = RowKeys::of(table, rows);
            let mut arguments = MySqlArguments::default();
            keys.bind(&mut arguments)?;
            let sql = format!(
                "DELETE FROM {} WHERE {}",
                quote_qualified(&table.schema, &table.name),
                keys.condition(None),
            );
            let deleting = Statement::own(sql, arguments);
            let steps = collect(connection, deleting, true, |_| Ok(())).await?;
            *wrote = true;
            done.extend(steps.into_iter().filter_map(Either::left));
        }
        if done.rows_affected() != rows.len() as u64 {
            return Err(row_error(
                table,
                "another number of rows was deleted than was locked",
            ));
        }
        for row in &rows {
            branch
                .changes
                .record(table, Some(row.clone()), None, false)?;
        }
        Ok(Cleared { rows, done })
    }
}

/// One row of the text.
struct Row<'a> {
    sql: &'a str,
    row: &'a [Cell],
    columns: &'a [String],
    info: &'a TableInfo,
}

/// A comparison of a column with its new value, which may be a cell.
struct Term {
    place: Option<usize>,
    text: String,
}

impl Row<'_> {
    /// Which rows hold one of its unique values. Takes its parameters in their order.
    fn condition(&self) -> Result<String, Error> {
        let mut indexes = Vec::new();
        for key in &self.info.unique_keys {
            indexes.extend(self.terms(key)?);
        }
        indexes.sort_by_key(|terms| terms.iter().filter_map(|term| term.place).min());
        let mut next = 0;
        let mut alternatives = Vec::new();
        for terms in indexes {
            let mut texts = Vec::new();
            for term in terms {
                if let Some(place) = term.place.filter(|&place| self.row[place].parameters > 0) {
                    if place < next {
                        return Err(refuse(
                            format!(
                                "the parameter of {} stands in several unique indexes, or between \
                                 those of another one",
                                self.columns[place]
                            ),
                            "use DELETE and INSERT",
                        ));
                    }
                    texts.extend(self.skipped(next..place));
                    next = place + 1;
                }
                texts.push(term.text);
            }
            alternatives.push(format!("({})", texts.join(" AND ")));
        }
        if alternatives.is_empty() {
            alternatives.push("FALSE".to_owned());
        }
        let mut all = vec![format!("({})", alternatives.join(" OR "))];
        all.extend(self.skipped(next..self.row.len()));
        Ok(format!("({})", all.join(" AND ")))
    }

    /// Takes the parameters of cells that no index looks at.
    fn skipped(&self, places: Range<usize>) -> Vec<String> {
        let parameters = places.map(|place| self.row[place].parameters).sum();
        consumed(parameters)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// The terms of one index; `None` if the new row meets nothing there.
    fn terms(&self, key: &UniqueKey) -> Result<Option<Vec<Term>>, Error> {
        let table = &*self.info.table;
        let mut terms = Vec::with_capacity(key.parts.len());
        for &(position, prefix) in &key.parts {
            let column = &table.columns[position];
            let name = &column.name;
            if column.generated {
                return Err(Error::Table {
                    table: table.display_name(),
                    part: format!("its generated column {name} is in a unique index"),
                    advice: "use DELETE and INSERT".to_owned(),
                });
            }
            let place = self
                .columns
                .iter()
                .position(|c| c.eq_ignore_ascii_case(name));
            let place = place.filter(|&place| place < self.row.len());
            let cell =
                place.map(|place| (&self.row[place], &self.sql[self.row[place].span.clone()]));
            let value = match cell {
                Some((cell, text)) if cell.kind == CellKind::Absent => {
                    if text.eq_ignore_ascii_case("NULL") {
                        return Ok(None);
                    }
                    None
                }
                Some((_, text)) => Some(text),
                None => None,
            };
            let Some(value) = value else {
                // The next generated key meets no row.
                if self.info.auto_increment == Some(position) {
                    return Ok(None);
                }
                if self.info.computed_defaults.contains(&position) {
                    return Err(refuse(
                        format!("the value of {name} is made by the database"),
                        "give it a value, or use DELETE and INSERT",
                    ));
                }
                let value = format!("DEFAULT({})", quote(name));
                terms.push(Term {
                    place: None,
                    text: comparison(table, (position, prefix), &value),
                });
                continue;
            };
            terms.push(Term {
                place,
                text: comparison(table, (position, prefix), value),
            });
        }
        terms.sort_by_key(|term| term.place);
        Ok(Some(terms))
    }
}

/// Compares a column, or so many characters of it, as its index does.
fn comparison(table: &Table, (position, prefix): (usize, Option<u64>), value: &str) -> String {
    let column = &table.columns[position];
    let name = quote(&column.name);
    let class = Class::from_number(column.type_oid).unwrap_or(Class::Bytes);
    let form = class.comparison(&column.type_name);
    let value = if form == "?" {
        stored_as(&column.type_name, value)
    } else {
        form.replacen('?', &format!("({value})"), 1)
    };
    match prefix {
        Some(length) => format!("LEFT({name}, {length}) = LEFT({value}, {length})"),
        None => format!("{name} = {value}"),
    }
}
