//! Nothing is left of a transaction that has ended: no undo record, no open promise; and when everything is over,
//! no marker, no local lock, no row lock and no waiting request either.

use super::Invariant;
use crate::{
    database::{Database, Record},
    oracle::{Facts, News},
};

pub(super) struct NothingLeft;

fn look(facts: &Facts, database: &Database) -> Result<(), String> {
    let name = &database.resource;
    if let Some(((xid, branch), record)) = database.undo.first_key_value() {
        let what = match record {
            Record::Undo(_) => "an undo record",
            Record::Marker { .. } => "a marker",
        };
        let known = facts.witness.transaction(*xid).map(|t| t.status());
        return Err(format!(
            "{xid}: {what} of branch {} is left in {name}; the transaction is {known:?}",
            branch.0
        ));
    }
    if let Some(((xid, branch), phase)) = database.open_promise() {
        return Err(format!(
            "{xid}: the promise of branch {} in {name} is still {phase:?}",
            branch.0
        ));
    }
    match database.open_locals() {
        0 => Ok(()),
        open => Err(format!("{open} local transactions are left open in {name}")),
    }
}

impl Invariant for NothingLeft {
    fn name(&self) -> &'static str {
        "nothing_left"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::Over(databases) = news else {
            return Ok(());
        };
        let counts = facts.witness.counts();
        if (counts.row_locks, counts.waiting) != (0, 0) {
            return Err(format!(
                "row locks or waiting requests are left: {counts:?}"
            ));
        }
        databases
            .iter()
            .try_for_each(|database| look(facts, database))
    }
}
