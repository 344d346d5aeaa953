//! SELECT … FOR UPDATE and its weaker forms in a branch.

use std::sync::Arc;

use sqlx::{PgConnection, Row as _};

use super::{
    branch::Branch,
    executor::Statement,
    pool::AtPool,
    run::{collect, image},
    transaction::Step,
};
use crate::{
    at::{lock_key, statement::Wait, table::Table},
    registrar::LockKey,
    store::{lock_check::LockCheck, watch::Watch},
};

/// A locking read with the images of the rows that it locks.
pub(super) struct LockingStatement<'a> {
    pub(super) statement: Statement,
    pub(super) tables: &'a [Arc<Table>],
    pub(super) wait: Wait,
}

impl LockingStatement<'_> {
    /// The rows are read and locked; before the user sees them, the coordinator
    /// says that no other transaction may still undo them.
    pub(super) async fn run(
        self,
        connection: &mut PgConnection,
        watch: &Watch<AtPool>,
        pool: &AtPool,
        branch: &Branch,
    ) -> Result<Vec<Step>, sqlx::Error> {
        let Self {
            statement,
            tables,
            wait,
        } = self;
        let mut rows: Vec<Vec<LockKey>> = Vec::new();
        let run = collect(connection, statement, true, |row| {
            let mut column = row.len();
            let mut keys = Vec::with_capacity(tables.len());
            for table in tables.iter().rev() {
                let image = image(row, &mut column, table)?;
                keys.push(lock_key::primary_key(table, &image).into());
            }
            rows.push(keys);
            Ok(())
        });
        let mut steps = watch.over(run).await?;
        let check = LockCheck {
            registrar: pool.registrar(),
            resource: pool.resource(),
            xid: branch.xid,
            wait_limit: &|| branch.wait_limit(),
            wait,
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
