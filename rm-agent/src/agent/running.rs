//! Puts the agent's parts together and takes them apart again.

use std::sync::Arc;

use accede_link::session::{
    BranchFrames, ConnectProblem, Role, Session, SessionOptions, SessionStatus,
};
use accede_proto::v1::Mode;
use futures_util::future::{join_all, try_join_all};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    AgentLimits, AgentStatus, ResourceStatus,
    alone::Alone,
    attach::{self, Hub},
    database::{CheckError, Ledger, Meta},
    orders::Orders,
    participant::Participant,
    phase_two,
    registrar::SessionRegistrar,
    resource::Resource,
    role::AgentRole,
    sweeper::Sweeper,
};
use crate::{Error, Registrar};

/// What must exist before the databases' pools can: they hold the registrar.
pub(super) struct Prepared {
    agent: u64,
    resources: Arc<[Arc<Resource>]>,
    session: watch::Sender<Option<Session<BranchFrames>>>,
    registrar: Arc<SessionRegistrar>,
}

/// How much is done at once in a database, by itself and by its actions, which share its connections.
#[derive(Clone)]
pub(super) struct Rooms {
    /// Branches that are finished one by one.
    pub(super) finish: Arc<Semaphore>,
    /// Steps of sagas.
    pub(super) steps: Arc<Semaphore>,
}

impl Rooms {
    pub(super) fn new(finish: usize, steps: usize) -> Self {
        let room = |at_once: usize| Arc::new(Semaphore::new(at_once.max(1)));
        Self {
            finish: room(finish),
            steps: room(steps),
        }
    }
}

/// What stands behind a resource, and how much it does at once.
pub(super) struct Served {
    pub(super) participant: Participant,
    pub(super) rooms: Rooms,
    /// Fences are kept in it, too.
    pub(super) keeps_fences: bool,
}

/// The part of an agent that does not know what kind of databases it serves.
pub(super) struct Running {
    hub: Arc<Hub>,
    registrar: Arc<SessionRegistrar>,
    orders: Vec<Arc<Orders>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Served {
    /// The tables in which leftovers are looked for.
    fn ledgers(&self) -> impl Iterator<Item = Ledger> {
        let fences = self.keeps_fences.then_some(Ledger::FENCES);
        [Ledger::UNDO].into_iter().chain(fences)
    }
}

impl Prepared {
    pub(super) fn new(names: &[&str]) -> Self {
        let agent: u64 = rand::random();
        let resources: Arc<[Arc<Resource>]> = names
            .iter()
            .map(|name| Arc::new(Resource::new(name)))
            .collect();
        let session = watch::Sender::new(None);
        let registrar = Arc::new(SessionRegistrar::new(
            Arc::clone(&resources),
            session.subscribe(),
            agent,
        ));
        Self {
            agent,
            resources,
            session,
            registrar,
        }
    }

    pub(super) fn registrar(&self) -> &Arc<SessionRegistrar> {
        &self.registrar
    }

