//! Brings a resource from "not reached" to "attached": reaches its database,
//! shows it to the coordinator, ties it to the cluster.

use std::{sync::Arc, time::Duration};

use accede_link::session::{BranchFrames, ClusterId, Role, Session, SessionOptions};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    AgentLimits,
    database::{CheckError, Meta},
    participant::Participant,
    resource::{Identity, Resource, ResourceState},
};
use crate::Error;

/// Starts the session once there is something to show, and knows the cluster.
pub(super) struct Hub {
    pub(super) options: SessionOptions,
    pub(super) limits: AgentLimits,
    pub(super) session: watch::Sender<Option<Session<BranchFrames>>>,
    /// The cluster to which the agent's databases belong.
    cluster: Mutex<Option<ClusterId>>,
}

impl Hub {
    pub(super) fn new(
        options: SessionOptions,
        limits: AgentLimits,
        session: watch::Sender<Option<Session<BranchFrames>>>,
    ) -> Self {
        Self {
            cluster: Mutex::new(options.cluster),
            options,
            limits,
            session,
        }
    }

    /// Checks that a database belongs to the agent's cluster; the first one that
    /// belongs to any decides which that is.
    pub(super) fn admit(&self, meta: &Meta, is_action: bool) -> Result<Identity, Error> {
        let theirs = meta
            .cluster_id
            .map(|id| ClusterId::from_bytes(id.into_bytes()));
        let mut ours = self.cluster.lock();
        if let (Some(theirs), Some(ours)) = (theirs, *ours)
            && theirs != ours
        {
            return Err(other_cluster(theirs, ours));
        }
        *ours = ours.or(theirs);
        Ok(Identity {
            database: (!is_action).then(|| meta.database_id.into_bytes()),
            cluster: theirs,
        })
    }

    fn set_cluster(&self, cluster: ClusterId) {
        self.cluster.lock().get_or_insert(cluster);
    }

    /// Shows the resources as they are now.
    pub(super) fn show(&self, role: &Arc<dyn Role<BranchFrames>>) {
        self.session.send_if_modified(|session| {
            if let Some(session) = session {
                session.reopen();
                return false;
            }
            let options = SessionOptions {
                cluster: *self.cluster.lock(),
                ..self.options.clone()
            };
            match Session::start(&options, Arc::clone(role)) {
                Ok(started) => *session = Some(started),
                // The builder has checked the addresses.
                Err(error) => tracing::error!(%error, "cannot start the session"),
            }
            session.is_some()
        });
    }
}

fn other_cluster(found: ClusterId, expected: ClusterId) -> Error {
    Error::OtherCluster {
        found: uuid::Uuid::from_bytes(*found.as_bytes()),
        expected: uuid::Uuid::from_bytes(*expected.as_bytes()),
    }
}

/// One look at what stands behind a resource.
pub(super) async fn check(
    participant: &Participant,
    limits: &AgentLimits,
) -> Result<Meta, CheckError> {
    timeout(limits.database_check, participant.check())
        .await
        .unwrap_or_else(|_| Err(no_answer(limits.database_check)))
}

fn no_answer(limit: Duration) -> CheckError {
    CheckError::Unavailable(format!("no answer within {limit:?}"))
}

/// Attaches one resource; ends when that is done. `first` is the result of the
/// check at start.
pub(super) async fn attach(
    hub: Arc<Hub>,
    resource: Arc<Resource>,
    participant: Participant,
    role: Arc<dyn Role<BranchFrames>>,
    first: Result<Meta, CheckError>,
) {
    let mut shown_to = resource.shown_to();
    let mut looked = first;
    loop {
        let identity = reach(&hub, &resource, &participant, looked).await;
        // In this order: once it has an identity it may be shown, and refused.
        resource.set_state(ResourceState::Known);
        resource.set_identity(Some(identity));
        hub.show(&role);
        let Ok(cluster) = shown_to.wait_for(Option::is_some).await.map(|seen| *seen) else {
            return;
        };
        // Just waited for it to be there.
        let Some(cluster) = cluster else { return };
        hub.set_cluster(cluster);
        match claim(&hub, &resource, &participant, cluster).await {
            Ok(()) => {
                resource.set_state(ResourceState::Attached);
                tracing::info!(resource = %resource.name, %cluster, "resource attached");
                return;
            }
            Err(error) => {
                // Not shown to the coordinator any more; somebody may repair it.
                resource.set_identity(None);
                wrong(&resource, &error);
                hub.show(&role);
                sleep(hub.limits.database_backoff_longest).await;
                looked = check(&participant, &hub.limits).await;
            }
        }
    }
}

/// Looks until the database is there and fits.
async fn reach(
    hub: &Hub,
    resource: &Resource,
    participant: &Participant,
    mut looked: Result<Meta, CheckError>,
) -> Identity {
    let mut pause = hub.limits.database_backoff_first;
    loop {
        let admitted = match looked {
            Ok(meta) => hub
                .admit(&meta, participant.is_action())
                .map_err(CheckError::Wrong),
            Err(error) => Err(error),
        };
        match admitted {
            Ok(identity) => return identity,
            Err(CheckError::Unavailable(problem)) => unavailable(resource, &problem),
            Err(CheckError::Wrong(error)) => wrong(resource, &error),
        }
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(hub.limits.database_backoff_longest);
        looked = check(participant, &hub.limits).await;
    }
}

/// Ties the database to the cluster, for as long as it takes to reach it.
async fn claim(
    hub: &Hub,
    resource: &Resource,
    participant: &Participant,
    cluster: ClusterId,
) -> Result<(), Error> {
    let mut pause = hub.limits.database_backoff_first;
    loop {
        let claim = participant.claim(*cluster.as_bytes());
        let claimed = timeout(hub.limits.database_check, claim)
            .await
            .unwrap_or_else(|_| Err(no_answer(hub.limits.database_check)));
        match claimed {
            Ok(()) => return Ok(()),
            Err(CheckError::Wrong(error)) => return Err(error),
            Err(CheckError::Unavailable(problem)) => unavailable(resource, &problem),
        }
        sleep(pause).await;
        pause = (pause * 2).min(hub.limits.database_backoff_longest);
    }
}

/// Sets the state; logs only when it is news.
fn unavailable(resource: &Resource, problem: &str) {
    let before = resource.state().borrow().clone();
    if !matches!(before, ResourceState::Unavailable { problem: Some(_) }) {
        tracing::warn!(resource = %resource.name, problem,
            "the database cannot be reached, keeps trying");
    }
    resource.set_state(ResourceState::Unavailable {
        problem: Some(problem.to_owned()),
    });
}

fn wrong(resource: &Resource, error: &Error) {
    let state = ResourceState::Wrong {
        problem: error.to_string(),
    };
    if *resource.state().borrow() != state {
        tracing::error!(resource = %resource.name, %error, "the resource cannot be used");
    }
    resource.set_state(state);
}
