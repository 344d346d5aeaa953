//! SELECT … FOR UPDATE and its weaker form in a branch.

use std::sync::Arc;

use sqlx::MySqlConnection;

use super::{
    branch::Branch, executor::Statement, images, pool::AtPool, run::collect, transaction::Step,
};
use crate::{
    at::{image::RowImage, lock_key, mysql::types::Class, statement::Wait, table::Table},
    registrar::LockKey,
    store::{lock_check::LockCheck, watch::Watch},
};

/// A locking read whose rows show their keys in the last columns.
#[derive(Debug)]
pub(super) struct LockingPlan {
    pub(super) sql: String,
    pub(super) table: Arc<Table>,
    pub(super) wait: Wait,
}

/// The columns that a row's lock is made of.
pub(super) fn lock_columns(table: &Table) -> Vec<usize> {
    let weight = Class::Weight as u32;
    let is_in = |position: &usize| {
        table.key.contains(position)
            || table.columns[*position].type_oid == weight
                && table
                    .unique
                    .iter()
                    .any(|index| &*index.name == "PRIMARY" && index.columns.contains(position))
    };
    (0..table.columns.len()).filter(is_in).collect()
}

impl LockingPlan {
    /// The rows are read and locked; before the user sees them, the coordinator
    /// says that no other transaction may still undo them.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        connection: &mut MySqlConnection,
        watch: &Watch<AtPool>,
        pool: &AtPool,
        branch: &Branch,
    ) -> Result<Vec<Step>, sqlx::Error> {
        use sqlx::Row as _;

        let columns = lock_columns(&self.table);
        let mut rows: Vec<Vec<LockKey>> = Vec::new();
        let statement = statement.with_text(self.sql.clone(), statement.arguments());
        let run = collect(connection, statement, true, |row| {
            let first = row.len().saturating_sub(columns.len());
            let mut image = RowImage {
                values: vec![None; self.table.columns.len()],
            };
            for (index, &position) in columns.iter().enumerate() {
                image.values[position] = images::value(row, first + index)?;
            }
            let mut keys = std::collections::BTreeSet::new();
            lock_key::add_keys(&mut keys, &self.table, None, Some(&image));
            rows.push(keys.into_iter().map(Into::into).collect());
            Ok(())
        });
        let mut steps = watch.over(run).await?;
        let check = LockCheck {
            registrar: pool.registrar(),
            resource: pool.resource(),
            xid: branch.xid,
            wait_limit: &|| branch.wait_limit(),
            wait: self.wait,
        };
        let held = check.rows(&rows).await?;
        if !held.is_empty() {
            let mut number = 0;
            steps.retain(|step| {
                let is_row = step.is_right();
                number += usize::from(is_row);
                !(is_row && held.contains(&(number - 1)))
            });
        }
        Ok(steps)
    }
}
