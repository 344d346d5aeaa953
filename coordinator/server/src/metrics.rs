//! What the daemon counts. [`TABLE`] is the one list of all metrics: `/metrics` and the
//! documentation are made from it.

use accede_core::{Command, Counts, Decision, RollBackReason, StepOver};
use accede_log::LogStats;
use accede_proto::v1::refusal::Code;
use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::orders::OrderCounts;

mod table;

use table::{
    AGENTS, ARCHIVE_DROPPED, ARCHIVE_REMOVED, ARCHIVED, BEGUN, COMMANDS, DECIDED, ENTRIES, FLUSH,
    FLUSH_MAX, FORCED, LEADER, LOG_BYTES, LOG_INDEX, OPEN_ORDERS, PAYLOAD_BYTES, PREPARE_FAILURES,
    PROMISES, PROMISES_ALONE, PROMISES_IMPOSSIBLE, PROMISES_OLDEST, QUEUE, REFUSALS, ROLLED_BACK,
    ROW_LOCKS, SEGMENTS, SESSIONS, SNAPSHOT_INDEX, STEPS_OVER, STUCK, TRANSACTIONS, UNATTACHED,
    UPTIME, WAITING, WORKERS,
};
pub use table::{Kind, Metric, TABLE};

/// The verbs of commands, in the order of [`verb`].
const VERBS: [&str; 18] = [
    "take_office",
    "lease_worker",
    "end_lease",
    "begin",
    "bind_resource",
    "register_branch",
    "check_locks",
    "branch_done",
    "withdraw_branch",
    "doom_branch",
    "commit",
    "roll_back",
    "finish_branch",
    "expire",
    "repair",
    "blocked",
    "name_action",
    "start_saga",
];

fn verb(command: &Command) -> usize {
    match command {
        Command::TakeOffice(_) => 0,
        Command::LeaseWorker(_) => 1,
        Command::EndLease(_) => 2,
        Command::Begin(_) => 3,
        Command::BindResource(_) => 4,
        Command::RegisterBranch(_) => 5,
        Command::CheckLocks(_) => 6,
        Command::BranchDone(_) => 7,
        Command::WithdrawBranch(_) => 8,
        Command::DoomBranch(_) => 9,
        Command::Commit(_) => 10,
        Command::RollBack(_) => 11,
        Command::FinishBranch(_) => 12,
        Command::Expire => 13,
        Command::Repair(_) => 14,
        Command::Blocked(_) => 15,
        Command::NameAction(_) => 16,
        Command::StartSaga(_) => 17,
    }
}

/// The reasons of rollbacks, in the order of [`reason`].
const REASONS: [&str; 7] = [
    "requested",
    "timed_out",
    "branch_unfinished",
    "lease_ended",
    "local_commit_unknown",
    "step_failed",
    "branch_failed",
];

fn reason(reason: &RollBackReason) -> usize {
    match reason {
        RollBackReason::Requested(_) => 0,
        RollBackReason::TimedOut => 1,
        RollBackReason::BranchUnfinished(_) => 2,
        RollBackReason::LeaseEnded => 3,
        RollBackReason::LocalCommitUnknown(..) => 4,
        RollBackReason::StepFailed(..) => 5,
        RollBackReason::BranchFailed(..) => 6,
    }
}

/// How attempts at steps of sagas end, in the order of [`StepOver::ALL`].
const STEPS: [&str; StepOver::ALL.len()] =
    ["done", "failed", "unavailable", "timed_out", "refused"];

/// Why the archive lacks a transaction.
const LEFT_OUT: [&str; 3] = ["behind", "forgotten", "failed"];

/// Codes of refusals count from 0 to this.
const LAST_CODE: Code = Code::OtherSaga;

/// Statuses, in the order in which [`Reading`] fills them.
pub(crate) const STATUSES: [&str; 8] = [
    "active",
    "delegated",
    "pre_committed",
    "committing",
    "committed",
    "rolling_back",
    "rolled_back",
    "stuck",
];

/// Counts by status, in the order of [`STATUSES`].
pub(crate) fn by_status(counts: &Counts) -> [u64; 8] {
    [
        counts.active,
        counts.delegated,
        counts.pre_committed,
        counts.committing,
        counts.committed,
        counts.rolling_back,
        counts.rolled_back,
        counts.stuck,
    ]
}

