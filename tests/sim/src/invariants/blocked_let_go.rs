//! When an agent says that a transaction stands still in a database, nobody who waits for that
//! transaction keeps local locks: one of those may be the lock that it needs there.

use accede_core::Command;

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct BlockedLetGo;

impl Invariant for BlockedLetGo {
    fn name(&self) -> &'static str {
        "blocked_let_go"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::Applied(step) = news else {
            return Ok(());
        };
        let Command::Blocked(blocked) = step.command else {
            return Ok(());
        };
        if step.before.is_none_or(|t| t.decision().is_some()) {
            return Ok(());
        }
        facts.locks.held_up_by(blocked.xid).map_or(Ok(()), |wish| {
            Err(format!(
                "{} stands still in a database, and {} waits for it on {} with local locks",
                blocked.xid, wish.xid, wish.resource
            ))
        })
    }
}
