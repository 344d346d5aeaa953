//! How a client ends its transaction, and learns what became of it, whoever is killed meanwhile.

use std::time::Duration;

use accede_tm_client::{
    CommitError, GlobalTransaction, Outcome, RollBackError, TransactionClient, Xid,
};

use crate::eventually;

/// Commits or rolls back; whether it was committed.
///
/// # Errors
/// What the coordinator refuses; when nobody knows `within` that time what became of it.
pub async fn end(
    transactions: &TransactionClient,
    order: GlobalTransaction,
    commit: bool,
    within: Duration,
) -> anyhow::Result<bool> {
    let xid = order.xid();
    if !commit {
        return match order.roll_back("changed my mind").await {
            Ok(_) => Ok(false),
            Err(RollBackError::Unknown { .. }) => ended(transactions, xid, within).await,
            Err(error) => Err(error.into()),
        };
    }
    match order.commit().await {
        Ok(_) => Ok(true),
        Err(CommitError::RolledBack(_) | CommitError::NeverBegun { .. }) => Ok(false),
        Err(CommitError::Unknown { .. }) => ended(transactions, xid, within).await,
        Err(error) => Err(error.into()),
    }
}

/// What became of it, once somebody knows: whether it was committed.
///
/// # Errors
/// When nobody knows `within` that time.
pub async fn ended(
    transactions: &TransactionClient,
    xid: Xid,
    within: Duration,
) -> anyhow::Result<bool> {
    eventually("its outcome is told", within, async || {
        match transactions.outcome(xid).await.ok()? {
            Outcome::Committed(_) => Some(true),
            Outcome::RolledBack(_) | Outcome::NotBegun => Some(false),
            _ => None,
        }
    })
    .await
}
