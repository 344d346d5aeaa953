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
            let Some(last) = changes.iter().rev().find(|change| change.xid == xid) else {
                continue;
            };
            self.settled.insert(row.clone(), last.after);
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
            if *found != image.after {
                return Err(format!(
                    "{xid}: branch {} left {:?} in row {} of {database}, its undo finds {found:?}",
                    branch.0, image.after, image.row
                ));
            }
            if let Some(changes) = self.open.get_mut(&row) {
                changes.retain(|change| (change.xid, change.branch) != (xid, branch));
                let expected = changes
                    .last()
                    .map_or(self.settled[&row], |change| change.after);
                if expected != image.before {
                    return Err(format!(
                        "{xid}: the undo of branch {} puts {:?} into row {} of {database}, it held \
                         {expected:?}",
                        branch.0, image.before, image.row
                    ));
                }
            }
        }
        Ok(())
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
