//! After a rollback the rows are as they were before; after a commit they are as the branches left
//! them. In the end each row holds what its last committed change made of it.

use std::collections::BTreeMap;

use accede_core::{BranchId, Decision, Effect, Resource, Xid};

use super::Invariant;
use crate::{
    database::{Database, Image},
    oracle::{Facts, News},
};

type Row = (Resource, usize);

/// A change whose transaction is not decided or whose undo is not done.
struct Open {
    xid: Xid,
    branch: BranchId,
    after: Option<i64>,
    /// It was added, whatever there was.
    delta: Option<i64>,
}

impl Open {
    /// What the change makes of a row.
    fn on(&self, value: Option<i64>) -> Option<i64> {
        match self.delta {
            Some(delta) => value.map(|value| value + delta),
            None => self.after,
        }
    }
}

pub(super) struct RowsRestored {
    /// What the decided transactions made of each row.
    settled: BTreeMap<Row, Option<i64>>,
    open: BTreeMap<Row, Vec<Open>>,
}

impl RowsRestored {
    pub(super) fn new(databases: &[Database]) -> Self {
        let rows = databases.iter().flat_map(|database| {
            (0..database.rows()).map(|row| ((database.resource.clone(), row), database.value(row)))
        });
        Self {
            settled: rows.collect(),
            open: BTreeMap::new(),
        }
    }

    fn committed(&mut self, xid: Xid) {
        for (row, changes) in &mut self.open {
            let own = changes.iter().filter(|change| change.xid == xid);
            let settled = self.settled.entry(row.clone()).or_default();
            *settled = own.fold(*settled, |value, change| change.on(value));
            changes.retain(|change| change.xid != xid);
        }
    }

    fn undone(
        &mut self,
        database: &Resource,
        (xid, branch): (Xid, BranchId),
        images: &[Image],
        found: &[Option<i64>],
    ) -> Result<(), String> {
        for (image, found) in images.iter().zip(found) {
            let row = (database.clone(), image.row);
            let left = self.expected(&row);
            if *found != left {
                return Err(format!(
                    "{xid}: the changes up to branch {} left {left:?} in row {} of {database}, its \
                     undo finds {found:?}",
                    branch.0, image.row
                ));
            }
            if let Some(changes) = self.open.get_mut(&row) {
                changes.retain(|change| (change.xid, change.branch) != (xid, branch));
                let (expected, restored) = (self.expected(&row), image.restored(*found));
                if expected != restored {
                    return Err(format!(
                        "{xid}: the undo of branch {} puts {restored:?} into row {} of {database}, \
                         it held {expected:?}",
                        branch.0, image.row
                    ));
                }
            }
        }
        Ok(())
    }

    /// What a row holds: the committed value with the open changes, in their order.
    fn expected(&self, row: &Row) -> Option<i64> {
        let open = self.open.get(row).into_iter().flatten();
        open.fold(self.settled[row], |value, change| change.on(value))
    }

    fn compare(&self, databases: &[Database]) -> Result<(), String> {
        for database in databases {
            for number in 0..database.rows() {
                let expected = self.settled[&(database.resource.clone(), number)];
                let found = database.value(number);
                if found != expected {
                    return Err(format!(
                        "row {number} of {} holds {found:?}, committed is {expected:?}",
                        database.resource
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Invariant for RowsRestored {
    fn name(&self) -> &'static str {
        "rows_restored"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::LocalCommit {
                database,
                xid,
                branch,
                images,
                ..
            } => {
                for image in *images {
                    let changes = self
                        .open
                        .entry(((*database).clone(), image.row))
                        .or_default();
                    changes.push(Open {
                        xid: *xid,
                        branch: *branch,
                        after: image.after,
                        delta: image.delta,
                    });
                }
                Ok(())
            }
            News::Applied(step) => {
                for effect in step.effects {
                    if let Effect::Decided {
                        xid,
                        decision: Decision::Commit,
                    } = effect
                    {
                        self.committed(*xid);
                    }
                }
                Ok(())
            }
            News::Undone {
                database,
                xid,
                branch,
                images,
                found,
            } => self.undone(database, (*xid, *branch), images, found),
            // Nobody writes past the agents here, so nothing can keep an undo from working.
            News::CannotUndo { xid, branch, why } => Err(format!(
                "{xid}: branch {} cannot be undone: {why}",
                branch.0
            )),
            News::Over(databases) => self.compare(databases),
            _ => Ok(()),
        }
    }
}
