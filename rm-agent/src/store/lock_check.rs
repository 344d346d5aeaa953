//! Asks the coordinator about rows that a local transaction has locked or changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use accede_proto::Xid;

use crate::{
    at::statement::Wait,
    error::Error,
    limits,
    registrar::{LockKey, RefusalCode, Refused, Registrar, RowCheck},
};

pub(super) struct LockCheck<'a> {
    pub(super) registrar: &'a Arc<dyn Registrar>,
    pub(super) resource: &'a str,
    /// `None`: a local transaction outside of any asks.
    pub(super) xid: Option<Xid>,
    /// How long a request may wait now.
    pub(super) wait_limit: &'a (dyn Fn() -> Duration + Sync),
    pub(super) wait: Wait,
}

impl LockCheck<'_> {
    /// Asks about all rows at once. With SKIP LOCKED the positions of those that
    /// another transaction holds are found by halves.
    pub(super) async fn rows(&self, rows: &[Vec<LockKey>]) -> Result<BTreeSet<usize>, Error> {
        let mut held = BTreeSet::new();
        let mut parts: Vec<_> = std::iter::once(0..rows.len()).collect();
        while let Some(part) = parts.pop() {
            let keys: BTreeSet<LockKey> = rows[part.clone()].iter().flatten().cloned().collect();
            match self.ask(keys).await {
                Ok(()) => {}
                Err(Error::Refused(refused)) if self.wait == Wait::Skip && is_held(&refused) => {
                    if part.len() == 1 {
                        held.insert(part.start);
                    } else {
                        let middle = part.start + part.len() / 2;
                        parts.push(part.start..middle);
                        parts.push(middle..part.end);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// Asks about these rows.
    pub(super) async fn ask(&self, keys: impl IntoIterator<Item = LockKey>) -> Result<(), Error> {
        let keys: Vec<LockKey> = keys.into_iter().collect();
        if keys.is_empty() {
            return Ok(());
        }
        if keys.len() > limits::MAX_ROW_LOCKS {
            return Err(Error::TooLarge {
                what: format!("the number of rows to look at, {}", keys.len()),
                limit: limits::MAX_ROW_LOCKS,
            });
        }
        let wait_limit = match self.wait {
            Wait::Block => (self.wait_limit)(),
            Wait::Fail | Wait::Skip => Duration::ZERO,
        };
        let check = RowCheck {
            xid: self.xid,
            resource: self.resource.into(),
            row_locks: keys,
            wait_limit,
        };
        Ok(self.registrar.check_locks(check).await?)
    }
}

/// Whether the row is simply somebody else's.
fn is_held(refused: &Refused) -> bool {
    matches!(
        refused.code,
        RefusalCode::LockWaitTimedOut
            | RefusalCode::HolderRollingBack
            | RefusalCode::HolderBlocked
            | RefusalCode::Deadlock
    )
}
