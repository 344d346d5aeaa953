//! INSERT and REPLACE in a branch.
//!
//! With RETURNING the images come with the user's rows. Without it a plain INSERT runs as
//! it is, since only the database can tell its driver how many rows it made and which key it
//! generated; then the new rows are read by their keys. What cannot be found like that gets
//! a RETURNING of this library's own, and its result by a statement that changes nothing.

mod by_key;
mod replace;
mod returned;
mod tally;

use std::{collections::BTreeSet, sync::Arc};

use sqlx::{MySqlConnection, mysql::MySqlQueryResult};

use self::{by_key::ByKey, replace::Clearing, returned::Returned};
use super::{
    branch::Branch, catalog::TableInfo, error_number, executor::Statement, plan::refuse,
    run::row_error, transaction::Step,
};
use crate::{
    at::{
        image::RowImage,
        lock_key,
        mysql::{
            insert::{InsertParts, OnConflict},
            statement::Write,
        },
        table::Table,
    },
    error::Error,
};

pub(super) const ADD_RETURNING: &str = "add RETURNING with the key's columns and fetch the rows";

/// An INSERT or REPLACE with the images of its rows.
#[derive(Debug)]
pub(super) struct InsertPlan {
    table: Arc<Table>,
    /// REPLACE: deletes the rows that it meets; what is left is an INSERT.
    clearing: Option<Clearing>,
    images: Images,
}

#[derive(Debug)]
enum Images {
    Returned(Returned),
    ByKey(ByKey),
}

/// The row locks of new rows, by which rows that were deleted for them are known.
type Keys = BTreeSet<Vec<u8>>;

fn add_keys(keys: &mut Keys, table: &Table, row: &RowImage) {
    lock_key::add_keys(keys, table, None, Some(row));
}

impl InsertPlan {
    pub(super) fn new(
        sql: &str,
        write: &Write,
        parts: &InsertParts,
        info: &TableInfo,
    ) -> Result<Self, Error> {
        let table = Arc::clone(&info.table);
        let mut sql = sql.to_owned();
        let mut clearing = None;
        if let OnConflict::Replace(word) = &parts.conflict {
            clearing = Some(Clearing::new(&sql, write, parts, info)?);
            // As long as the word that it takes the place of.
            sql.replace_range(word.clone(), "INSERT ");
        }
        let images = if write.returning.is_some() {
            Images::Returned(Returned::new(&sql, write, parts, info)?)
        } else if matches!(parts.conflict, OnConflict::Fail | OnConflict::Replace(_)) {
            match ByKey::new(&sql, parts, info) {
                Ok(found) => Images::ByKey(found),
                Err(why) => match Returned::new(&sql, write, parts, info) {
                    Ok(returned) => Images::Returned(returned),
                    Err(_) => return Err(why),
                },
            }
        } else {
            Images::Returned(Returned::new(&sql, write, parts, info)?)
        };
        Ok(Self {
            table,
            clearing,
            images,
        })
    }

    pub(super) async fn run(
        &self,
        connection: &mut MySqlConnection,
        statement: &Statement,
        branch: &mut Branch,
        wrote: &mut bool,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let Some(clearing) = &self.clearing else {
            return self
                .insert(connection, statement, branch, wrote, None)
                .await;
        };
        let cleared = clearing.run(connection, statement, branch, wrote).await?;
        let mut keys = Keys::new();
        let inserted = self
            .insert(connection, statement, branch, wrote, Some(&mut keys))
            .await;
        let steps = inserted.map_err(|error| match error_number(&error) {
            Some(1062) => sqlx::Error::from(Error::RowsMoved {
                table: self.table.display_name(),
                what: error.to_string(),
            }),
            _ => error,
        })?;
        for row in &cleared.rows {
            let mut own = Keys::new();
            add_keys(&mut own, &self.table, row);
            if own.is_disjoint(&keys) {
                return Err(row_error(
                    &self.table,
                    "REPLACE deleted it although none of the new rows takes its place: a value \
                     was stored otherwise than it compares; give values of the column's own type",
                ));
            }
        }
        Ok(add_result(steps, cleared.done))
    }

    async fn insert(
        &self,
        connection: &mut MySqlConnection,
        statement: &Statement,
        branch: &mut Branch,
        wrote: &mut bool,
        keys: Option<&mut Keys>,
    ) -> Result<Vec<Step>, sqlx::Error> {
        match &self.images {
            Images::Returned(plan) => plan.run(connection, statement, branch, wrote, keys).await,
            Images::ByKey(plan) => plan.run(connection, statement, branch, wrote, keys).await,
        }
    }
}

/// Adds the count of an earlier statement to the result, unless it returned rows.
fn add_result(steps: Vec<Step>, earlier: MySqlQueryResult) -> Vec<Step> {
    if steps.iter().any(sqlx::Either::is_right) {
        return steps;
    }
    let mut total = earlier;
    total.extend(steps.into_iter().filter_map(sqlx::Either::left));
    vec![sqlx::Either::Left(total)]
}

/// What the text says about the key that the database generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generated {
    /// There is none.
    Never,
    /// In all rows; its position in the table.
    Always(usize),
    /// The text gives it.
    Given(usize),
}

impl Generated {
    fn of(parts: &InsertParts, info: &TableInfo) -> Result<Self, Error> {
        use crate::at::mysql::insert::CellKind;

        let Some(position) = info.auto_increment else {
            return Ok(Self::Never);
        };
        let name = &info.table.columns[position].name;
        let columns = parts.columns.as_ref().unwrap_or(&info.visible);
        let Some(place) = columns.iter().position(|c| c.eq_ignore_ascii_case(name)) else {
            return Ok(Self::Always(position));
        };
        let unclear = || {
            refuse(
                format!("it may give {name} values, or leave them to the database"),
                ADD_RETURNING,
            )
        };
        let rows = parts.rows.as_ref().ok_or_else(unclear)?;
        let absent = rows.iter().filter(|row| {
            let cell = row.get(place);
            cell.is_none_or(|cell| cell.kind == CellKind::Absent)
        });
        match absent.count() {
            0 => Ok(Self::Given(position)),
            all if all == rows.len() => Ok(Self::Always(position)),
            _ => Err(unclear()),
        }
    }
}
