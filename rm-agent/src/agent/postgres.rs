//! Phase two on PostgreSQL.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, PgConnection, PgPool};

use super::{
    database::{
        BranchKey, CheckError, Database, Ledger, Leftover, Meta, PhaseTwoError, PreparedOnes,
        UndoPolicy, sort,
    },
    orders::Ended,
};
use crate::store::postgres::{AtPool, phase_two};

/// A PostgreSQL database, through the small pool that finishes branches.
pub(super) struct Postgres(AtPool);

impl Postgres {
    pub(super) fn new(pool: AtPool) -> Self {
        Self(pool)
    }

    fn pool(&self) -> &PgPool {
        self.0.phase_two()
    }
}

impl Database for Postgres {
    fn check(&self) -> BoxFuture<'_, Result<Meta, CheckError>> {
        Box::pin(async move {
            // A pool only says that it timed out; a connection of its own says why.
            let options = self.pool().connect_options();
            let probe = PgConnection::connect_with(&options)
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
        Box::pin(phase_two::roll_back(self.pool(), branch, was_done, policy))
    }

    fn roll_back_together<'a>(
        &'a self,
        branches: &'a [BranchKey],
    ) -> BoxFuture<'a, Result<Vec<BranchKey>, PhaseTwoError>> {
        Box::pin(phase_two::roll_back_together(self.pool(), branches))
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
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::commit_prepared(&self.0, branch))
    }

    fn roll_back_prepared<'a>(
        &'a self,
        branch: BranchKey,
        _: &'a [u8],
        policy: UndoPolicy,
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>> {
        Box::pin(phase_two::roll_back_prepared(&self.0, branch, policy))
    }

    fn prepare_open<'a>(
        &'a self,
        branch: BranchKey,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(phase_two::prepare_open(&self.0, branch))
    }

    fn commit_open<'a>(
        &'a self,
        branch: BranchKey,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>> {
        Box::pin(phase_two::commit_open(&self.0, branch))
    }

    fn prepared(
        &self,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<PreparedOnes, PhaseTwoError>> {
        Box::pin(phase_two::prepared(&self.0, older_than, limit))
    }
}
