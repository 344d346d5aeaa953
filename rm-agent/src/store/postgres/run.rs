//! Runs a rewritten statement to its end and takes the images out of its rows.

use futures_util::TryStreamExt as _;
use sqlx::{Executor as _, PgConnection, Row as _, postgres::PgRow};

use super::{executor::Statement, transaction::Step};
use crate::{
    at::{
        image::{ImageError, RowImage},
        table::Table,
    },
    error::Error,
    limits,
};

/// Runs a statement to its end.
pub(super) async fn collect(
    connection: &mut PgConnection,
    statement: Statement,
) -> Result<Vec<Step>, sqlx::Error> {
    let mut steps = Vec::new();
    let mut rows = connection.fetch_many(statement);
    while let Some(step) = rows.try_next().await? {
        if steps.len() > limits::MAX_ROWS_PER_BRANCH {
            return Err(Error::TooLarge {
                what: format!("the statement's number of rows, over {}", steps.len() - 1),
                limit: limits::MAX_ROWS_PER_BRANCH,
            }
            .into());
        }
        steps.push(step);
    }
    Ok(steps)
}

/// The image in the column before `end`; moves `end` there.
pub(super) fn image(row: &PgRow, end: &mut usize, table: &Table) -> Result<RowImage, sqlx::Error> {
    *end = end
        .checked_sub(1)
        .ok_or_else(|| sqlx::Error::ColumnNotFound("image".to_owned()))?;
    let value = row.try_get_raw(*end)?;
    let record = value.as_bytes().map_err(sqlx::Error::Decode)?;
    let error = match RowImage::decode(table, record) {
        Ok(image) => return Ok(image),
        Err(ImageError::ColumnsChanged) => Error::TableChanged {
            table: table.display_name(),
        },
        Err(ImageError::OtherTable) => Error::TableChanged {
            table: table.display_name(),
        },
        Err(ImageError::OtherStyle) => Error::Row {
            table: table.display_name(),
            reason: "its text form depends on the session; leave DateStyle at ISO and \
                     IntervalStyle at postgres"
                .to_owned(),
        },
        Err(ImageError::Malformed) => Error::Row {
            table: table.display_name(),
            reason: "the database sent an image in an unknown form".to_owned(),
        },
    };
    Err(error.into())
}
