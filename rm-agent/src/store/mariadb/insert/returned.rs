//! New rows that the statement itself returns.
//!
//! RETURNING shows only what became of a row. The first assignment of ON DUPLICATE KEY
//! UPDATE sees the row that it met, under its lock and in the version that is updated; there
//! the image is put aside in a variable, and RETURNING of the same row takes it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sqlx::{MySqlConnection, Row as _, mysql::MySqlRow};

use super::{
    ADD_RETURNING, Branch, Generated, Keys, add_keys,
    tally::{Tally, TallyPlan},
};
use crate::{
    at::{
        image::{RowImage, Value},
        mysql::{
            insert::{InsertParts, OnConflict},
            quote,
            statement::Write,
            types::Class,
        },
        table::Table,
    },
    error::Error,
    store::mariadb::{
        catalog::TableInfo,
        executor::Statement,
        images,
        plan::refuse,
        run::{self, collect, row_error},
        session::{self, CAPTURED},
        transaction::Step,
    },
};

/// Runs an INSERT whose last output columns are images.
#[derive(Debug)]
pub(super) struct Returned {
    sql: String,
    table: Arc<Table>,
    /// Two more output columns: the image that was put aside, and NULL in its place.
    captures: bool,
    /// RETURNING shows what an UPDATE would set by itself even where it does not change the
    /// row: what became of it is read. Columns that do not tell whether it changed.
    misleading: Vec<usize>,
    /// How the user gets a result, if no rows were asked for.
    tally: Option<TallyPlan>,
}

/// A row that was met or inserted, before the statement and as RETURNING shows it.
type Met = (Option<RowImage>, RowImage);

