//! Snapshot and log together give the state that the log alone gives: byte for byte, and with the
//! same counts, queues and next deadline, which are rebuilt rather than stored.

use accede_core::State;

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct LogEqualsSnapshot;

fn compare(found: &State, expected: &State) -> Result<(), String> {
    let differs = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        Err(format!(
            "{what}: {found:?} from snapshot and log, {expected:?} from the log alone"
        ))
    };
    if found.counts() != expected.counts() {
        return differs("counts", &found.counts(), &expected.counts());
    }
    if found.next_deadline() != expected.next_deadline() {
        return differs(
            "next deadline",
            &found.next_deadline(),
            &expected.next_deadline(),
        );
    }
    for transaction in expected.transactions_after(None) {
        let xid = transaction.xid();
        if found.transaction(xid) != Some(transaction) {
            return differs("transaction", &found.transaction(xid), &Some(transaction));
        }
        if found.waiting(xid) != expected.waiting(xid) {
            return differs("waiting", &found.waiting(xid), &expected.waiting(xid));
        }
    }
    let (found, expected) = (found.to_snapshot(), expected.to_snapshot());
    if found != expected {
        return differs("bytes of a snapshot", &found.len(), &expected.len());
    }
    Ok(())
}

impl Invariant for LogEqualsSnapshot {
    fn name(&self) -> &'static str {
        "log_equals_snapshot"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Recovered { state, .. } => compare(state, &facts.witness),
            _ => Ok(()),
        }
    }
}
