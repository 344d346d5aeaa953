//! One resource of the agent: its name, its database and where it stands.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use accede_link::session::ClusterId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Where a resource stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourceState {
    /// The database has not been reached yet; the agent keeps trying.
    Unavailable {
        /// What the last attempt ran into; `None` before the first has ended.
        problem: Option<String>,
    },
    /// The database is not prepared or belongs elsewhere; the agent keeps
    /// looking, but a person must act.
    Wrong {
        /// What is wrong and what to do.
        problem: String,
    },
    /// The coordinator knows the name as something else, an action in place of a database for
    /// example. Names never change what they stand for: start the agent anew with another one.
    Refused {
        /// What the coordinator said: what does not fit and what to do.
        problem: String,
    },
    /// The database is known; the coordinator has not been met yet.
    Known,
    /// The database is tied to the coordinator's cluster: branches may register.
    Attached,
}

/// Who a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// `None`: an action.
    pub(super) database: Option<[u8; 16]>,
    /// The cluster it was tied to when it was read.
    pub(super) cluster: Option<ClusterId>,
}

pub(super) struct Resource {
    pub(super) name: Arc<str>,
    pub(super) counters: Counters,
    /// Prepared transactions that are decided and that this agent is to end.
    pub(super) behind: watch::Sender<usize>,
    state: watch::Sender<ResourceState>,
    identity: Mutex<Option<Identity>>,
    shown_to: watch::Sender<Option<ClusterId>>,
}

/// What happened on a resource since the agent started.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) committed: AtomicU64,
    pub(super) rolled_back: AtomicU64,
    pub(super) unavailable: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) stuck: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) orphan_undo: AtomicU64,
    pub(super) orphan_fences: AtomicU64,
    pub(super) markers_purged: AtomicU64,
    pub(super) sweeps: AtomicU64,
    pub(super) prepared: AtomicU64,
    pub(super) prepared_oldest_ms: AtomicU64,
    pub(super) orphan_prepared: AtomicU64,
    pub(super) promises: AtomicU64,
    pub(super) promises_oldest_ms: AtomicU64,
    pub(super) impossible_promises: AtomicU64,
    pub(super) alone: AtomicU64,
}

impl Resource {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            counters: Counters::default(),
            behind: watch::Sender::new(0),
            state: watch::Sender::new(ResourceState::Unavailable { problem: None }),
            identity: Mutex::new(None),
            shown_to: watch::Sender::new(None),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<ResourceState> {
        self.state.subscribe()
    }

    pub(super) fn set_state(&self, state: ResourceState) {
        self.state.send_replace(state);
    }

    /// Who the database is, once it has been reached and fits the agent.
    pub(super) fn identity(&self) -> Option<Identity> {
        *self.identity.lock()
    }

    pub(super) fn set_identity(&self, identity: Option<Identity>) {
        *self.identity.lock() = identity;
    }

    /// A coordinator has accepted an opening frame that shows this resource.
    pub(super) fn show_to(&self, cluster: ClusterId) {
        self.shown_to.send_replace(Some(cluster));
    }

    /// A coordinator has refused an opening frame because of this resource. It is not shown again,
    /// so that the others are served.
    pub(super) fn refuse(&self, problem: &str) {
        tracing::error!(resource = %self.name, problem, "the coordinator refuses the resource");
        self.set_identity(None);
        let problem = problem.to_owned();
        self.set_state(ResourceState::Refused { problem });
    }

    /// Waits until branches may register, or until it is known why they may not.
    ///
    /// # Errors
    /// What a coordinator said that has refused it.
    pub(super) async fn settled(&self) -> Result<(), String> {
        let mut state = self.state();
        let settled = state.wait_for(|state| match state {
            ResourceState::Unavailable { problem } => problem.is_some(),
            ResourceState::Known => false,
            ResourceState::Wrong { .. }
            | ResourceState::Refused { .. }
            | ResourceState::Attached => true,
        });
        // No error: the sender is this resource's own.
        match settled.await.as_deref() {
            Ok(ResourceState::Refused { problem }) => Err(problem.clone()),
            _ => Ok(()),
        }
    }

    /// The cluster whose coordinator has seen this resource.
    pub(super) fn shown_to(&self) -> watch::Receiver<Option<ClusterId>> {
        self.shown_to.subscribe()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
