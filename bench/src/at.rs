//! `at`: the same UPDATE on one PostgreSQL, plainly, as an AT branch and by hand.

mod counted;
mod database;
mod local;
mod proxy;
mod ways;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    coordinator::Coordinator,
    quiet::Gate,
    report::{self, Row, Sample, median, progress, rounded},
};
use counted::PerBranch;
use database::Database;
use ways::{Way, Ways};

/// The most tasks that can be asked for; PostgreSQL has connections for three pools of them.
const MAX_CONCURRENCY: i64 = 64;

/// What `at` measures.
#[derive(Debug, Args)]
#[command(after_help = EXPLANATION)]
pub(crate) struct Options {
    /// Tasks at once, each with a connection; one row for each number.
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

const EXPLANATION: &str = "\
A throw-away PostgreSQL in the system's temporary folder, fsync on, autovacuum off (tables are
vacuumed between measurements), a table of 10,000 rows, random rows. Database, coordinator and
client share this machine. The four ways take turns; figures are medians of rounds. Rounds in which
a measurement started on a noisy disk count only where there is no other.

  plain_per_s               BEGIN, UPDATE, COMMIT
  at_per_s                  the same inside a global transaction of its own: begin, the branch with
                            its images and undo record, registration, commit, and phase two: the
                            round ends when every undo row is deleted
  naive_per_s               by hand, each step its own trip: BEGIN, SELECT FOR UPDATE, UPDATE,
                            SELECT, INSERT of the undo record, COMMIT; the same registration,
                            commit and phase two at the same coordinator
  ratio                     at_per_s / plain_per_s
  ratio_to_naive            at_per_s / naive_per_s
  ratio_without_coordinator the AT branch with its registration answered in this process, phase two
                            included, / plain_per_s
  round_trips_per_branch    between client and database in phase one, counted by a proxy; the last
                            one is sqlx's: its pool tests every connection that is given back,
                            those of plain transactions too
  statements_per_branch     run by the database in phase one, counted by pg_stat_statements, BEGIN,
                            SET and COMMIT included
Phase two adds one DELETE for up to 500 branches.";

#[derive(Debug, Serialize)]
struct Figures {
    database: &'static str,
    workload: &'static str,
    concurrency: u32,
    plain_per_s: f64,
    at_per_s: f64,
    naive_per_s: f64,
    ratio: f64,
    ratio_to_naive: f64,
    ratio_without_coordinator: f64,
    round_trips_per_branch: f64,
    statements_per_branch: f64,
}

impl Row for Figures {
    fn head() -> Vec<&'static str> {
        vec![
            "database",
            "workload",
            "concurrency",
            "plain/s",
            "AT/s",
            "naive/s",
            "ratio",
            "to naive",
            "without coordinator",
            "round trips",
            "statements",
        ]
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.database.to_owned(),
            self.workload.to_owned(),
            self.concurrency.to_string(),
            format!("{:.0}", self.plain_per_s),
            format!("{:.0}", self.at_per_s),
            format!("{:.0}", self.naive_per_s),
            format!("{:.2}", self.ratio),
            format!("{:.2}", self.ratio_to_naive),
            format!("{:.2}", self.ratio_without_coordinator),
            format!("{:.2}", self.round_trips_per_branch),
            format!("{:.2}", self.statements_per_branch),
        ]
    }
}

/// Runs `at` and prints its table or JSON.
///
/// # Errors
/// When PostgreSQL or the coordinator does not come up, or a branch fails.
pub(crate) async fn run(options: &Options, accede: &Path, json: bool) -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let patience = Duration::from_secs(options.wait_for_quiet);
    let mut gate = Gate::new(folder.path(), patience).await?;
    let database = Database::start().await?;
    let coordinator = Coordinator::start(accede).await?;
    let per_branch = counted::count(&database).await?;
    progress(format!(
        "an AT branch takes {:.2} round trips and {:.2} statements",
        per_branch.round_trips, per_branch.statements
    ));
    let mut rows = Vec::new();
    for &concurrency in &options.concurrency {
        let ways = Ways::open(&database, &coordinator, concurrency)
            .await
            .with_context(|| coordinator.tail())?;
        let ways = Arc::new(ways);
        let samples = rounds(options, &ways, concurrency, &mut gate)
            .await
            .with_context(|| coordinator.tail())?;
        ways.close().await?;
        rows.push(figures(concurrency, &samples, per_branch));
    }
    coordinator.stop().await?;
    database.stop().await?;
    gate.summary();
    report::print(&rows, json)
}

async fn rounds(
    options: &Options,
    ways: &Arc<Ways>,
    concurrency: u32,
    gate: &mut Gate,
) -> anyhow::Result<Vec<(Way, Sample)>> {
    let time = Duration::from_secs(options.seconds);
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        let mut values = Vec::new();
        let mut noisy = false;
        for way in Way::ALL {
            noisy |= gate.wait().await?;
            let value = ways.measure(way, concurrency, time).await?;
            progress(format!(
                "at, {concurrency} at once, round {round} of {}, {way:?}: {value:.0}/s",
                options.rounds
            ));
            values.push((way, value));
        }
        // Like is compared with like: a round counts as a whole or not at all.
        samples.extend(
            values
                .into_iter()
                .map(|(way, value)| (way, Sample { value, noisy })),
        );
    }
    Ok(samples)
}

fn figures(concurrency: u32, samples: &[(Way, Sample)], per_branch: PerBranch) -> Figures {
    let of = |way| {
        let its = samples.iter().filter(|(other, _)| *other == way);
        median(its.map(|(_, sample)| *sample))
    };
    let (plain, at, naive) = (of(Way::Plain), of(Way::At), of(Way::Naive));
    Figures {
        database: "postgres",
        workload: "random",
        concurrency,
        plain_per_s: rounded(plain),
        at_per_s: rounded(at),
        naive_per_s: rounded(naive),
        ratio: rounded(at / plain),
        ratio_to_naive: rounded(at / naive),
        ratio_without_coordinator: rounded(of(Way::WithoutCoordinator) / plain),
        round_trips_per_branch: rounded(per_branch.round_trips),
        statements_per_branch: rounded(per_branch.statements),
    }
}

#[cfg(test)]
mod tests;
