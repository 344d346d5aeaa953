//! No XID is made twice, whatever clocks, restarts and lost leases do.

use std::collections::BTreeSet;

use accede_core::Xid;

use super::Invariant;
use crate::oracle::{Facts, News};

#[derive(Default)]
pub(super) struct UniqueXids(BTreeSet<Xid>);

impl Invariant for UniqueXids {
    fn name(&self) -> &'static str {
        "unique_xids"
    }

    fn check(&mut self, _: &Facts, news: &News<'_>) -> Result<(), String> {
        match news {
            News::XidMade(xid) if !self.0.insert(*xid) => Err(format!("{xid}: was made twice")),
            _ => Ok(()),
        }
    }
}
