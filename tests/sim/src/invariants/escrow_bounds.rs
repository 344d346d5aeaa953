//! A row that is changed in escrow stays in its bounds whichever of the undecided transactions roll
//! back.

use std::collections::BTreeMap;

use accede_core::{BranchId, Decision, Effect, Resource, Xid};

use super::Invariant;
use crate::{
    database::{BOUNDS, Database},
    oracle::{Facts, News},
};

pub(super) struct EscrowBounds {
    /// The one row with bounds of each database.
    bounded: BTreeMap<Resource, usize>,
    /// What rollbacks would take away again from it.
    open: BTreeMap<Resource, BTreeMap<(Xid, BranchId), i64>>,
}

impl EscrowBounds {
    pub(super) fn new(databases: &[Database]) -> Self {
        let row = |database: &Database| (0..database.rows()).find(|row| database.is_bounded(*row));
        let bounded = databases.iter();
        let bounded = bounded.filter_map(|db| Some((db.resource.clone(), row(db)?)));
        Self {
            bounded: bounded.collect(),
            open: BTreeMap::new(),
        }
    }

    /// `value` is what the row holds.
    fn look(&self, database: &Resource, value: i64) -> Result<(), String> {
        let mut each: BTreeMap<Xid, i64> = BTreeMap::new();
        for ((xid, _), delta) in self.open.get(database).into_iter().flatten() {
            *each.entry(*xid).or_default() += delta;
        }
        let down: i64 = each.values().filter(|delta| **delta > 0).sum();
        let up: i64 = each.values().filter(|delta| **delta < 0).sum();
        let (least, most) = (value - down, value - up);
        if BOUNDS.contains(&least) && BOUNDS.contains(&most) {
            return Ok(());
        }
        Err(format!(
            "a row of {database} holds {value}, rollbacks may make that {least} to {most}: {each:?}"
        ))
    }
}

impl Invariant for EscrowBounds {
    fn name(&self) -> &'static str {
        "escrow_bounds"
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
                let row = self.bounded.get(*database);
                let image = images.iter().find(|image| Some(&image.row) == row);
                // Changes under an exclusive lock count like others: they are undone too.
                let values = image.and_then(|image| Some((image.before?, image.after?)));
                if let Some((before, after)) = values {
                    let open = self.open.entry((*database).clone()).or_default();
                    open.insert((*xid, *branch), after - before);
                    self.look(database, after)?;
                }
            }
            News::Undone {
                database,
                xid,
                branch,
                ..
            } => {
                if let Some(open) = self.open.get_mut(*database) {
                    open.remove(&(*xid, *branch));
                }
            }
            News::Applied(step) => {
                for effect in step.effects {
                    if let Effect::Decided {
                        xid,
                        decision: Decision::Commit,
                    } = effect
                    {
                        for open in self.open.values_mut() {
                            open.retain(|(of, _), _| of != xid);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