    /// Checks what can be reached and starts everything. `all` are in the
    /// order of the names.
    ///
    /// # Errors
    /// A database that was reached is not prepared, or belongs to another
    /// cluster than another one.
    pub(super) async fn start(
        self,
        name: String,
        all: Vec<Served>,
        options: SessionOptions,
        limits: AgentLimits,
    ) -> Result<Running, Error> {
        let session = self.session.subscribe();
        let hub = Arc::new(Hub::new(options, limits, self.session));
        let firsts = first_look(&hub, &all).await?;
        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let mut orders = Vec::with_capacity(all.len());
        for (resource, served) in self.resources.iter().zip(&all) {
            let resource = Arc::clone(resource);
            let (new, queue) = Orders::new(
                Arc::clone(&resource),
                served.participant.clone(),
                limits.orders,
                session.clone(),
            );
            phase_two::start(&new, queue, limits, &served.rooms, &tracker, &stop);
            for ledger in served.ledgers() {
                let Participant::Database(database) = &served.participant else {
                    continue;
                };
                let (resource, database) = (Arc::clone(&resource), Arc::clone(database));
                let sweeper = Sweeper::new(resource, database, ledger, session.clone(), limits);
                tracker.spawn(stop.clone().run_until_cancelled_owned(sweeper.run()));
            }
            if let Participant::Action { finish, .. } = &served.participant
                && finish.mode() == Mode::ThreePhase
            {
                let (resource, finish) = (Arc::clone(&resource), Arc::clone(finish));
                let alone = Alone::new(resource, finish, session.clone(), limits);
                tracker.spawn(stop.clone().run_until_cancelled_owned(alone.run()));
            }
            orders.push(new);
        }
        let role: Arc<dyn Role<BranchFrames>> =
            Arc::new(AgentRole::new(name, self.agent, orders.clone()));
        for (orders, first) in orders.iter().zip(firsts) {
            let attach = attach::attach(
                Arc::clone(&hub),
                Arc::clone(orders.resource()),
                orders.participant().clone(),
                Arc::clone(&role),
                first,
            );
            tracker.spawn(stop.clone().run_until_cancelled_owned(attach));
        }
        Ok(Running {
            hub,
            registrar: self.registrar,
            orders,
            tracker,
            stop,
        })
    }
}

/// Looks at all of them at once. One that is down may come up later; one that
/// is wrong ends the start.
async fn first_look(hub: &Hub, all: &[Served]) -> Result<Vec<Result<Meta, CheckError>>, Error> {
    let looks = all
        .iter()
        .map(|served| attach::check(&served.participant, &hub.limits));
    let mut firsts = Vec::with_capacity(all.len());
    for (first, served) in join_all(looks).await.into_iter().zip(all) {
        match first {
            Ok(meta) => {
                hub.admit(&meta, served.participant.is_action())?;
                firsts.push(Ok(meta));
            }
            Err(CheckError::Wrong(error)) => return Err(error),
            Err(unavailable) => firsts.push(Err(unavailable)),
        }
    }
    Ok(firsts)
}

impl Running {
    pub(super) fn registrar(&self) -> Arc<dyn Registrar> {
        Arc::clone(&self.registrar) as _
    }

    /// How long each part of a shutdown may take.
    pub(super) fn patience(&self) -> std::time::Duration {
        self.hub.limits.shutdown
    }

    fn session(&self) -> Option<Session<BranchFrames>> {
        self.hub.session.borrow().clone()
    }

    /// Waits until the coordinator has taken the resources, unless it cannot be reached or says
    /// nothing in time.
    ///
    /// # Errors
    /// It refused one of them.
    pub(super) async fn first_answer(&self) -> Result<(), Error> {
        let resources = self.orders.iter().map(|orders| orders.resource().settled());
        let answered = async {
            tokio::select! {
                answered = try_join_all(resources) => answered.map(drop),
                () = self.is_not_connected() => Ok(()),
            }
        };
        let answered = timeout(self.hub.limits.first_answer, answered).await;
        answered.unwrap_or(Ok(())).map_err(|refusal| {
            Error::Configuration(format!(
                "the coordinator does not take this agent: {refusal}"
            ))
        })
    }

    /// Waits until an attempt to connect has failed for a reason that no resource is to blame for.
    async fn is_not_connected(&self) {
        let mut session = self.hub.session.subscribe();
        let status = match session.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(session)) => Some(session.status()),
            _ => None,
        };
        let Some(mut status) = status else { return };
        let failed = status.wait_for(|status| match status {
            SessionStatus::Connecting {
                problem: Some(ConnectProblem::Refused { refusal, .. }),
                ..
            } => refusal.resource.is_empty(),
            SessionStatus::Connecting { problem, .. } => problem.is_some(),
            _ => false,
        });
        // An error: it was closed.
        let _ = failed.await;
    }

    pub(super) fn status(&self) -> AgentStatus {
        AgentStatus {
            coordinator: self
                .session()
                .map(|session| session.status().borrow().clone()),
            open_branches: self.registrar.open_branches(),
            resources: self
                .orders
                .iter()
                .map(|orders| ResourceStatus::of(orders))
                .collect(),
        }
    }

    /// Takes no new orders, finishes those that are being carried out, waits for
    /// open branches and for acknowledgements, each up to a limit, and closes
    /// the session.
    pub(super) async fn shutdown(&self) {
        let limit = self.hub.limits.shutdown;
        self.stop.cancel();
        self.tracker.close();
        if timeout(limit, self.registrar.idle()).await.is_err() {
            let open = self.registrar.open_branches();
            tracing::warn!(
                open,
                "shutting down with open branches, their transactions will roll back"
            );
        }
        if timeout(limit, self.tracker.wait()).await.is_err() {
            tracing::warn!("shutting down with orders in hand, the coordinator will repeat them");
        }
        if let Some(session) = self.session() {
            session.close(limit).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        // Others may hold the session for a moment; it ends all the same.
        if let Some(session) = self.hub.session.send_replace(None) {
            session.abort();
        }
    }
}
