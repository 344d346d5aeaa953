//! No XID is made twice, whatever clocks, restarts and lost leases do: each new holder of a worker
//! number gets a range above all that was leased before.

use std::collections::{BTreeMap, BTreeSet};

use accede_core::{Command, Lease, ProcessId, Reply, WorkerId, Xid};

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct UniqueXids {
    made: BTreeSet<Xid>,
    /// The present holder of each number, and up to where it was leased.
    leased: BTreeMap<WorkerId, (ProcessId, u64)>,
}

impl UniqueXids {
    fn leased(&mut self, process: ProcessId, lease: &Lease) -> Result<(), String> {
        let Lease {
            worker,
            floor_ms,
            ceiling_ms,
            ..
        } = lease;
        let (holder, through) = self.leased.entry(*worker).or_insert((process, 0));
        if *holder != process && floor_ms < through {
            return Err(format!(
                "worker {}: its new holder may use {floor_ms} and above, an earlier one had all \
                 below {through}",
                worker.0
            ));
        }
        *holder = process;
        *through = (*through).max(*ceiling_ms);
        Ok(())
    }
}

impl Invariant for UniqueXids {
    fn name(&self) -> &'static str {
        "unique_xids"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::XidMade(xid) if !self.made.insert(*xid) => Err(format!("{xid}: was made twice")),
            News::Applied(step) => match (step.command, step.reply) {
                (Command::LeaseWorker(asked), Reply::Leased(lease)) => {
                    self.leased(asked.process, lease)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
