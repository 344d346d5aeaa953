//! The agent against a scripted coordinator over loopback, with databases that
//! do as the test says.

#[path = "../../../../link/tests/support/coordinator.rs"]
pub(crate) mod coordinator;
mod fake;

mod actions;
mod alone;
mod attaching;
mod cuts;
mod orders;
mod registering;
mod sweeping;

use std::{sync::Arc, time::Duration};

use accede_link::session::{SessionLimits, SessionOptions, SessionStatus};
use accede_proto::{
    Xid,
    v1::{
        Action, BranchFinished, BranchRequest, Mode, Order, branch_event::Body as Answer,
        branch_finished::Result as End, branch_request::Body as Ask,
    },
};

use super::{
    AgentLimits, ResourceState,
    participant::Participant,
    registrar::SessionRegistrar,
    running::{Prepared, Rooms, Running, Served},
};
use crate::Error;
use coordinator::{CLUSTER, Connection, Coordinator, SOON, soon};
use fake::Fake;

/// Limits that do not keep a test waiting.
fn quick() -> AgentLimits {
    AgentLimits {
        database_backoff_first: Duration::from_millis(5),
        database_backoff_longest: Duration::from_millis(20),
        // Only the sweeper's own tests sweep.
        sweep_interval: Duration::from_secs(3600),
        ..AgentLimits::default()
    }
}

fn session_limits() -> SessionLimits {
    SessionLimits {
        backoff_first: Duration::from_millis(5),
        backoff_longest: Duration::from_millis(40),
        ..SessionLimits::default()
    }
}

struct Agent {
    running: Running,
    registrar: Arc<SessionRegistrar>,
    coordinator: Coordinator,
}

/// Starts an agent for these databases.
async fn start(
    databases: &[(&str, &Arc<Fake>)],
    limits: AgentLimits,
    session: SessionLimits,
) -> Result<Agent, Error> {
    let resources = databases
        .iter()
        .map(|(name, fake)| (*name, Participant::Database(Arc::clone(*fake) as _)));
    start_with(resources.collect(), limits, session).await
}

/// Starts an agent for these resources.
async fn start_with(
    resources: Vec<(&str, Participant)>,
    limits: AgentLimits,
    session: SessionLimits,
) -> Result<Agent, Error> {
    let coordinator = Coordinator::start().await;
    let names: Vec<&str> = resources.iter().map(|(name, _)| *name).collect();
    let prepared = Prepared::new(&names);
    let registrar = Arc::clone(prepared.registrar());
    let served = resources
        .into_iter()
        .map(|(_, participant)| Served {
            participant,
            rooms: Rooms::new(limits.rollbacks, limits.steps),
            keeps_fences: false,
        })
        .collect();
    let options = SessionOptions {
        addresses: vec![coordinator.url()],
        cluster: None,
        limits: session,
    };
    let running = prepared
        .start("stock@here".into(), served, options, limits)
        .await?;
    Ok(Agent {
        running,
        registrar,
        coordinator,
    })
}

/// An agent with one database, attached.
async fn attached(limits: AgentLimits, session: SessionLimits) -> (Agent, Connection, Arc<Fake>) {
    let fake = Fake::new(1);
    let mut agent = start(&[("stock-db", &fake)], limits, session)
        .await
        .expect("starts");
    let mut connection = agent.coordinator.session().await;
    connection.open().await;
    agent.until_attached(0).await;
    (agent, connection, fake)
}

impl Agent {
    /// Waits until a resource is attached.
    async fn until_attached(&self, place: usize) {
        self.until_state(place, |state| *state == ResourceState::Attached)
            .await;
    }

    async fn until_state(&self, place: usize, wanted: impl Fn(&ResourceState) -> bool) {
        soon(async {
            while !wanted(&self.running.status().resources[place].state) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until so many orders of the first resource are in hand.
    async fn until_in_hand(&self, orders: usize) {
        soon(async {
            while self.running.status().resources[0].orders_in_hand < orders {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until the agent has noticed that its connection is gone.
    async fn until_disconnected(&self) {
        soon(async {
            while self
                .running
                .status()
                .coordinator
                .as_ref()
                .is_some_and(SessionStatus::is_connected)
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn xid(number: u64) -> Xid {
    Xid::from_u64(number).expect("not zero")
}

fn order(number: u64, action: Action, attempt: u32) -> Order {
    Order {
        xid: number,
        branch: 1,
        resource: "stock-db".into(),
        mode: Mode::At.into(),
        action: action.into(),
        attempt,
        epoch: 77,
        was_done: true,
        ..Order::default()
    }
}

async fn give(connection: &Connection, order: Order) {
    connection.answer(0, Answer::Order(order)).await;
}

fn finished(request: BranchRequest) -> BranchFinished {
    match request.body {
        Some(Ask::Finished(finished)) => finished,
        other => panic!("expected a finished branch, got {other:?}"),
    }
}

fn end(finished: &BranchFinished) -> &End {
    finished.result.as_ref().expect("a result")
}
