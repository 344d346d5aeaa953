//! Row images: which expressions show them, how values go back to the database.

use bytes::Bytes;
use sqlx::{
    Arguments as _, Row as _,
    mysql::{MySqlArguments, MySqlRow},
};

use crate::{
    at::{
        image::{RowImage, Value},
        mysql::{quote, types::Class},
        table::{Column, Table},
    },
    error::Error,
    limits,
};

/// Values above this never fit into an undo record; the database shows what is larger
/// than its largest message as NULL.
const LARGEST_VALUE: usize = limits::MAX_UNDO_BYTES;

fn class(type_oid: u32) -> Class {
    // Numbers come from this library's catalog reader, or from a record that was checked.
    Class::from_number(type_oid).unwrap_or(Class::Bytes)
}

/// The output columns of an image. After the values comes whether one is too large,
/// if that can be.
pub(super) fn outputs(table: &Table) -> Vec<String> {
    outputs_as(table, None)
}

/// The same where other tables have columns of the same names. `reference`: how the
/// statement refers to the table, quoted.
pub(super) fn outputs_as(table: &Table, reference: Option<&str>) -> Vec<String> {
    let mut outputs: Vec<String> = table
        .columns
        .iter()
        .map(|column| output(column, reference))
        .collect();
    outputs.extend(size_guard(table, reference));
    outputs
}

/// The expression that shows a column.
pub(super) fn output(column: &Column, reference: Option<&str>) -> String {
    match (class(column.type_oid), reference) {
        // The only name in backticks in it is the column's.
        (Class::Weight, Some(reference)) => {
            let qualifier = format!("{reference}.`");
            column.type_name.replacen('`', &qualifier, 1)
        }
        (class, _) => class.output(&qualified(reference, &column.name), &column.type_name),
    }
}

pub(super) fn qualified(reference: Option<&str>, name: &str) -> String {
    match reference {
        Some(reference) => format!("{reference}.{}", quote(name)),
        None => quote(name),
    }
}

/// Whether its values may be larger than an undo record.
fn may_be_large(column: &Column) -> bool {
    const LARGE: [&str; 9] = [
        "mediumtext",
        "longtext",
        "mediumblob",
        "longblob",
        "json",
        "geometry",
        "multi",
        "polygon",
        "linestring",
    ];
    matches!(class(column.type_oid), Class::Text | Class::Bytes)
        && LARGE
            .iter()
            .any(|large| column.type_name.starts_with(large))
}

fn size_guard(table: &Table, reference: Option<&str>) -> Option<String> {
    let sizes: Vec<String> = table
        .columns
        .iter()
        .filter(|column| may_be_large(column))
        .map(|c| {
            let name = qualified(reference, &c.name);
            format!("COALESCE(LENGTH({name}), 0) > {LARGEST_VALUE}")
        })
        .collect();
    (!sizes.is_empty()).then(|| format!("CAST(({}) AS CHAR)", sizes.join(" OR ")))
}

/// Reads the image that begins at column `first`.
pub(super) fn image(row: &MySqlRow, first: usize, table: &Table) -> Result<RowImage, sqlx::Error> {
    let mut values = Vec::with_capacity(table.columns.len());
    for index in first..first + table.columns.len() {
        values.push(value(row, index)?);
    }
    if table.columns.iter().any(may_be_large) {
        let guard: Option<Vec<u8>> = row.try_get_unchecked(first + table.columns.len())?;
        if guard.as_deref() != Some(b"0") {
            return Err(Error::TooLarge {
                what: format!(
                    "a value of {} of more bytes than that",
                    table.display_name()
                ),
                limit: LARGEST_VALUE,
            }
            .into());
        }
    }
    Ok(RowImage { values })
}

/// The same; `None` if there is no row, which an outer join shows as NULLs.
pub(super) fn image_or_none(
    row: &MySqlRow,
    first: usize,
    table: &Table,
) -> Result<Option<RowImage>, sqlx::Error> {
    let key = table.key.first().copied().unwrap_or_default();
    if value(row, first + key)?.is_none() {
        return Ok(None);
    }
    image(row, first, table).map(Some)
}

/// One value of an image.
pub(super) fn value(row: &MySqlRow, index: usize) -> Result<Value, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get_unchecked(index)?;
    Ok(bytes.map(Bytes::from))
}

/// Adds a value of an image to a statement's parameters.
pub(super) fn bind(
    arguments: &mut MySqlArguments,
    type_oid: u32,
    value: &Value,
) -> Result<(), sqlx::Error> {
    let Some(bytes) = value else {
        return arguments.add(None::<&[u8]>).map_err(sqlx::Error::Encode);
    };
    let text = || std::str::from_utf8(bytes).map_err(|error| sqlx::Error::Encode(error.into()));
    let added = match class(type_oid) {
        Class::Signed => {
            let number = text()?.parse::<i64>();
            arguments.add(number.map_err(|error| sqlx::Error::Encode(error.into()))?)
        }
        Class::Unsigned | Class::Number => {
            let number = text()?.parse::<u64>();
            arguments.add(number.map_err(|error| sqlx::Error::Encode(error.into()))?)
        }
        Class::Decimal | Class::Float | Class::Temporal | Class::Literal => arguments.add(text()?),
        Class::Text | Class::Bytes | Class::Weight => arguments.add(&bytes[..]),
    };
    added.map_err(sqlx::Error::Encode)
}