/// The counters of one daemon. Several daemons in one process count apart.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    render: PrometheusHandle,
    commands: Vec<Counter>,
    refusals: Vec<Counter>,
    rolled_back: Vec<Counter>,
    committed: Counter,
    decided_roll_back: Counter,
    pub(crate) begun: Counter,
    pub(crate) stuck: Counter,
    pub(crate) archived: Counter,
    pub(crate) archive_removed: Counter,
    archive_dropped: Vec<Counter>,
    alone: Counter,
    steps: Vec<Counter>,
    pub(crate) transaction_sessions: Gauge,
    pub(crate) branch_sessions: Gauge,
}

/// What is only looked at when somebody asks for the metrics.
#[cfg_attr(test, derive(Default))]
pub(crate) struct Reading {
    pub(crate) counts: Counts,
    pub(crate) orders: OrderCounts,
    pub(crate) log: LogStats,
    pub(crate) queued: usize,
    pub(crate) leader: bool,
    pub(crate) uptime_seconds: f64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in TABLE {
            let text = format!("{} Unit: {}.", metric.meaning, metric.unit).into();
            match metric.kind {
                Kind::Counter => recorder.describe_counter(metric.name.into(), None, text),
                Kind::Gauge => recorder.describe_gauge(metric.name.into(), None, text),
            }
        }
        let series = |metric: &Metric, values: &[&'static str]| -> Vec<Counter> {
            values
                .iter()
                .map(|value| recorder.register_counter(&key(metric, value), &METADATA))
                .collect()
        };
        let codes: Vec<&'static str> = (0..=LAST_CODE as i32)
            .filter_map(|code| Code::try_from(code).ok())
            .map(|code| code.as_str_name())
            .collect();
        let mut decided = series(&DECIDED, &["commit", "roll_back"]).into_iter();
        let one = |metric: &Metric| recorder.register_counter(&key(metric, ""), &METADATA);
        Self {
            commands: series(&COMMANDS, &VERBS),
            refusals: series(&REFUSALS, &codes),
            rolled_back: series(&ROLLED_BACK, &REASONS),
            committed: decided.next().unwrap_or_else(Counter::noop),
            decided_roll_back: decided.next().unwrap_or_else(Counter::noop),
            begun: one(&BEGUN),
            stuck: one(&STUCK),
            archived: one(&ARCHIVED),
            archive_removed: one(&ARCHIVE_REMOVED),
            alone: one(&PROMISES_ALONE),
            steps: series(&STEPS_OVER, &STEPS),
            archive_dropped: series(&ARCHIVE_DROPPED, &LEFT_OUT),
            transaction_sessions: recorder
                .register_gauge(&key(&SESSIONS, "transactions"), &METADATA),
            branch_sessions: recorder.register_gauge(&key(&SESSIONS, "branches"), &METADATA),
            render: recorder.handle(),
            recorder,
        }
    }

    /// Commands of one entry, which is about to be proposed.
    pub(crate) fn commands(&self, commands: &[Command]) {
        let mut counts = [0_u64; VERBS.len()];
        for command in commands {
            counts[verb(command)] += 1;
        }
        for (counter, count) in self.commands.iter().zip(counts) {
            if count > 0 {
                counter.increment(count);
            }
        }
    }

    pub(crate) fn refused(&self, code: Code) {
        if let Some(counter) = self.refusals.get(code as usize) {
            counter.increment(1);
        }
    }

    /// Steps that participants of 3PC did by themselves.
    pub(crate) fn went_alone(&self, steps: u64) {
        self.alone.increment(steps);
    }

    /// An attempt to do a step of a saga is over.
    pub(crate) fn step_over(&self, how: StepOver) {
        let place = StepOver::ALL.iter().position(|known| *known == how);
        if let Some(counter) = place.and_then(|place| self.steps.get(place)) {
            counter.increment(1);
        }
    }

    /// Transactions that the archive lacks, by one of the reasons in [`LEFT_OUT`].
    pub(crate) fn archive_dropped(&self, why: &str, count: u64) {
        let place = LEFT_OUT.iter().position(|reason| *reason == why);
        if let Some(counter) = place.and_then(|place| self.archive_dropped.get(place)) {
            counter.increment(count);
        }
    }

    pub(crate) fn decided(&self, decision: Decision, why: Option<&RollBackReason>) {
        match decision {
            Decision::Commit => self.committed.increment(1),
            Decision::RollBack => {
                self.decided_roll_back.increment(1);
                if let Some(why) = why {
                    self.rolled_back[reason(why)].increment(1);
                }
            }
        }
    }

    /// The text for `/metrics`.
    pub(crate) fn render(&self, reading: &Reading) -> String {
        for (status, count) in STATUSES.iter().zip(by_status(&reading.counts)) {
            self.gauge(&TRANSACTIONS, status, count as f64);
        }
        let log = &reading.log;
        for (metric, value) in [
            (&ENTRIES, log.entries),
            (&FORCED, log.forced_writes),
            (&LOG_BYTES, log.bytes),
            (&PREPARE_FAILURES, log.prepare_failures),
        ] {
            let counter = self.recorder.register_counter(&key(metric, ""), &METADATA);
            counter.absolute(value);
        }
        for (metric, value) in [
            (&FLUSH, log.flush_time.as_secs_f64()),
            (&FLUSH_MAX, log.flush_time_max.as_secs_f64()),
            (&LOG_INDEX, log.applied_index as f64),
            (&SNAPSHOT_INDEX, log.snapshot_index as f64),
            (&SEGMENTS, log.segments as f64),
            (&ROW_LOCKS, reading.counts.row_locks as f64),
            (&WAITING, reading.counts.waiting as f64),
            (&PAYLOAD_BYTES, reading.counts.payload_bytes as f64),
            (&WORKERS, reading.counts.workers as f64),
            (&AGENTS, reading.orders.agents as f64),
            (&OPEN_ORDERS, reading.orders.open as f64),
            (&UNATTACHED, reading.orders.unattached as f64),
            (&PROMISES, reading.orders.promises.waiting as f64),
            (
                &PROMISES_OLDEST,
                reading.orders.promises.oldest_ms as f64 / 1_000.0,
            ),
            (
                &PROMISES_IMPOSSIBLE,
                reading.orders.promises.impossible as f64,
            ),
            (&QUEUE, reading.queued as f64),
            (&LEADER, f64::from(u8::from(reading.leader))),
            (&UPTIME, reading.uptime_seconds),
        ] {
            self.gauge(metric, "", value);
        }
        self.render.render()
    }

    fn gauge(&self, metric: &Metric, value: &'static str, to: f64) {
        self.recorder
            .register_gauge(&key(metric, value), &METADATA)
            .set(to);
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(metric: &Metric, value: &'static str) -> Key {
    if metric.label.is_empty() {
        return Key::from_static_name(metric.name);
    }
    Key::from_parts(
        metric.name,
        vec![Label::from_static_parts(metric.label, value)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn reading() -> Reading {
        Reading {
            counts: Counts {
                stuck: 3,
                ..Counts::default()
            },
            orders: OrderCounts::default(),
            log: LogStats::default(),
            queued: 7,
            leader: true,
            uptime_seconds: 1.5,
        }
    }

    #[test]
    fn every_metric_of_the_table_is_rendered_and_no_other() {
        let metrics = Metrics::new();
        metrics.begun.increment(2);
        metrics.refused(Code::Deadlock);
        metrics.commands(&[Command::Expire, Command::Expire]);
        metrics.decided(Decision::RollBack, Some(&RollBackReason::TimedOut));
        metrics.stuck.increment(0);
        metrics.step_over(StepOver::TimedOut);
        metrics.transaction_sessions.set(1.0);
        metrics.branch_sessions.set(0.0);
        let text = metrics.render(&reading());
        let names: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        let table: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).collect();
        assert_eq!(names, table);
        for line in [
            "accede_begun_total 2",
            "accede_transactions{status=\"stuck\"} 3",
            "accede_commands_total{verb=\"expire\"} 2",
            "accede_refusals_total{code=\"DEADLOCK\"} 1",
            "accede_rolled_back_total{reason=\"timed_out\"} 1",
            "accede_decided_total{decision=\"roll_back\"} 1",
            "accede_saga_attempts_total{outcome=\"timed_out\"} 1",
            "accede_queued_commands 7",
            "accede_leader 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn each_metric_says_what_it_means() {
        let names: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for metric in TABLE {
            assert!(metric.name.starts_with("accede_"), "{metric:?}");
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{metric:?}"
            );
            assert!(
                metric.meaning.ends_with('.') && !metric.unit.is_empty(),
                "{metric:?}"
            );
        }
    }

    #[test]
    fn the_last_code_is_the_last() {
        assert!(Code::try_from(LAST_CODE as i32).is_ok());
        assert!(Code::try_from(LAST_CODE as i32 + 1).is_err());
    }
}
