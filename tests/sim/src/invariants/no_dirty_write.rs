//! Nobody overwrites a change whose transaction is not decided to commit. What was only added may
//! be added to.

use std::collections::BTreeMap;

use accede_core::{BranchId, Decision, Resource, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

struct Undoable {
    xid: Xid,
    branch: BranchId,
    escrow: bool,
}

#[derive(Default)]
pub(super) struct NoDirtyWrite {
    /// Changes that may still be undone.
    undoable: BTreeMap<(Resource, usize), Vec<Undoable>>,
}

impl Invariant for NoDirtyWrite {
    fn name(&self) -> &'static str {
        "no_dirty_write"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::LocalCommit {
                database,
                xid,
                branch,
                images,
                ..
            } => {
                for image in *images {
                    let row = ((*database).clone(), image.row);
                    let before = self.undoable.entry(row).or_default();
                    let is_dirty =
                        |other: &Xid| facts.decisions.get(other) != Some(&Decision::Commit);
                    let escrow = image.delta.is_some();
                    let dirty = before.iter().find(|other| {
                        other.xid != *xid && is_dirty(&other.xid) && !(escrow && other.escrow)
                    });
                    if let Some(Undoable { xid: other, .. }) = dirty {
                        return Err(format!(
                            "{xid}: overwrites row {} of {database}, which {other} changed and may \
                             still undo",
                            image.row
                        ));
                    }
                    before.push(Undoable {
                        xid: *xid,
                        branch: *branch,
                        escrow,
                    });
                }
            }
            News::Undone {
                database,
                xid,
                branch,
                images,
                ..
            } => {
                for image in *images {
                    if let Some(before) = self.undoable.get_mut(&((*database).clone(), image.row)) {
                        before.retain(|change| (change.xid, change.branch) != (*xid, *branch));
                    }
                }
            }
            News::Kept { xid, branch } => {
                for changes in self.undoable.values_mut() {
                    changes.retain(|change| (change.xid, change.branch) != (*xid, *branch));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
