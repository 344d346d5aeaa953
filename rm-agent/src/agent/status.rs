//! What the agent tells about itself, for health checks and metrics.

use std::time::Duration;

use accede_link::session::SessionStatus;

use super::{ResourceState, orders::Orders, resource::read};

/// Where an agent stands.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    /// The session with the coordinator; `None` while no database was reached
    /// yet, so that there is nothing to show to it.
    pub coordinator: Option<SessionStatus>,
    /// Branches that are registered and whose local transaction has not ended.
    pub open_branches: usize,
    /// Each resource, in the order of the builder.
    pub resources: Vec<ResourceStatus>,
}

impl AgentStatus {
    /// Whether branches on every resource can register now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.coordinator
            .as_ref()
            .is_some_and(SessionStatus::is_connected)
            && self
                .resources
                .iter()
                .all(|resource| resource.state == ResourceState::Attached)
    }
}

/// Where one resource stands. Counts are since the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// The operator's name for the database.
    pub name: String,
    /// Whether branches may register.
    pub state: ResourceState,
    /// Orders that are being carried out now.
    pub orders_in_hand: usize,
    /// Branches finished after a commit.
    pub committed: u64,
    /// Branches undone, or accepted as they are by an operator.
    pub rolled_back: u64,
    /// Orders answered with "the database cannot be reached".
    pub unavailable: u64,
    /// Orders that failed and may work later.
    pub failed: u64,
    /// Orders that will never work by themselves.
    pub stuck: u64,
    /// DELETE statements that finished the committed branches.
    pub deletes: u64,
    /// Undo records that must not exist, as of the last sweep.
    pub orphan_undo: u64,
    /// Tries behind a fence whose transactions have ended or were never begun, in the last sweep.
    /// Nothing touches them; a person must look.
    pub orphan_fences: u64,
    /// Markers that the sweeper has let go of. One that an older local transaction
    /// may still run into stays for the next sweep and then counts again.
    pub markers_purged: u64,
    /// Sweeps that went through.
    pub sweeps: u64,
    /// Prepared transactions of XA branches of this cluster, as of the last sweep. A sweep asks a
    /// database that has XA.
    pub prepared: u64,
    /// How old the oldest of them was then.
    pub prepared_oldest: Duration,
    /// Those among them whose global transaction has ended or was never begun: they must not
    /// exist, keep their locks, and need a person.
    pub orphan_prepared: u64,
    /// Promises of 3PC older than their time-out that wait for a decision, as of the last look.
    pub promises: u64,
    /// How old the oldest of them was then.
    pub promises_oldest: Duration,
    /// Those among them that no fault of the protocol leads to. They need a person.
    pub impossible_promises: u64,
    /// Steps that participants of 3PC did by themselves, without an order.
    pub alone: u64,
}

impl ResourceStatus {
    pub(super) fn of(orders: &Orders) -> Self {
        let resource = orders.resource();
        let counters = &resource.counters;
        Self {
            name: resource.name.as_ref().to_owned(),
            state: resource.state().borrow().clone(),
            orders_in_hand: orders.in_hand(),
            committed: read(&counters.committed),
            rolled_back: read(&counters.rolled_back),
            unavailable: read(&counters.unavailable),
            failed: read(&counters.failed),
            stuck: read(&counters.stuck),
            deletes: read(&counters.deletes),
            orphan_undo: read(&counters.orphan_undo),
            orphan_fences: read(&counters.orphan_fences),
            markers_purged: read(&counters.markers_purged),
            sweeps: read(&counters.sweeps),
            prepared: read(&counters.prepared),
            prepared_oldest: Duration::from_millis(read(&counters.prepared_oldest_ms)),
            orphan_prepared: read(&counters.orphan_prepared),
            promises: read(&counters.promises),
            promises_oldest: Duration::from_millis(read(&counters.promises_oldest_ms)),
            impossible_promises: read(&counters.impossible_promises),
            alone: read(&counters.alone),
        }
    }
}
