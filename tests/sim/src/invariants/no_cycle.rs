//! Transactions never wait for each other in a circle: whoever would close one is refused.

use super::Invariant;
use crate::oracle::{Facts, News};

pub(super) struct NoCycle;

impl Invariant for NoCycle {
    fn name(&self) -> &'static str {
        "no_cycle"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Applied(_) if facts.locks.changed => {
                facts.locks.cycle().map_or(Ok(()), |cycle| {
                    Err(format!("these transactions wait for each other: {cycle:?}"))
                })
            }
            _ => Ok(()),
        }
    }
}
