//! Reads rows as images, and names them by their keys.

use futures_util::TryStreamExt as _;
use sqlx::{
    Row as _, SqliteConnection, TypeInfo as _, ValueRef as _,
    sqlite::{SqliteArguments, SqliteRow},
};
use sqlx_core::arguments::Arguments as _;

use super::catalog::TableInfo;
use crate::at::{
    image::{RowImage, Value},
    sqlite::value::Datum,
    table::quote,
};

/// One value of a row, as an image holds it.
pub(super) fn value(row: &SqliteRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(None);
    }
    let class = raw.type_info().name().to_owned();
    Ok(match class.as_str() {
        "INTEGER" => Datum::Integer(row.try_get_unchecked(index)?).encode(),
        "REAL" => Datum::Real(row.try_get_unchecked(index)?).encode(),
        "TEXT" => Datum::Text(row.try_get_unchecked(index)?).encode(),
        "BLOB" => Datum::Blob(row.try_get_unchecked(index)?).encode(),
        other => {
            return Err(sqlx::Error::Protocol(format!(
                "a value of the unknown storage class {other}"
            )));
        }
    })
}

/// `width` values from `start` on.
pub(super) fn values(
    row: &SqliteRow,
    start: usize,
    width: usize,
) -> Result<Vec<Value>, sqlx::Error> {
    (start..start + width)
        .map(|index| value(row, index))
        .collect()
}

/// Binds a value; returns the expression that stands for it.
pub(super) fn bind(
    arguments: &mut SqliteArguments,
    value: &Value,
) -> Result<&'static str, sqlx::Error> {
    let mut expression = "?";
    let added = match Datum::decode(value) {
        None => {
            return Err(sqlx::Error::Protocol(
                "an image has a value of an unknown storage class".to_owned(),
            ));
        }
        Some(Datum::Null) => arguments.add(None::<i64>),
        Some(Datum::Integer(integer)) => arguments.add(integer),
        Some(Datum::Real(real)) => arguments.add(real),
        Some(Datum::Blob(blob)) => arguments.add(blob.to_vec()),
        Some(Datum::Text(text)) => match std::str::from_utf8(text) {
            Ok(text) => arguments.add(text.to_owned()),
            Err(_) => {
                expression = "CAST(? AS TEXT)";
                arguments.add(text.to_vec())
            }
        },
    };
    added.map_err(sqlx::Error::Encode)?;
    Ok(expression)
}

/// The columns of an image.
pub(super) fn columns(table: &TableInfo, prefix: &str) -> String {
    let names: Vec<String> = (0..table.columns.len())
        .map(|position| format!("{prefix}{}", name(table, position)))
        .collect();
    names.join(", ")
}

/// A column's name. That of the hidden row number is no column's and stands as it is.
pub(super) fn name(table: &TableInfo, position: usize) -> String {
    quote(&table.columns[position].name)
}

/// The condition that holds for one row, whose key has these values.
pub(super) fn key_condition(
    table: &TableInfo,
    key: &[Value],
    arguments: &mut SqliteArguments,
) -> Result<String, sqlx::Error> {
    let mut terms = Vec::with_capacity(key.len());
    for ((&position, collation), value) in table.key.iter().zip(&table.collations).zip(key) {
        let value = bind(arguments, value)?;
        let name = name(table, position);
        terms.push(if table.without_rowid {
            // The index's collation may be another one than the column's.
            format!("{name} COLLATE {} = {value}", collation.name())
        } else {
            format!("{name} = {value}")
        });
    }
    Ok(terms.join(" AND "))
}

/// Reads one row by its key.
pub(super) async fn read_row(
    connection: &mut SqliteConnection,
    table: &TableInfo,
    key: &[Value],
) -> Result<Option<RowImage>, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    let condition = key_condition(table, key, &mut arguments)?;
    let sql = format!(
        "SELECT {} FROM {} WHERE {condition}",
        columns(table, ""),
        table.qualified()
    );
    let row = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments)
        .fetch_optional(connection)
        .await?;
    let width = table.columns.len();
    row.map(|row| values(&row, 0, width).map(|values| RowImage { values }))
        .transpose()
}

/// Reads all rows of a query whose columns are those of the table's images.
pub(super) async fn read_images(
    connection: &mut SqliteConnection,
    table: &TableInfo,
    sql: String,
) -> Result<Vec<RowImage>, sqlx::Error> {
    let mut images = Vec::new();
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .persistent(false)
        .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let values = values(&row, 0, table.columns.len())?;
        images.push(RowImage { values });
    }
    Ok(images)
}