impl Returned {
    pub(super) fn new(
        sql: &str,
        write: &Write,
        parts: &InsertParts,
        info: &TableInfo,
    ) -> Result<Self, Error> {
        let table = Arc::clone(&info.table);
        let mut text = sql[..write.head.span.end].trim_end().to_owned();
        let captures = if let OnConflict::Update(place) = parts.conflict {
            text.insert_str(place, &capture(&write.reference, info)?);
            true
        } else {
            false
        };
        let mut outputs = match &write.returning {
            Some(list) => vec![sql[list.clone()].trim().to_owned()],
            None => Vec::new(),
        };
        let images = images::outputs(&table).into_iter().enumerate();
        outputs.extend(images.map(|(number, output)| format!("{output} AS accede_after{number}")));
        if captures {
            let key = quote(&table.columns[table.key[0]].name);
            outputs.push(format!(
                "IF({key} IS NULL, NULL, {CAPTURED}) AS accede_before"
            ));
            outputs.push(format!("({CAPTURED} := NULL) AS accede_taken"));
        }
        let assigns = |position: usize| {
            let name = &table.columns[position].name;
            write.assigned.iter().any(|n| n.eq_ignore_ascii_case(name))
        };
        let mut misleading = info.set_on_update.clone();
        misleading.retain(|&position| captures && !assigns(position));
        let assigns_key = table.key.iter().any(|&position| assigns(position));
        if assigns_key && !misleading.is_empty() {
            return Err(refuse(
                "ON DUPLICATE KEY UPDATE of the primary key of a table with a column that an \
                 UPDATE sets by itself",
                "use UPDATE and INSERT",
            ));
        }
        if assigns_key && write.returning.is_none() {
            return Err(refuse(
                "ON DUPLICATE KEY UPDATE of the primary key without RETURNING",
                ADD_RETURNING,
            ));
        }
        let tally = match write.returning {
            Some(_) => None,
            None => Some(TallyPlan::new(Generated::of(parts, info)?, info)?),
        };
        Ok(Self {
            sql: format!("{text}\nRETURNING {}", outputs.join(", ")),
            table,
            captures,
            misleading,
            tally,
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
        if self.captures {
            session::empty_capture(connection, branch).await?;
        }
        let statement = statement.with_text(self.sql.clone(), statement.arguments());
        let width = images::outputs(table).len() + if self.captures { 2 } else { 0 };
        let mut tally = Tally::default();
        let mut met: BTreeMap<Vec<Value>, Met> = BTreeMap::new();
        let steps = collect(connection, statement, self.tally.is_none(), |row| {
            let first = row.len().saturating_sub(width);
            let after = images::image(row, first, table)?;
            let before = if self.captures {
                captured(row, table)?
            } else {
                None
            };
            if let Some(keys) = keys.as_deref_mut() {
                add_keys(keys, table, &after);
            }
            if self.tally.is_some() {
                tally.add(table, before.as_ref(), &after, &self.misleading);
            }
            if !self.misleading.is_empty() {
                met.entry(run::key(table, &after))
                    .or_insert((before, after));
                return Ok(());
            }
            branch.changes.record(table, before, Some(after), false)?;
            // The next row may meet this one under its new key.
            branch.changes.end_statement()?;
            Ok(())
        })
        .await?;
        *wrote = true;
        branch.captures = false;
        self.record(connection, branch, met).await?;
        match &self.tally {
            None => Ok(steps),
            Some(plan) => plan.run(connection, table, tally).await,
        }
    }
}

impl Returned {
    /// Reads what became of rows, and records it.
    async fn record(
        &self,
        connection: &mut MySqlConnection,
        branch: &mut Branch,
        met: BTreeMap<Vec<Value>, Met>,
    ) -> Result<(), sqlx::Error> {
        let table = &self.table;
        let rows: Vec<RowImage> = met.values().map(|(_, shown)| shown.clone()).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut now = run::read_by_key(connection, table, &rows).await?;
        for (key, (before, _)) in met {
            let after = now
                .remove(&key)
                .ok_or_else(|| row_error(table, "it is gone after it was inserted"))?;
            branch.changes.record(table, before, Some(after), false)?;
        }
        Ok(())
    }
}

/// The assignment that puts a row's image aside and changes nothing.
fn capture(reference: &str, info: &TableInfo) -> Result<String, Error> {
    let table = &*info.table;
    let qualified = |name: &str| format!("{reference}.{}", quote(name));
    let parts = table.columns.iter().map(|column| {
        let value = images::output(column, Some(reference));
        format!("IF({value} IS NULL, '-', COALESCE(HEX({value}), '!'))")
    });
    let parts: Vec<String> = parts.collect();
    let position = unchanged_column(info)?;
    let column = qualified(&table.columns[position].name);
    let same = match Class::from_number(table.columns[position].type_oid) {
        // As a number it loses nothing.
        Some(Class::Number) => format!("CAST({column} + 0 AS UNSIGNED)"),
        _ => column.clone(),
    };
    Ok(format!(
        " {column} = IF(({CAPTURED} := COALESCE(CONCAT_WS(',', {}), '!')) IS NULL, {same}, \
         {same}),",
        parts.join(", ")
    ))
}

/// A column that can be assigned to itself without any effect: part of the key, since what
/// lies beneath a NULL would change; best a number.
pub(super) fn unchanged_column(info: &TableInfo) -> Result<usize, Error> {
    let table = &*info.table;
    let rank = |&position: &usize| {
        let class = Class::from_number(table.columns[position].type_oid);
        let kind = match class {
            Some(Class::Signed | Class::Unsigned) => 0,
            Some(Class::Decimal) => 1,
            Some(Class::Text | Class::Bytes) => 2,
            Some(Class::Temporal | Class::Literal | Class::Float) => 3,
            Some(Class::Number | Class::Weight) | None => 4,
        };
        (kind, info.auto_increment == Some(position))
    };
    let fit = table.key.iter().copied().filter(|position| {
        !table.columns[*position].generated && !info.set_on_update.contains(position)
    });
    fit.min_by_key(rank).ok_or_else(|| Error::Table {
        table: table.display_name(),
        part: "the database itself computes its primary key".to_owned(),
        advice: "use INSERT and UPDATE".to_owned(),
    })
}

/// The image that was put aside for this row; `None` if the row is new.
fn captured(row: &MySqlRow, table: &Table) -> Result<Option<RowImage>, sqlx::Error> {
    let text: Option<Vec<u8>> = row.try_get_unchecked(row.len().saturating_sub(2))?;
    let Some(text) = text else { return Ok(None) };
    let malformed = || {
        row_error(
            table,
            "its image before the statement came in an unknown form",
        )
    };
    let mut values: Vec<Value> = Vec::with_capacity(table.columns.len());
    for part in text.split(|&byte| byte == b',') {
        values.push(match part {
            b"-" => None,
            b"!" => {
                return Err(Error::TooLarge {
                    what: format!("a row of {}, in bytes,", table.display_name()),
                    limit: crate::limits::MAX_UNDO_BYTES,
                }
                .into());
            }
            digits => Some(unhex(digits).ok_or_else(malformed)?),
        });
    }
    if values.len() == table.columns.len() {
        Ok(Some(RowImage { values }))
    } else {
        Err(malformed())
    }
}

fn unhex(digits: &[u8]) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}
