//! No two transactions hold one row: locks are kept until the decision to commit, else until the
//! branch is over, and nobody gets a row before that.

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct OneHolder;

impl Invariant for OneHolder {
    fn name(&self) -> &'static str {
        "one_holder"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        let News::Applied(_) = news else {
            return Ok(());
        };
        let two = facts
            .locks
            .grants
            .iter()
            .find(|grant| !grant.held_by.is_empty());
        two.map_or(Ok(()), |grant| {
            Err(format!(
                "{}: was given row locks on {} that {:?} holds",
                grant.wish.xid, grant.wish.resource, grant.held_by
            ))
        })
    }
}
