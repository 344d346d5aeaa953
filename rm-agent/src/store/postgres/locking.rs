//! SELECT … FOR UPDATE and its weaker forms in a branch.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sqlx::{PgConnection, Row as _};

use super::{
    branch::Branch,
    executor::Statement,
    pool::AtPool,
    run::{collect, image},
    transaction::Step,
    watch::Watch,
};
use crate::{
    at::{lock_key, statement::Wait, table::Table},
    error::Error,
    limits,
    registrar::{LockKey, RefusalCode, Refused, Registration},
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
        watch: &Watch,
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
        let check = Check { pool, branch, wait };
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

struct Check<'a> {
    pool: &'a AtPool,
    branch: &'a Branch,
    wait: Wait,
}

impl Check<'_> {
    /// Asks about all rows at once. With SKIP LOCKED the positions of those that
    /// another transaction holds are found by halves.
    async fn rows(&self, rows: &[Vec<LockKey>]) -> Result<BTreeSet<usize>, Error> {
        let mut held = BTreeSet::new();
        let mut parts: Vec<_> = std::iter::once(0..rows.len()).collect();
        while let Some(part) = parts.pop() {
            let keys: BTreeSet<LockKey> = rows[part.clone()].iter().flatten().cloned().collect();
            match self.ask(keys).await {
                Ok(()) => {}
                Err(Error::Refused(refused)) if self.wait == Wait::Skip && is_held(&refused) => {
                    if part.len() == 1 {
                        held.insert(part.start);
                    } else {
                        let middle = part.start + part.len() / 2;
                        parts.push(part.start..middle);
                        parts.push(middle..part.end);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    async fn ask(&self, keys: BTreeSet<LockKey>) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        if keys.len() > limits::MAX_ROW_LOCKS {
            return Err(Error::TooLarge {
                what: format!("the number of rows locked by FOR UPDATE, {}", keys.len()),
                limit: limits::MAX_ROW_LOCKS,
            });
        }
        let wait_limit = match self.wait {
            Wait::Block => self.branch.wait_limit(),
            Wait::Fail | Wait::Skip => Duration::ZERO,
        };
        let check = Registration {
            xid: self.branch.xid,
            resource: self.pool.resource().into(),
            row_locks: keys.into_iter().collect(),
            escrow_locks: Vec::new(),
            wait_limit,
        };
        Ok(self.pool.registrar().check_locks(check).await?)
    }
}

/// Whether the row is simply somebody else's.
fn is_held(refused: &Refused) -> bool {
    matches!(
        refused.code,
        RefusalCode::LockWaitTimedOut
            | RefusalCode::HolderRollingBack
            | RefusalCode::HolderBlocked
            | RefusalCode::Deadlock
    )
}
