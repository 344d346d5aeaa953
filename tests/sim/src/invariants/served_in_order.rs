//! Waiters are served first come, first served, and as soon as nothing is in their way. Only who
//! holds a row may take it again before others.

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct ServedInOrder;

impl Invariant for ServedInOrder {
    fn name(&self) -> &'static str {
        "served_in_order"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::Applied(_) = news else {
            return Ok(());
        };
        let overtaking = facts
            .locks
            .grants
            .iter()
            .find(|grant| !grant.overtook.is_empty());
        if let Some(grant) = overtaking {
            return Err(format!(
                "{}: got row locks on {} before {:?}, who waited longer",
                grant.wish.xid, grant.wish.resource, grant.overtook
            ));
        }
        facts.locks.forgotten().map_or(Ok(()), |wish| {
            Err(format!(
                "{}: waits for row locks on {} that nobody holds or waits for",
                wish.xid, wish.resource
            ))
        })
    }
}
