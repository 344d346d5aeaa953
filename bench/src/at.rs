//! `at`: the same statements on one database, plainly, as AT branches and by hand.

mod counted;
mod figures;
mod hot;
mod local;
pub(crate) mod proxy;
pub(crate) mod server;
mod store;
mod ways;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::{
    coordinator::Coordinator,
    quiet::Gate,
    report::{self, Sample, median, progress},
};
use figures::{Figures, Samples};
use hot::{Hot, Mode};
use server::{Database, Kind};
use store::Work;
use ways::{Way, Ways};

/// The most tasks that can be asked for; the databases have connections for three pools of them.
const MAX_CONCURRENCY: i64 = 64;

/// What `at` measures.
#[derive(Debug, Args)]
#[command(after_help = EXPLANATION)]
pub(crate) struct Options {
    /// Databases, one after the other.
    #[arg(long, value_delimiter = ',', default_values = ["postgres"])]
    database: Vec<Kind>,
    /// Workloads; all of them unless given.
    #[arg(long, value_delimiter = ',', value_name = "WORKLOAD")]
    workload: Vec<Workload>,
    /// Tasks at once on random rows, each with a connection; one row for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32],
          value_parser = clap::value_parser!(u32).range(1..=MAX_CONCURRENCY))]
    concurrency: Vec<u32>,
    /// Rounds of each row; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Seconds that a measurement may wait for a quiet disk.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    wait_for_quiet: u64,
}

/// A part of what `at` measures, as `workload` in its rows calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    Random,
    Rollback,
    #[value(name = "hot_exclusive")]
    HotExclusive,
    #[value(name = "hot_escrow")]
    HotEscrow,
    #[value(name = "insert_1000")]
    Insert1000,
    #[value(name = "update_1000")]
    Update1000,
}

const EXPLANATION: &str = "\
A throw-away database in the system's temporary folder, writes forced to disk, PostgreSQL's
autovacuum off (tables are vacuumed between measurements), a table of 10,000 rows. Database,
coordinator and client share this machine. The ways take turns; figures are medians of rounds. Rounds
in which a measurement started on a noisy disk count only where there is no other.

Workloads:
  random                    one UPDATE of one random row
  rollback                  the same, rolled back by the coordinator; its rows come again only when
                            all others had their turn, so that no branch waits for an undo
  hot_exclusive, hot_escrow 32 writers of one row, whose transactions stay open for open_ms after the
                            local commit, as for a second branch; PostgreSQL only
  insert_1000               one INSERT of 1,000 rows, in one task
  update_1000               one UPDATE of 1,000 rows, in one task

Figures; per second are transactions with one statement:
  plain_per_s               BEGIN, the statement, COMMIT
  at_per_s                  the same inside a global transaction of its own: begin, the branch with
                            its images and undo record, registration, commit, and phase two: the
                            round ends when every undo row is deleted
  naive_per_s               by hand, each step its own trip: BEGIN, SELECT FOR UPDATE, UPDATE,
                            SELECT, INSERT of the undo record, COMMIT; the same registration,
                            commit and phase two at the same coordinator
  rollback_per_s            as at_per_s, but rolled back: the round ends when every row is undone
  ratio                     at_per_s / plain_per_s
  ratio_to_naive            at_per_s / naive_per_s
  ratio_without_coordinator the AT branch with its registration answered in this process, phase two
                            included, / plain_per_s
  rollback_cost             at_per_s / rollback_per_s: a branch that is rolled back costs so many
                            that commit
  plain_round_trips, round_trips_per_branch
                            between client and database, of a plain transaction and of a branch in
                            phase one, counted by a proxy; a plain transaction's last one is sqlx's,
                            whose pool tests every connection that is given back
  statements_per_branch     run by PostgreSQL in phase one, counted by pg_stat_statements, BEGIN, SET
                            and COMMIT included
Phase two adds one DELETE for up to 500 branches.";

impl Options {
    fn wants(&self, workload: Workload) -> bool {
        self.workload.is_empty() || self.workload.contains(&workload)
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What all measurements need.
struct Bench<'a> {
    options: &'a Options,
    database: Database,
    coordinator: Coordinator,
    gate: Gate,
}

/// Runs `at` and prints its table or JSON.
///
/// # Errors
/// When a database or the coordinator does not come up, or a branch fails.
pub(crate) async fn run(options: &Options, accede: &Path, json: bool) -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let patience = Duration::from_secs(options.wait_for_quiet);
    let mut gate = Gate::new(folder.path(), patience).await?;
    let mut rows = Vec::new();
    for &kind in &options.database {
        // A coordinator of its own: it binds the resource's name to the database.
        let coordinator = Coordinator::start(accede).await?;
        let mut bench = Bench {
            options,
            database: Database::start(kind).await?,
            coordinator,
            gate,
        };
        let measured = bench.all().await;
        rows.extend(measured.with_context(|| bench.coordinator.tail())?);
        bench.coordinator.stop().await?;
        bench.database.stop().await?;
        gate = bench.gate;
    }
    gate.summary();
    report::print(&rows, json)
}

