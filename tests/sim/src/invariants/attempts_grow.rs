//! Each attempt to finish a branch has a number of its own, larger than all before; orders carry
//! the epoch of the leader that sends them, which never goes back.

use std::collections::BTreeMap;

use accede_core::{Attempt, BranchId, Effect, Epoch, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct AttemptsGrow {
    newest: BTreeMap<(Xid, BranchId), Attempt>,
    epoch: Epoch,
}

impl Invariant for AttemptsGrow {
    fn name(&self) -> &'static str {
        "attempts_grow"
    }

    fn check(&mut self, facts: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::Applied(step) => {
                for effect in step.effects {
                    let Effect::Order(order) = effect else {
                        continue;
                    };
                    let newest = self.newest.entry((order.xid, order.branch)).or_default();
                    if order.attempt <= *newest {
                        return Err(format!(
                            "{}: a new order for branch {} has the number of attempt {} again",
                            order.xid, order.branch.0, order.attempt.0
                        ));
                    }
                    *newest = order.attempt;
                }
            }
            News::Ordered(order) => {
                if order.epoch < self.epoch || order.epoch > facts.witness.epoch() {
                    return Err(format!(
                        "{}: an order of epoch {} goes out after one of epoch {}",
                        order.xid, order.epoch.0, self.epoch.0
                    ));
                }
                self.epoch = order.epoch;
            }
            _ => {}
        }
        Ok(())
    }
}
