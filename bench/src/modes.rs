//! `modes`: one order over two databases in every mode, beside plain local transactions and
//! two-phase commit by hand.

mod accede;
mod branches;
mod counted;
mod figures;
mod frozen;
mod hand_written;
mod place;
mod plain;
mod saga;
mod way;

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tempfile::TempDir;

use crate::{
    coordinator::Coordinator,
    quiet::Gate,
    report::{self, progress},
};
use figures::{Figures, Round};
use place::Place;
use way::{Measured, Mode};

/// The most tasks that can be asked for; the server has connections for one mode of them in both
/// databases.
const MAX_CONCURRENCY: i64 = 64;

/// What `modes` measures.
#[derive(Debug, Args)]
#[command(after_help = EXPLANATION)]
pub(crate) struct Options {
    /// Modes; all of them unless given. Those that the others are compared with always run.
    #[arg(long, value_delimiter = ',', value_name = "MODE")]
    mode: Vec<Mode>,
    /// Orders at once; one row of each mode for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32],
          value_parser = clap::value_parser!(u32).range(1..=MAX_CONCURRENCY))]
    concurrency: Vec<u32>,
    /// Rounds of each row; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Seconds that a measurement may wait for a quiet disk.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    wait_for_quiet: u64,
}

const EXPLANATION: &str = "\
An order takes one of a product from the database stock, then money from the database account: one
UPDATE of one random row of 10,000 each. Both are on one throw-away PostgreSQL in the system's
temporary folder, writes forced to disk, autovacuum off (tables are vacuumed between measurements).
Database, coordinator and client share this machine. The modes take turns; figures are medians of
rounds. Rounds in which a measurement started on a noisy disk count only where there is no other.

Modes:
  plain         two local transactions, one after the other: all or nothing does not hold
  hand_written  one client's own two-phase commit: both UPDATEs, PREPARE TRANSACTION on both at once,
                COMMIT PREPARED on both at once. Nobody finishes what it leaves when it dies
  at, xa, tcc, 3pc
                through Accede: begin, one branch in each database, commit
  mixed         the same, the product in AT and the money in TCC
  saga          through Accede: one step in each database, which the coordinator orders

Figures:
  transactions_per_s    orders; the round ends when every branch is finished
  database              which the rows are in
  p50_us, p99_us        from the beginning of an order to its answer: in Accede's modes that it is
                        decided, by hand that it is committed in both databases
  round_trips           of an order between its clients and the databases, phase two included,
                        counted by a proxy; trips to the coordinator are not in it
  forced_writes         fsyncs of PostgreSQL's and the coordinator's log for an order that is alone
  statements            of an order that PostgreSQL ran, phase two included, counted by
                        pg_stat_statements; BEGIN, SET and COMMIT included
  ratio_to_plain, ratio_to_hand_written
                        transactions_per_s / those of that mode at the same concurrency";

/// Runs `modes` and prints its table or JSON.
///
/// # Errors
/// When the database or the coordinator does not come up, or an order fails.
pub(crate) async fn run(options: &Options, accede: &Path, json: bool) -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let patience = Duration::from_secs(options.wait_for_quiet);
    let mut gate = Gate::new(folder.path(), patience).await?;
    let mut coordinator = Coordinator::start(accede).await?;
    let place = Place::start().await?;
    let rows = all(options, &place, &mut coordinator, &mut gate).await;
    let rows = rows.with_context(|| coordinator.tail())?;
    coordinator.stop().await?;
    place.stop().await?;
    gate.summary();
    report::print(&rows, json)
}

async fn all(
    options: &Options,
    place: &Place,
    coordinator: &mut Coordinator,
    gate: &mut Gate,
) -> anyhow::Result<Vec<Figures>> {
    let wanted = |mode: &Mode| {
        options.mode.is_empty() || options.mode.contains(mode) || mode.is_compared_with()
    };
    let modes: Vec<Mode> = Mode::ALL.into_iter().filter(wanted).collect();
    let mut counts = Vec::new();
    for &mode in &modes {
        let counted = counted::count(mode, place, coordinator).await?;
        progress(format!("{}: {counted:?}", mode.name()));
        counts.push((mode, counted));
    }
    let mut rows = Vec::new();
    for &concurrency in &options.concurrency {
        let mut rounds: Vec<Round> = Vec::new();
        for round in 1..=options.rounds {
            let mut measured: Vec<(Mode, Measured)> = Vec::new();
            let mut noisy = false;
            for &mode in &modes {
                noisy |= gate.wait().await?;
                let way = way::open(mode, place, coordinator, concurrency).await?;
                let time = Duration::from_secs(options.seconds);
                let result = way::measure(&way, place, concurrency, time).await;
                way.close().await;
                let result = result?;
                progress(format!(
                    "modes, {}, {concurrency} at once, round {round} of {}: {:.0}/s",
                    mode.name(),
                    options.rounds,
                    result.per_s
                ));
                measured.push((mode, result));
            }
            // Like is compared with like: a round counts as a whole or not at all.
            rounds.extend(measured.into_iter().map(|(mode, measured)| Round {
                mode,
                measured,
                noisy,
            }));
        }
        rows.extend(figures::rows(concurrency, &rounds, &counts));
    }
    Ok(rows)
}
