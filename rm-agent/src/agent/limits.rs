//! Every bound and time of the running agent: its unit and its reason.

use std::time::Duration;

/// Bounds and times of an [`RmAgent`](super::RmAgent). The defaults suit production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Commit orders that share one DELETE.
    pub commit_batch: usize,
    /// How long a commit order may wait for others to share its DELETE with. Nobody waits for it:
    /// the row locks are free since the decision.
    pub commit_gather: Duration,
    /// Rollback orders of AT that one local transaction carries out where the database can: those
    /// that came while the last one ran. Nobody is waited for, as row locks are held meanwhile.
    pub rollback_batch: usize,
    /// Rollbacks of one database that need a local transaction of their own, with the confirms and
    /// cancels of its actions, that run at the same time. Below the number of phase-two
    /// connections, so that rollbacks which wait for local locks leave one for commits.
    pub rollbacks: usize,
    /// Prepared transactions of one database that are committed at the same time. They wait for
    /// no lock. When these are fewer than applications prepare meanwhile, prepared transactions
    /// pile up until the database takes no more.
    pub commits: usize,
    /// First branches of XA whose local transactions one database's pool keeps open until it is
    /// known whether they are the only ones; each keeps its connection, and at most
    /// [`XA_OPEN_PERCENT`](crate::limits::XA_OPEN_PERCENT) of the pool's are kept. 0: none, each is
    /// prepared at once.
    pub kept_open: usize,
    /// Steps of sagas that the actions of one database do at the same time. Each takes one of the
    /// connections for steps, and no more are done than there are of these.
    pub steps: usize,
    /// Orders of one resource that may be in hand; further ones are answered
    /// with "unavailable", and the coordinator repeats them.
    pub orders: usize,
    /// How long one step of phase two may take before the database counts as
    /// unavailable.
    pub phase_two: Duration,
    /// How often each database is swept for leftovers.
    pub sweep_interval: Duration,
    /// Only undo records older than this are looked at by the sweeper: younger
    /// ones belong to transactions that are simply not finished yet.
    pub leftover_age: Duration,
    /// Markers of rolled-back branches are kept this long at least: longer than
    /// any give-up time, the longest time-out and any local transaction.
    pub marker_age: Duration,
    /// Leftovers that are read and asked about at once.
    pub sweep_batch: usize,
    /// How long a participant of 3PC hears nothing about a promise before it asks the coordinator,
    /// and does alone what is certain. Short of it is needless work, nothing worse.
    pub three_phase_timeout: Duration,
    /// First pause before a database that cannot be reached is tried again; it doubles.
    pub database_backoff_first: Duration,
    /// Longest pause before a database that cannot be reached is tried again.
    pub database_backoff_longest: Duration,
    /// How long one attempt to reach and check a database may take.
    pub database_check: Duration,
    /// How long a start waits for the first answer of a coordinator that is up, so that a name
    /// which it refuses ends the start. A later refusal is in the log and in the resource's state.
    pub first_answer: Duration,
    /// How long [`RmAgent::shutdown`](super::RmAgent::shutdown) waits for orders
    /// in hand and for acknowledgements.
    pub shutdown: Duration,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            commit_batch: 500,
            commit_gather: Duration::from_millis(10),
            rollback_batch: 64,
            rollbacks: 3,
            commits: 7,
            kept_open: 64,
            steps: 8,
            orders: 65_536,
            phase_two: Duration::from_secs(45),
            sweep_interval: Duration::from_secs(5 * 60),
            leftover_age: Duration::from_secs(10 * 60),
            marker_age: Duration::from_secs(60 * 60),
            sweep_batch: 500,
            three_phase_timeout: Duration::from_secs(10),
            database_backoff_first: Duration::from_millis(200),
            database_backoff_longest: Duration::from_secs(5),
            database_check: Duration::from_secs(10),
            first_answer: Duration::from_secs(3),
            shutdown: Duration::from_secs(10),
        }
    }
}

/// A request of a branch may take this much longer than its wait limit at the
/// coordinator, so that the coordinator's answer comes before the agent gives up.
pub(super) const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The longest text that says why a branch is doomed, in bytes.
pub(super) const MAX_DETAIL_BYTES: usize = 1024;

/// How long the sweeper waits for the coordinator's answer about ended transactions.
pub(super) const ASK_ENDED: Duration = Duration::from_secs(30);

/// How long a participant of 3PC waits for the coordinator's answer at most.
pub(super) const ASK_STANDING_LONGEST: Duration = Duration::from_secs(5);

/// How often promises are looked at: a quarter of their time-out, but no more often than this …
pub(super) const ALONE_LOOK_SHORTEST: Duration = Duration::from_millis(100);
/// … and no less.
pub(super) const ALONE_LOOK_LONGEST: Duration = Duration::from_secs(30);
/// After it has read promises the agent rests so many times as long: where the table holds many
/// finished branches, reading is slow.
pub(super) const ALONE_LOOK_SHARE: u32 = 10;

/// New branches of XA wait while so many prepared transactions of their database are decided and not
/// ended: else applications that prepare faster than the database ends it fill its
/// `max_prepared_transactions`.
pub(super) const XA_BEHIND: usize = 64;

/// How long they wait at most. Who is behind for longer than that has another trouble.
pub(super) const XA_BEHIND_LONGEST: Duration = Duration::from_secs(5);

/// Orphans that the sweeper remembers for each resource, and names in the log.
pub(super) const MAX_ORPHANS: usize = 10_000;

/// Bytes of the payloads of one resource's orders in hand; further orders are answered with
/// "unavailable", and the coordinator repeats them.
pub(super) const MAX_PAYLOAD_BYTES_IN_HAND: usize = 64 * 1024 * 1024;

/// The longest name of an agent or a resource, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 128;

/// Resources of one agent.
pub(super) const MAX_RESOURCES: usize = 64;
