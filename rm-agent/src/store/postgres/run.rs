//! Runs a rewritten statement to its end and takes the images out of its rows.

use futures_util::TryStreamExt as _;
use sqlx::{Either, Executor as _, PgConnection, Row as _, postgres::PgRow};

use super::{executor::Statement, plan::WritePlan, transaction::Step};
use crate::{
    at::{
        image::{ImageError, RowImage},
        rewrite::captured,
        table::Table,
    },
    error::Error,
    limits,
};

/// Runs a statement to its end. Each row is shown to `look` as it comes, so that what
/// is too large is noticed before it is in memory; rows are kept if `keep` says so.
pub(super) async fn collect(
    connection: &mut PgConnection,
    statement: Statement,
    keep: bool,
    mut look: impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
) -> Result<Vec<Step>, sqlx::Error> {
    let mut steps = Vec::new();
    let mut count = 0;
    let mut rows = connection.fetch_many(statement);
    while let Some(step) = rows.try_next().await? {
        if let Either::Right(row) = &step {
            count += 1;
            if count > limits::MAX_ROWS_PER_BRANCH {
                return Err(Error::TooLarge {
                    what: format!("the statement's number of rows, over {}", count - 1),
                    limit: limits::MAX_ROWS_PER_BRANCH,
                }
                .into());
            }
            look(row)?;
        }
        if keep || step.is_left() {
            steps.push(step);
        }
    }
    Ok(steps)
}

/// The images of a row that a write returned: before and after.
pub(super) fn images(
    row: &PgRow,
    plan: &WritePlan,
) -> Result<(Option<RowImage>, Option<RowImage>), sqlx::Error> {
    let mut column = row.len() - usize::from(plan.captured);
    let after = plan
        .has_after
        .then(|| image(row, &mut column, &plan.table))
        .transpose()?;
    if !plan.captured {
        let before = plan
            .has_before
            .then(|| image(row, &mut column, &plan.table))
            .transpose()?;
        return Ok((before, after));
    }
    let began: String = row.try_get(row.len() - 1)?;
    let setting: Option<String> = row.try_get(column.saturating_sub(1))?;
    let before = captured(setting.as_deref(), &began)
        .map(|record| decode(&record, &plan.table))
        .transpose()?;
    // A trigger may keep DO UPDATE from updating its row; then the image of that row
    // was put aside for nobody, and a new row came after it.
    let is_own = |before: &RowImage| {
        let same = |&column: &usize| {
            let after = after.as_ref().map(|after| &after.values[column]);
            after == Some(&before.values[column])
        };
        !plan.keeps_key || plan.table.key.iter().all(same)
    };
    Ok((before.filter(is_own), after))
}

/// The image in the column before `end`; moves `end` there.
pub(super) fn image(row: &PgRow, end: &mut usize, table: &Table) -> Result<RowImage, sqlx::Error> {
    *end = end
        .checked_sub(1)
        .ok_or_else(|| sqlx::Error::ColumnNotFound("image".to_owned()))?;
    let value = row.try_get_raw(*end)?;
    decode(value.as_bytes().map_err(sqlx::Error::Decode)?, table)
}

fn decode(record: &[u8], table: &Table) -> Result<RowImage, sqlx::Error> {
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
