//! Phase two on MariaDB.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, MySqlConnection, MySqlPool};

use super::{
    database::{
        BranchKey, CheckError, Database, Ledger, Leftover, Meta, PhaseTwoError, PreparedOnes,
        UndoPolicy, sort,
    },
    orders::Ended,
};
use crate::store::mariadb::{AtPool, phase_two};

/// A MariaDB database, through the small pool that finishes branches.
pub(super) struct MariaDb(AtPool);

impl MariaDb {
    pub(super) fn new(pool: AtPool) -> Self {
        Self(pool)
    }

    fn pool(&self) -> &MySqlPool {
        self.0.phase_two()
    }
}

impl Database for MariaDb {
    fn check(&self) -> BoxFuture<'_, Result<Meta, CheckError>> {
        Box::pin(async move {
            // A pool only says that it timed out; a connection of its own says why.
            let options = self.pool().connect_options();
            let probe = MySqlConnection::connect_with(&options)
                .await
                .map_err(|error| CheckError::Unavailable(error.to_string()))?;
            // It has served its purpose, whether or not it closes well.
            drop(probe.close().await);
            self.0.check().await.map_err(sort)?;
            phase_two::read_meta(self.pool()).await.map_err(sort)
        })
    }

    fn claim(&self, cluster: [u8; 16]) -> BoxFuture<'_, Result<(), CheckError>> {
        Box::pin(async move {
            phase_two::claim_cluster(self.pool(), cluster)
                .await
                .map_err(sort)
        })
    }

    fn delete_undo<'a>(
        &'a self,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::delete_undo(self.pool(), branches))
    }

    fn roll_back(
        &self,
        branch: BranchKey,
        was_done: bool,
        policy: UndoPolicy,
    ) -> BoxFuture<'_, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::roll_back(&self.0, branch, was_done, policy))
    }

    fn check_fences(&self) -> BoxFuture<'_, Result<(), CheckError>> {
        Box::pin(async move { self.0.check_fences().await.map_err(sort) })
    }

    fn leftovers(
        &self,
        ledger: Ledger,
        older_than: Duration,
        after: Option<BranchKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, PhaseTwoError>> {
        Box::pin(phase_two::leftovers(
            self.pool(),
            ledger,
            older_than,
            after,
            limit,
        ))
    }

    fn purge_markers<'a>(
        &'a self,
        ledger: Ledger,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::purge_markers(self.pool(), ledger, branches))
    }

    fn commit_prepared<'a>(
        &'a self,
        branch: BranchKey,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::commit_prepared(&self.0, branch, payload))
    }

    fn roll_back_prepared<'a>(
        &'a self,
        branch: BranchKey,
        payload: &'a [u8],
        policy: UndoPolicy,
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        let work = phase_two::roll_back_prepared(&self.0, branch, payload, policy);
        Box::pin(work)
    }

    fn prepare_open<'a>(
        &'a self,
        branch: BranchKey,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(phase_two::prepare_open(&self.0, branch, payload))
    }

    fn commit_open<'a>(
        &'a self,
        branch: BranchKey,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(phase_two::commit_open(&self.0, branch, payload))
    }

    fn prepared(
        &self,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<PreparedOnes, PhaseTwoError>> {
        Box::pin(phase_two::prepared(&self.0, older_than, limit))
    }
}
