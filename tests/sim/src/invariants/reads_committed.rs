//! A locking read sees only what is decided to commit, or what its own transaction changed.

use std::collections::BTreeMap;

use accede_core::{BranchId, Decision, Resource, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct ReadsCommitted {
    /// Changes that are not undone.
    changes: BTreeMap<(Resource, usize), Vec<(Xid, BranchId)>>,
}

impl Invariant for ReadsCommitted {
    fn name(&self) -> &'static str {
        "reads_committed"
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
                    self.changes.entry(row).or_default().push((*xid, *branch));
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
                    if let Some(changes) = self.changes.get_mut(&((*database).clone(), image.row)) {
                        changes.retain(|change| *change != (*xid, *branch));
                    }
                }
            }
            News::Read {
                database,
                xid,
                rows,
            } => {
                for row in *rows {
                    let key = ((*database).clone(), *row);
                    let changes = self.changes.get(&key).into_iter().flatten();
                    let dirty = changes.map(|(other, _)| other).find(|other| {
                        *other != xid && facts.decisions.get(other) != Some(&Decision::Commit)
                    });
                    if let Some(other) = dirty {
                        return Err(format!(
                            "{xid}: reads row {row} of {database} under lock, which {other} \
                             changed and has not committed"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
