//! The result of an INSERT that was given a RETURNING of this library's own: only the
//! database can make one. An UPDATE that changes nothing counts the rows that it finds, and
//! says the key that it is told.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{Arguments as _, Either, MySqlConnection, mysql::MySqlArguments};

use super::{ADD_RETURNING, Generated, returned::unchanged_column};
use crate::{
    at::{
        image::{RowImage, Value},
        mysql::{quote, quote_qualified},
        table::Table,
    },
    error::Error,
    limits,
    store::mariadb::{
        catalog::TableInfo,
        executor::Statement,
        keys::{MAX_PARAMETERS, RowKeys},
        run::{self, collect, row_error},
        transaction::Step,
    },
};

#[derive(Debug)]
pub(super) struct TallyPlan {
    /// Which column is assigned to itself.
    column: String,
    generated: Generated,
}

/// What an INSERT did so far, as MariaDB counts it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By key: the row, and how often it counts.
    rows: BTreeMap<Vec<Value>, (RowImage, u32)>,
    first_new: Option<RowImage>,
    last_new: Option<RowImage>,
    last_changed: Option<RowImage>,
}

impl Tally {
    /// A new row counts once, a changed one twice, and one that was met and stayed as it was
    /// once: the driver asks for rows that were found. Columns in `but` do not tell.
    pub(super) fn add(
        &mut self,
        table: &Table,
        before: Option<&RowImage>,
        after: &RowImage,
        but: &[usize],
    ) {
        let same = |before: &RowImage| {
            let mut columns = 0..before.values.len();
            columns.all(|c| but.contains(&c) || before.values[c] == after.values[c])
        };
        let (_, count) = self
            .rows
            .entry(run::key(table, after))
            .or_insert_with(|| (after.clone(), 0));
        *count += match before {
            None => {
                self.first_new.get_or_insert_with(|| after.clone());
                self.last_new = Some(after.clone());
                1
            }
            Some(before) if same(before) => 1,
            Some(_) => {
                self.last_changed = Some(after.clone());
                2
            }
        };
    }
}

impl TallyPlan {
    pub(super) fn new(generated: Generated, info: &TableInfo) -> Result<Self, Error> {
        if let Some(trigger) = info.triggers.first() {
            return Err(Error::Table {
                table: info.table.display_name(),
                part: format!("its trigger {trigger} would run when the rows are counted"),
                advice: ADD_RETURNING.to_owned(),
            });
        }
        Ok(Self {
            column: quote(&info.table.columns[unchanged_column(info)?].name),
            generated,
        })
    }

    /// The key that the driver is told.
    fn key(&self, tally: &Tally) -> Option<u64> {
        let (row, position) = match self.generated {
            Generated::Never => return None,
            Generated::Always(position) => (
                tally.first_new.as_ref().or(tally.last_changed.as_ref()),
                position,
            ),
            Generated::Given(position) => (
                tally.last_new.as_ref().or(tally.last_changed.as_ref()),
                position,
            ),
        };
        let digits = row?.values[position].as_deref()?;
        std::str::from_utf8(digits)
            .ok()?
            .parse()
            .ok()
            .filter(|&key| key != 0)
    }

    pub(super) async fn run(
        &self,
        connection: &mut MySqlConnection,
        table: &Arc<Table>,
        tally: Tally,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let key = self.key(&tally);
        let mut total = sqlx::mysql::MySqlQueryResult::default();
        let mut rows: Vec<(RowImage, u32)> = tally.rows.into_values().collect();
        let mut rounds = 0;
        while !rows.is_empty() {
            rounds += 1;
            if rounds > limits::MAX_MEETINGS {
                return Err(Error::TooLarge {
                    what: format!(
                        "how often the statement meets a row of {},",
                        table.display_name()
                    ),
                    limit: limits::MAX_MEETINGS,
                }
                .into());
            }
            let images: Vec<RowImage> = rows.iter().map(|(row, _)| row.clone()).collect();
            let most = (MAX_PARAMETERS / 2) / table.key.len().max(1);
            for images in images.chunks(most) {
                let keys = RowKeys::of(table, images);
                let mut arguments = MySqlArguments::default();
                keys.bind(&mut arguments)?;
                let mut sql = format!(
                    "UPDATE {} SET {column} = {column} WHERE {}",
                    quote_qualified(&table.schema, &table.name),
                    keys.condition(None),
                    column = self.column,
                );
                if let Some(key) = key {
                    arguments.add(key).map_err(sqlx::Error::Encode)?;
                    sql += " AND LAST_INSERT_ID(?) <> 0";
                }
                let counting = Statement::own(sql, arguments);
                let steps = collect(connection, counting, true, |_| Ok(())).await?;
                let found: u64 = steps
                    .iter()
                    .map(|step| match step {
                        Either::Left(done) => done.rows_affected(),
                        Either::Right(_) => 0,
                    })
                    .sum();
                if found != images.len() as u64 {
                    return Err(row_error(
                        table,
                        "the rows that were inserted are not there",
                    ));
                }
                total.extend(steps.into_iter().filter_map(Either::left));
            }
            for (_, count) in &mut rows {
                *count -= 1;
            }
            rows.retain(|(_, count)| *count > 0);
        }
        Ok(vec![Either::Left(total)])
    }
}