impl Bench<'_> {
    async fn all(&mut self) -> anyhow::Result<Vec<Figures>> {
        let mut rows = self.random_rows().await?;
        if self.database.kind == Kind::Postgres {
            rows.extend(self.hot_rows().await?);
        }
        rows.extend(self.batches().await?);
        Ok(rows)
    }

    /// Random rows, committed and rolled back, at every concurrency.
    async fn random_rows(&mut self) -> anyhow::Result<Vec<Figures>> {
        let random = self.options.wants(Workload::Random);
        let rollback = self.options.wants(Workload::Rollback);
        let mut ways = Vec::new();
        if random {
            ways.extend([Way::Plain, Way::At, Way::Naive, Way::WithoutCoordinator]);
        } else if rollback {
            ways.push(Way::At);
        }
        if rollback {
            ways.push(Way::RolledBack);
        }
        if ways.is_empty() {
            return Ok(Vec::new());
        }
        let (kind, work) = (self.database.kind, Work::Random);
        let counts = counted::count(&self.database, work).await?;
        progress(format!("{}, {}: {counts:?}", kind.name(), work.name()));
        let (mut committed, mut rolled_back) = (Vec::new(), Vec::new());
        for &concurrency in &self.options.concurrency {
            let samples = self.rounds(work, &ways, concurrency).await?;
            if random {
                let row = Figures::committed(kind, work, concurrency, &samples, counts);
                committed.push(row);
            }
            if rollback {
                rolled_back.push(Figures::rolled_back(kind, concurrency, &samples));
            }
        }
        committed.extend(rolled_back);
        Ok(committed)
    }

    /// Statements over many rows, in one task.
    async fn batches(&mut self) -> anyhow::Result<Vec<Figures>> {
        let ways = [Way::Plain, Way::At, Way::WithoutCoordinator];
        let mut rows = Vec::new();
        for (workload, work) in [
            (Workload::Insert1000, Work::Insert1000),
            (Workload::Update1000, Work::Update1000),
        ] {
            if self.options.wants(workload) {
                let kind = self.database.kind;
                let counts = counted::count(&self.database, work).await?;
                progress(format!("{}, {}: {counts:?}", kind.name(), work.name()));
                let samples = self.rounds(work, &ways, 1).await?;
                rows.push(Figures::committed(kind, work, 1, &samples, counts));
            }
        }
        Ok(rows)
    }

    /// All rounds of these ways, which take turns.
    async fn rounds(
        &mut self,
        work: Work,
        ways: &[Way],
        concurrency: u32,
    ) -> anyhow::Result<Samples> {
        let open = Ways::open(&self.database, &self.coordinator, concurrency).await?;
        let open = Arc::new(open);
        let mut samples = Vec::new();
        for round in 1..=self.options.rounds {
            let mut values = Vec::new();
            let mut noisy = false;
            for &way in ways {
                noisy |= self.gate.wait().await?;
                let time = self.options.time();
                let value = open.measure(way, work, concurrency, time).await?;
                progress(format!(
                    "at, {}, {}, {concurrency} at once, round {round} of {}, {way:?}: {value:.0}/s",
                    self.database.kind.name(),
                    work.name(),
                    self.options.rounds
                ));
                values.push((way, value));
            }
            // Like is compared with like: a round counts as a whole or not at all.
            let round = values.into_iter();
            samples.extend(round.map(|(way, value)| (way, Sample { value, noisy })));
        }
        open.close().await;
        Ok(samples)
    }

    /// One hot row, locked in both ways, with and without a while between local commit and decision.
    async fn hot_rows(&mut self) -> anyhow::Result<Vec<Figures>> {
        let mut rows = Vec::new();
        for (workload, mode) in [
            (Workload::HotExclusive, Mode::Exclusive),
            (Workload::HotEscrow, Mode::Escrow),
        ] {
            if !self.options.wants(workload) {
                continue;
            }
            let hot = Hot::open(&self.database, &self.coordinator, mode).await?;
            for open in hot::OPEN {
                let mut samples = Vec::new();
                for round in 1..=self.options.rounds {
                    let noisy = self.gate.wait().await?;
                    let value = hot.measure(open, self.options.time()).await?;
                    progress(format!(
                        "at, {}, open for {open:?}, round {round} of {}: {value:.0}/s",
                        mode.workload(),
                        self.options.rounds
                    ));
                    samples.push(Sample { value, noisy });
                }
                let open_ms = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
                rows.push(Figures::hot(mode, open_ms, median(samples)));
            }
            hot.close().await;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
