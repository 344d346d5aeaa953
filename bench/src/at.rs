//! `at`: the same UPDATE on one PostgreSQL, plainly, as an AT branch and by hand.

mod counted;
mod database;
mod hot;
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
use hot::{Hot, Mode};
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
  hot_exclusive, hot_escrow at_per_s of 32 writers of one row, whose transactions stay open for
                            open_ms after the local commit, as for a second branch
Phase two adds one DELETE for up to 500 branches.";

#[derive(Debug, Serialize)]
struct Figures {
    database: &'static str,
    workload: &'static str,
    concurrency: u32,
    open_ms: u64,
    plain_per_s: Option<f64>,
    at_per_s: f64,
    naive_per_s: Option<f64>,
    ratio: Option<f64>,
    ratio_to_naive: Option<f64>,
    ratio_without_coordinator: Option<f64>,
    round_trips_per_branch: Option<f64>,
    statements_per_branch: Option<f64>,
}

impl Row for Figures {
    fn head() -> Vec<&'static str> {
        vec![
            "database",
            "workload",
            "concurrency",
            "open ms",
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
            self.open_ms.to_string(),
            whole(self.plain_per_s),
            whole(Some(self.at_per_s)),
            whole(self.naive_per_s),
            fine(self.ratio),
            fine(self.ratio_to_naive),
            fine(self.ratio_without_coordinator),
            fine(self.round_trips_per_branch),
            fine(self.statements_per_branch),
        ]
    }
}

fn whole(figure: Option<f64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.0}"))
}

fn fine(figure: Option<f64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.2}"))
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
    rows.extend(hot_rows(options, &database, &coordinator, &mut gate).await?);
    coordinator.stop().await?;
    database.stop().await?;
    gate.summary();
    report::print(&rows, json)
}

/// One hot row, locked in both ways, with and without a while between local commit and decision.
async fn hot_rows(
    options: &Options,
    database: &Database,
    coordinator: &Coordinator,
    gate: &mut Gate,
) -> anyhow::Result<Vec<Figures>> {
    let time = Duration::from_secs(options.seconds);
    let mut samples = Vec::new();
    for mode in Mode::ALL {
        let hot = Hot::open(database, coordinator, mode)
            .await
            .with_context(|| coordinator.tail())?;
        for open in hot::OPEN {
            for round in 1..=options.rounds {
                let noisy = gate.wait().await?;
                let measured = hot.measure(open, time).await;
                let value = measured.with_context(|| coordinator.tail())?;
                progress(format!(
                    "at, {}, open for {open:?}, round {round} of {}: {value:.0}/s",
                    mode.workload(),
                    options.rounds
                ));
                samples.push((mode, open, Sample { value, noisy }));
            }
        }
        hot.close().await;
    }
    let each = Mode::ALL.into_iter();
    let each = each.flat_map(|mode| hot::OPEN.into_iter().map(move |open| (mode, open)));
    let rows = each.map(|(mode, open)| {
        let its = samples.iter().filter(|(m, o, _)| (*m, *o) == (mode, open));
        let at = median(its.map(|(_, _, sample)| *sample));
        Figures {
            database: "postgres",
            workload: mode.workload(),
            concurrency: hot::WRITERS,
            open_ms: u64::try_from(open.as_millis()).unwrap_or(u64::MAX),
            plain_per_s: None,
            at_per_s: rounded(at),
            naive_per_s: None,
            ratio: None,
            ratio_to_naive: None,
            ratio_without_coordinator: None,
            round_trips_per_branch: None,
            statements_per_branch: None,
        }
    });
    Ok(rows.collect())
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
        open_ms: 0,
        plain_per_s: Some(rounded(plain)),
        at_per_s: rounded(at),
        naive_per_s: Some(rounded(naive)),
        ratio: Some(rounded(at / plain)),
        ratio_to_naive: Some(rounded(at / naive)),
        ratio_without_coordinator: Some(rounded(of(Way::WithoutCoordinator) / plain)),
        round_trips_per_branch: Some(rounded(per_branch.round_trips)),
        statements_per_branch: Some(rounded(per_branch.statements)),
    }
}

#[cfg(test)]
mod tests;
