//! Two replicas that applied the same entries gave the same answers, have the same effects and
//! the same state, whether they started from a snapshot or from the first entry.

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct ReplicasAgree;

impl Invariant for ReplicasAgree {
    fn name(&self) -> &'static str {
        "replicas_agree"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::BothApplied {
                leader,
                witness,
                index,
            } if leader != witness => Err(format!(
                "entry {index}: the leader came to {leader:?}, the witness to {witness:?}"
            )),
            _ => Ok(()),
        }
    }
}
