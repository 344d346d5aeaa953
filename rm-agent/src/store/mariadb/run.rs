//! Runs writes of a branch and takes the images of their rows.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::{
    Either, Executor as _, MySqlConnection,
    mysql::{MySqlArguments, MySqlRow},
};

use super::{
    branch::Branch, executor::Statement, images, keys::RowKeys, plan::WritePlan, transaction::Step,
};
use crate::{
    at::{
        image::{RowImage, Value},
        table::Table,
    },
    error::Error,
    limits,
};

/// Runs a statement to its end. Each row is shown to `look` as it comes, so that what
/// is too large is noticed before it is in memory; rows are kept if `keep` says so.
pub(super) async fn collect(
    connection: &mut MySqlConnection,
    statement: Statement,
    keep: bool,
    mut look: impl FnMut(&MySqlRow) -> Result<(), sqlx::Error>,
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

/// Reads the images of the rows that a query shows.
pub(super) async fn read_images(
    connection: &mut MySqlConnection,
    statement: Statement,
    table: &Table,
) -> Result<Vec<RowImage>, sqlx::Error> {
    let mut found = Vec::new();
    collect(connection, statement, false, |row| {
        found.push(images::image(row, 0, table)?);
        Ok(())
    })
    .await?;
    Ok(found)
}

pub(super) fn row_error(table: &Table, reason: &str) -> sqlx::Error {
    Error::Row {
        table: table.display_name(),
        reason: reason.to_owned(),
    }
    .into()
}

/// Runs a write and records what it changed. `wrote`: whether the database has changed
/// rows, so that an error leaves changes of which no record was kept.
pub(super) async fn write(
    connection: &mut MySqlConnection,
    statement: &Statement,
    plan: &WritePlan,
    branch: &mut Branch,
    wrote: &mut bool,
) -> Result<Vec<Step>, sqlx::Error> {
    let mark = branch.changes.mark();
    let done = match plan {
        WritePlan::Change(plan) => {
            let changes = &mut branch.changes;
            plan.run(connection, statement, changes, wrote).await
        }
        WritePlan::Insert(plan) => plan.run(connection, statement, branch, wrote).await,
    };
    let done = done.and_then(|steps| Ok(branch.changes.end_statement().map(|()| steps)?));
    if done.is_err() {
        branch.changes.take_back(mark);
    }
    branch.changes.release(1);
    done
}

/// The values of a row's key.
pub(super) fn key(table: &Table, row: &RowImage) -> Vec<Value> {
    table.key.iter().map(|&p| row.values[p].clone()).collect()
}

/// Reads rows that are locked already, by the keys of these images.
pub(super) async fn read_by_key(
    connection: &mut MySqlConnection,
    table: &Table,
    rows: &[RowImage],
) -> Result<BTreeMap<Vec<Value>, RowImage>, sqlx::Error> {
    let keys = RowKeys::of(table, rows);
    let mut arguments = MySqlArguments::default();
    keys.bind(&mut arguments)?;
    let sql = super::plan::read_sql(table, &keys.condition(None));
    let reading = Statement::own(sql, arguments);
    let found = read_images(connection, reading, table).await?;
    Ok(found
        .into_iter()
        .map(|row| (key(table, &row), row))
        .collect())
}
