//! What stands behind a resource: a database, whose branches this library finishes by itself, or
//! an action, whose branches are finished by the application's handlers.

use std::{sync::Arc, time::Duration};

use accede_core::alone::{Knows, May};
use accede_proto::v1::{Mode, StepOrder};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{
    database::{BranchKey, CheckError, Database, Meta, PhaseTwoError, UndoPolicy},
    orders::{Ended, Job},
};
use crate::store::fence::Promise;

/// Finishes the branches of an action. May be asked again and again for the same.
pub(crate) trait Finish: Send + Sync + 'static {
    /// The mode of its branches.
    fn mode(&self) -> Mode;

    /// Finishes one; a success must be durable.
    fn finish<'a>(
        &'a self,
        branch: BranchKey,
        job: Job,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>>;

    /// Promises of 3PC that nobody has spoken of for so long, the oldest first.
    fn promises(
        &self,
        older_than: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Promise>, PhaseTwoError>> {
        let _ = (older_than, limit);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// What a participant of 3PC does by itself about what it knows.
    fn act_alone<'a>(
        &'a self,
        branch: BranchKey,
        knows: Knows,
        payload: &'a [u8],
    ) -> BoxFuture<'a, Result<May, PhaseTwoError>> {
        let _ = (branch, knows, payload);
        Box::pin(async { Ok(May::Rest) })
    }
}

/// Does steps of sagas and compensates them. May be asked again and again for the same.
pub(crate) trait DoStep: Send + Sync + 'static {
    /// Does one; what it returned must be durable.
    fn run<'a>(
        &'a self,
        branch: BranchKey,
        input: &'a [u8],
        step: &'a StepOrder,
    ) -> BoxFuture<'a, Result<Ended, PhaseTwoError>>;

    /// Takes back what one did, if it did anything, and keeps it from being done late.
    fn compensate<'a>(
        &'a self,
        branch: BranchKey,
        undo: (bool, UndoPolicy),
        input: &'a [u8],
        step: &'a StepOrder,
    ) -> BoxFuture<'a, Result<(), PhaseTwoError>>;
}

/// What stands behind a resource.
#[derive(Clone)]
pub(super) enum Participant {
    Database(Arc<dyn Database>),
    Action {
        finish: Arc<dyn Finish>,
        /// Where its fences are, if it has any.
        database: Option<Arc<dyn Database>>,
    },
    /// Steps of sagas, with the database of their fences.
    Step {
        step: Arc<dyn DoStep>,
        database: Arc<dyn Database>,
    },
}

impl Participant {
    /// Whether it has branches of this mode.
    pub(super) fn takes(&self, mode: Mode) -> bool {
        match self {
            Self::Database(_) => matches!(mode, Mode::At | Mode::Xa),
            Self::Action { finish, .. } => mode == finish.mode(),
            Self::Step { .. } => mode == Mode::Saga,
        }
    }

    pub(super) fn is_action(&self) -> bool {
        matches!(self, Self::Action { .. } | Self::Step { .. })
    }

    /// Whether it can be used now, and whose it is.
    pub(super) async fn check(&self) -> Result<Meta, CheckError> {
        match self {
            Self::Database(database) => database.check().await,
            Self::Action { database: None, .. } => Ok(Meta {
                database_id: Uuid::nil(),
                cluster_id: None,
            }),
            Self::Action {
                database: Some(database),
                ..
            }
            | Self::Step { database, .. } => {
                let meta = database.check().await?;
                database.check_fences().await?;
                Ok(meta)
            }
        }
    }

    /// Ties it to a cluster, if it is one that can be tied.
    pub(super) async fn claim(&self, cluster: [u8; 16]) -> Result<(), CheckError> {
        match self {
            Self::Database(database)
            | Self::Action {
                database: Some(database),
                ..
            }
            | Self::Step { database, .. } => database.claim(cluster).await,
            Self::Action { database: None, .. } => Ok(()),
        }
    }
}
