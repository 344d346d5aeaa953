//! Runs writes of a branch and takes the images of their rows.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::{
    Arguments as _, Either, Executor as _, MySqlConnection,
    mysql::{MySqlArguments, MySqlRow},
};

use super::{
    executor::Statement,
    images::{self, MAX_PARAMETERS},
    plan::{ChangePlan, WritePlan},
    session::Session,
    transaction::Step,
};
use crate::{
    at::{
        image::{RowImage, Value},
        statement::WriteKind,
        table::Table,
        undo::Changes,
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

/// Runs a write and records what it changed.
pub(super) async fn write(
    connection: &mut MySqlConnection,
    statement: &Statement,
    plan: &WritePlan,
    session: &Session,
    changes: &mut Changes,
) -> Result<Vec<Step>, sqlx::Error> {
    let steps = match plan {
        WritePlan::Change(plan) => change(connection, statement, plan, changes).await?,
        WritePlan::Insert(plan) => plan.run(connection, statement, session, changes).await?,
    };
    changes.end_statement()?;
    Ok(steps)
}

/// UPDATE and DELETE: locks the rows and reads them, changes just these, and reads
/// them again. The statement cannot reach a row that has no image, whatever others
/// commit meanwhile.
async fn change(
    connection: &mut MySqlConnection,
    statement: &Statement,
    plan: &ChangePlan,
    changes: &mut Changes,
) -> Result<Vec<Step>, sqlx::Error> {
    let table = &plan.table;
    let reading = statement.with_text(plan.locking_sql.clone(), statement.arguments());
    let before = read_images(connection, reading, table).await?;
    let count = if before.is_empty() {
        0
    } else {
        images::padded(before.len())
    };
    let mut arguments = statement.arguments();
    let parameters = arguments.len() + count * table.key.len();
    if parameters > MAX_PARAMETERS {
        return Err(Error::TooLarge {
            what: format!("the statement's keys and parameters, {parameters},"),
            limit: MAX_PARAMETERS,
        }
        .into());
    }
    images::bind_keys(&mut arguments, table, &before, count)?;
    let writing = statement.with_text(plan.sql(count), arguments);
    let steps = collect(connection, writing, true, |_| Ok(())).await?;
    match plan.kind {
        WriteKind::Delete => {
            let deleted = steps.iter().map(|step| match step {
                Either::Left(done) if !plan.returns => done.rows_affected(),
                Either::Left(_) => 0,
                Either::Right(_) => 1,
            });
            if deleted.sum::<u64>() != before.len() as u64 {
                return Err(row_error(
                    table,
                    "another number of rows was deleted than was locked",
                ));
            }
            for row in before {
                changes.record(table, Some(row), None, false)?;
            }
        }
        _ if before.is_empty() => {}
        _ => {
            let mut after = read_by_key(connection, table, &before).await?;
            for row in before {
                let new = after.remove(&key(table, &row)).ok_or_else(|| {
                    row_error(table, "its primary key changed while it was updated")
                })?;
                changes.record(table, Some(row), Some(new), false)?;
            }
        }
    }
    Ok(steps)
}

fn key(table: &Table, row: &RowImage) -> Vec<Value> {
    table.key.iter().map(|&p| row.values[p].clone()).collect()
}

/// Reads rows that are locked already, by the keys of these images.
async fn read_by_key(
    connection: &mut MySqlConnection,
    table: &Table,
    rows: &[RowImage],
) -> Result<BTreeMap<Vec<Value>, RowImage>, sqlx::Error> {
    let count = images::padded(rows.len());
    let mut arguments = MySqlArguments::default();
    images::bind_keys(&mut arguments, table, rows, count)?;
    let condition = images::key_condition(&images::key_columns(table), count);
    let reading = Statement::own(super::plan::read_sql(table, &condition), arguments);
    let found = read_images(connection, reading, table).await?;
    Ok(found
        .into_iter()
        .map(|row| (key(table, &row), row))
        .collect())
}
