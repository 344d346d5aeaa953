//! The one list of all metrics.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at each start of the daemon.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One line of the list of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name on `/metrics`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The label that tells its series apart; empty if there is one series.
    pub label: &'static str,
    /// What one stands for.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn counter(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        label,
        unit,
        meaning,
    }
}

const fn gauge(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        label,
        unit,
        meaning,
    }
}

pub(super) const TRANSACTIONS: Metric = gauge(
    "accede_transactions",
    "status",
    "transactions",
    "Known transactions by status; ended ones until they are forgotten.",
);
pub(super) const BEGUN: Metric = counter(
    "accede_begun_total",
    "",
    "transactions",
    "Transactions begun.",
);
pub(super) const DECIDED: Metric = counter(
    "accede_decided_total",
    "decision",
    "transactions",
    "Transactions decided: commit or roll_back.",
);
pub(super) const ROLLED_BACK: Metric = counter(
    "accede_rolled_back_total",
    "reason",
    "transactions",
    "Transactions decided to roll back, by reason.",
);
pub(super) const STUCK: Metric = counter(
    "accede_stuck_total",
    "",
    "branches",
    "Branches that came to need a person.",
);
pub(super) const STEPS_OVER: Metric = counter(
    "accede_saga_attempts_total",
    "outcome",
    "attempts",
    "Attempts to do steps of sagas: done, failed, unavailable, timed_out or refused.",
);
pub(super) const COMMANDS: Metric = counter(
    "accede_commands_total",
    "verb",
    "commands",
    "Commands logged and applied, by verb.",
);
pub(super) const REFUSALS: Metric = counter(
    "accede_refusals_total",
    "code",
    "requests",
    "Requests refused, by code.",
);
pub(super) const ENTRIES: Metric = counter(
    "accede_log_entries_total",
    "",
    "entries",
    "Log entries written; commands per entry is the quotient.",
);
pub(super) const FORCED: Metric = counter(
    "accede_log_forced_writes_total",
    "",
    "writes",
    "Forced writes (fdatasync) on the path of a request.",
);
pub(super) const LOG_BYTES: Metric = counter(
    "accede_log_bytes_total",
    "",
    "bytes",
    "Bytes written to log segments.",
);
pub(super) const FLUSH: Metric = gauge(
    "accede_log_flush_seconds_sum",
    "",
    "seconds",
    "Time spent writing and forcing since the start.",
);
pub(super) const FLUSH_MAX: Metric = gauge(
    "accede_log_flush_seconds_max",
    "",
    "seconds",
    "The longest single write with its force since the start.",
);
pub(super) const PREPARE_FAILURES: Metric = counter(
    "accede_log_prepare_failures_total",
    "",
    "times",
    "Times the next segment could not be prepared: the disk is nearly full.",
);
pub(super) const LOG_INDEX: Metric = gauge(
    "accede_log_applied_index",
    "",
    "index",
    "Index of the last applied log entry.",
);
pub(super) const SNAPSHOT_INDEX: Metric = gauge(
    "accede_log_snapshot_index",
    "",
    "index",
    "Index that the newest snapshot covers.",
);
pub(super) const SEGMENTS: Metric =
    gauge("accede_log_segments", "", "files", "Log segments in use.");
pub(super) const ROW_LOCKS: Metric = gauge("accede_row_locks", "", "locks", "Row locks held.");
pub(super) const WAITING: Metric = gauge(
    "accede_waiting_requests",
    "",
    "requests",
    "Requests that wait for row locks.",
);
pub(super) const PAYLOAD_BYTES: Metric = gauge(
    "accede_payload_bytes",
    "",
    "bytes",
    "Payloads kept for branches that are not over: arguments of TCC, Saga and 3PC, a few bytes of XA on MariaDB.",
);
pub(super) const WORKERS: Metric = gauge(
    "accede_workers",
    "",
    "processes",
    "Client processes with a lease.",
);
pub(super) const AGENTS: Metric = gauge("accede_agents", "", "processes", "Attached agents.");
pub(super) const SESSIONS: Metric = gauge(
    "accede_sessions",
    "kind",
    "sessions",
    "Open sessions: transactions or branches.",
);
pub(super) const OPEN_ORDERS: Metric = gauge(
    "accede_open_orders",
    "",
    "orders",
    "Orders to finish a branch whose outcome is not logged yet.",
);
pub(super) const UNATTACHED: Metric = gauge(
    "accede_unattached_orders",
    "",
    "orders",
    "Orders that wait because no agent of their resource is attached.",
);
pub(super) const PROMISES: Metric = gauge(
    "accede_promises",
    "",
    "promises",
    "Promises of 3PC without news for longer than their time-out, as attached agents last saw them.",
);
pub(super) const PROMISES_OLDEST: Metric = gauge(
    "accede_promises_oldest_seconds",
    "",
    "seconds",
    "Age of the oldest of them.",
);
pub(super) const PROMISES_IMPOSSIBLE: Metric = gauge(
    "accede_impossible_promises",
    "",
    "promises",
    "Those among them that no fault of the protocol leads to; they need a person.",
);
pub(super) const PROMISES_ALONE: Metric = counter(
    "accede_promises_alone_total",
    "",
    "steps",
    "Steps that participants of 3PC did by themselves, without an order.",
);
pub(super) const QUEUE: Metric = gauge(
    "accede_queued_commands",
    "",
    "commands",
    "Commands that wait to be logged.",
);
pub(super) const ARCHIVED: Metric = counter(
    "accede_archived_total",
    "",
    "transactions",
    "Ended transactions written to the archive.",
);
pub(super) const ARCHIVE_DROPPED: Metric = counter(
    "accede_archive_dropped_total",
    "reason",
    "transactions",
    "Ended transactions left out of the archive: it was behind, they were forgotten before, or it \
     could not be written (failed).",
);
pub(super) const ARCHIVE_REMOVED: Metric = counter(
    "accede_archive_removed_files_total",
    "",
    "files",
    "Oldest files of the archive removed to keep it within its size.",
);
pub(super) const LEADER: Metric =
    gauge("accede_leader", "", "0 or 1", "Whether this daemon leads.");
pub(super) const UPTIME: Metric = gauge(
    "accede_uptime_seconds",
    "",
    "seconds",
    "Time since the daemon started.",
);

/// All metrics of the daemon.
pub const TABLE: &[Metric] = &[
    TRANSACTIONS,
    BEGUN,
    DECIDED,
    ROLLED_BACK,
    STUCK,
    STEPS_OVER,
    COMMANDS,
    REFUSALS,
    ENTRIES,
    FORCED,
    LOG_BYTES,
    FLUSH,
    FLUSH_MAX,
    PREPARE_FAILURES,
    LOG_INDEX,
    SNAPSHOT_INDEX,
    SEGMENTS,
    ROW_LOCKS,
    WAITING,
    PAYLOAD_BYTES,
    WORKERS,
    AGENTS,
    SESSIONS,
    OPEN_ORDERS,
    UNATTACHED,
    PROMISES,
    PROMISES_OLDEST,
    PROMISES_IMPOSSIBLE,
    PROMISES_ALONE,
    QUEUE,
    ARCHIVED,
    ARCHIVE_DROPPED,
    ARCHIVE_REMOVED,
    LEADER,
    UPTIME,
];
