//! When faults have stopped, everything ends within a bounded time: transactions, the work of
//! agents, the questions of clients.

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct EndsInTime;

impl Invariant for EndsInTime {
    fn name(&self) -> &'static str {
        "ends_in_time"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Unfinished(what) => {
                let counts = facts.witness.counts();
                Err(format!(
                    "long after the last fault this is not over: {what}; {counts:?}"
                ))
            }
            _ => Ok(()),
        }
    }
}
