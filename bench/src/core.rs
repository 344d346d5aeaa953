//! `core`: the state machine alone, without log, network and threads.

mod hot_row;
mod load;

use std::{io::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::{
    clock,
    report::{self, Row, Sample, median, progress, rounded},
};
use hot_row::HotRow;
use load::{ROUND, SIDE_BY_SIDE, World};

/// What `core` measures.
#[derive(Debug, Args)]
#[command(after_help = EXPLANATION)]
pub(crate) struct Options {
    /// Transactions that are open meanwhile, one row for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 1_000_000],
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    open: Vec<u64>,
    /// Rounds of each row; the median counts.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

const EXPLANATION: &str = "\
One transaction: begin, two registers with one row lock each, two done, commit, two finished; 64 of
them take their steps side by side. Commands are made before the clock starts; a round is 40,000
transactions on one core.

  open_transactions            others that stay open with two branches and two row locks each
  transactions_per_s           applied, with all effects
  allocations_per_transaction  calls of the allocator that took memory, counted by another
                               process

The hot row: all waiters queue for one row lock; each holder registers, is done, commits, is
finished, and a new transaction queues in its place.

  grants_per_s        row locks handed over
  max_wait_over_mean  longest wait for the lock divided by the mean, in hand-overs: 1 is fair";

#[derive(Debug, Serialize)]
struct Figures {
    open_transactions: u64,
    transactions_per_s: f64,
    allocations_per_transaction: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    rows: &'a [Figures],
    hot_row: HotRow,
}

impl Row for Figures {
    fn head() -> Vec<&'static str> {
        vec!["open", "transactions/s", "allocations each"]
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.open_transactions.to_string(),
            format!("{:.0}", self.transactions_per_s),
            format!("{:.2}", self.allocations_per_transaction),
        ]
    }
}

/// Runs `core` and prints its table or JSON.
///
/// # Errors
/// When the state machine answers differently than it must, or stdout is closed.
pub(crate) fn run(options: &Options, json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for &open in &options.open {
        rows.push(measure(open, options.rounds)?);
    }
    let hot_row = hot_row::measure()?;
    if json {
        let report = Report {
            rows: &rows,
            hot_row,
        };
        let text = serde_json::to_string(&report).context("figures that JSON cannot hold")?;
        return writeln!(std::io::stdout(), "{text}").context("stdout is closed");
    }
    report::print(&rows, false)?;
    writeln!(
        std::io::stdout(),
        "hot row, {} waiters: {:.0} grants/s, longest wait {:.2} times the mean",
        hot_row.waiters,
        hot_row.grants_per_s,
        hot_row.max_wait_over_mean
    )
    .context("stdout is closed")
}

fn measure(open: u64, rounds: u32) -> anyhow::Result<Figures> {
    let mut world = World::settled(open)?;
    let mut samples = Vec::new();
    for _ in 0..rounds {
        let commands = world.transactions(ROUND, SIDE_BY_SIDE)?;
        let began = clock::now();
        world.apply_all(commands)?;
        let seconds = (clock::now() - began).as_secs_f64();
        samples.push(Sample {
            value: ROUND as f64 / seconds,
            noisy: false,
        });
    }
    let transactions_per_s = median(samples);
    progress(format!(
        "core, {open} open: {transactions_per_s:.0} transactions/s"
    ));
    drop(world);
    Ok(Figures {
        open_transactions: open,
        transactions_per_s: rounded(transactions_per_s),
        allocations_per_transaction: rounded(count_allocations(open)?),
    })
}

/// Asks the program beside this one: counting slows the allocator down.
fn count_allocations(open: u64) -> anyhow::Result<f64> {
    let own = std::env::current_exe().context("this program has no path")?;
    let program: PathBuf = own.with_file_name("accede-bench-allocations");
    let counted = Command::new(&program).arg(open.to_string()).output();
    let counted = counted.with_context(|| {
        let path = program.display();
        format!("cannot run {path}; build it with `cargo build --release -p accede-bench`")
    })?;
    if !counted.status.success() {
        bail!("{}", String::from_utf8_lossy(&counted.stderr).trim());
    }
    let text = String::from_utf8_lossy(&counted.stdout);
    let each = text.trim().parse();
    each.with_context(|| format!("{} said {text:?}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_gives_figures() {
        let mut world = World::new().expect("starts");
        world.open(100).expect("opens");
        let commands = world.transactions(200, 16).expect("in turn");
        assert_eq!(commands.len(), 200 * 8);
        world.apply_all(commands).expect("as it must");
        assert_eq!(world.counts().active, 100);
        assert_eq!(world.counts().committed, 200);
    }
}
