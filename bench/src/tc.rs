//! `tc`: durable two-branch transactions through the wire, and the two limits beside them.

mod appends;
mod echo;
mod ids;
mod load;
mod outbox;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    child::{Running, free_port},
    clock,
    coordinator::Coordinator,
    quiet::Gate,
    report::{self, Row, Sample, median, progress, rounded},
};
pub(crate) use echo::run as echo;
use load::Load;

/// HTTP/2 flow-control window of a stream, as the coordinator and its clients set it.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 flow-control window of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Messages that are taken from a stream at once.
const READ_CHUNK: usize = 256;
/// Load before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the echo server may take to come up.
const ECHO_START: Duration = Duration::from_secs(10);
/// The most transactions in flight that can be asked for.
const MAX_IN_FLIGHT: u64 = 8192;

/// What `tc` measures and against what.
#[derive(Debug, Args)]
#[command(after_help = EXPLANATION)]
pub(crate) struct Options {
    /// Transactions in flight, one row for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256, 1024],
          value_parser = clap::value_parser!(u64).range(1..=MAX_IN_FLIGHT))]
    in_flight: Vec<u64>,
    /// Rounds of each row; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Seconds that a round may wait for a quiet disk.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    wait_for_quiet: u64,
}

const EXPLANATION: &str = "\
One transaction: begin (announced), two registers with one row lock each, one after the other, each
followed by done, commit, two orders answered with finished. It is in flight until both branches
are finished and all of that is durable. The coordinator runs in its own process on a new data
directory in the system's temporary folder; client and server share this machine.

  transactions_per_s            transactions whose branches are finished
  p50_us, p99_us                begin until the answer to commit, what the caller waits for
  forced_writes_per_transaction fdatasync calls of the coordinator's log
  messages_per_transaction      sent and received, on both streams
  log_entries_per_transaction   an entry holds all commands that came while the one before it
                                was written
  echo_messages_per_s           the same messages, sent and received, against a server in its own
                                process that keeps nothing and answers at once
  log_entries_per_s             the same bytes appended to the same log with group commit by as
                                many waiters, 4 entries for each transaction (two registers,
                                commit, finish), without coordinator and network
  share_of_limit                transactions_per_s divided by the tighter limit: the smaller of
                                echo_messages_per_s / messages_per_transaction and
                                log_entries_per_s / 4

The three measurements take turns; figures are medians of rounds. Rounds in which one started on a
noisy disk count only where there is no other.";

#[derive(Debug, Serialize)]
struct Figures {
    in_flight: u64,
    transactions_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    forced_writes_per_transaction: f64,
    messages_per_transaction: f64,
    log_entries_per_transaction: f64,
    echo_messages_per_s: f64,
    log_entries_per_s: f64,
    share_of_limit: f64,
}

impl Row for Figures {
    fn head() -> Vec<&'static str> {
        vec![
            "in flight",
            "transactions/s",
            "p50 µs",
            "p99 µs",
            "forced writes each",
            "messages each",
            "log entries each",
            "echo messages/s",
            "log entries/s",
            "share of limit",
        ]
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.in_flight.to_string(),
            format!("{:.0}", self.transactions_per_s),
            format!("{:.0}", self.p50_us),
            format!("{:.0}", self.p99_us),
            format!("{:.3}", self.forced_writes_per_transaction),
            format!("{:.2}", self.messages_per_transaction),
            format!("{:.3}", self.log_entries_per_transaction),
            format!("{:.0}", self.echo_messages_per_s),
            format!("{:.0}", self.log_entries_per_s),
            format!("{:.2}", self.share_of_limit),
        ]
    }
}

/// One round of all three measurements.
#[derive(Clone, Copy)]
struct Round {
    noisy: bool,
    coordinator: Measured,
    echo_messages_per_s: f64,
    log_entries_per_s: f64,
}

/// One run of the load.
#[derive(Clone, Copy)]
struct Measured {
    transactions_per_s: f64,
    messages_per_s: f64,
    messages_each: f64,
    p50_us: f64,
    p99_us: f64,
    forced_writes_each: f64,
    log_entries_each: f64,
}

/// Runs `tc` and prints its table or JSON.
///
/// # Errors
/// When a process does not come up, or a transaction does not commit.
pub(crate) async fn run(options: &Options, accede: &Path, json: bool) -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let patience = Duration::from_secs(options.wait_for_quiet);
    let mut gate = Gate::new(folder.path(), patience).await?;
    let (echo_address, echo_server) = start_echo().await?;
    let mut rows = Vec::new();
    for &in_flight in &options.in_flight {
        let places = usize::try_from(in_flight).context("too many transactions in flight")?;
        let mut coordinator = Coordinator::start(accede).await?;
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            let mut noisy = gate.wait().await?;
            let time = Duration::from_secs(options.seconds);
            let measured = with_coordinator(&mut coordinator, places, time).await;
            let measured = measured.with_context(|| coordinator.tail())?;
            let echoed = with_load(&echo_address, places, time / 2, None).await?;
            noisy |= gate.wait().await?;
            let appended = appends::measure(places, time / 2).await?;
            progress(format!(
                "tc, {in_flight} in flight, round {round} of {}: {:.0} transactions/s, echo {:.0} \
                 messages/s, log {appended:.0} entries/s",
                options.rounds, measured.transactions_per_s, echoed.messages_per_s
            ));
            rounds.push(Round {
                noisy,
                coordinator: measured,
                echo_messages_per_s: echoed.messages_per_s,
                log_entries_per_s: appended,
            });
        }
        coordinator.stop().await?;
        rows.push(figures(in_flight, &rounds));
    }
    echo_server.stop().await?;
    gate.summary();
    report::print(&rows, json)
}

/// Starts this program's echo server in a process of its own.
async fn start_echo() -> anyhow::Result<(String, Running)> {
    let program: PathBuf = std::env::current_exe().context("this program has no path")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let folder = TempDir::with_prefix("accede-bench-")?;
    let port = address.to_string();
    let words = [program.as_os_str(), "echo".as_ref(), port.as_ref()];
    let running = Running::start("the echo server", "TERM", folder, words)?;
    let until = clock::now() + ECHO_START;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if clock::now() >= until {
            bail!("the echo server does not come up; {}", running.tail());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((format!("http://{address}"), running))
}

async fn with_coordinator(
    coordinator: &mut Coordinator,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let address = coordinator.address.clone();
    with_load(&address, in_flight, time, Some(coordinator)).await
}

/// Runs the load against an address; `coordinator` tells what it wrote meanwhile.
async fn with_load(
    address: &str,
    in_flight: usize,
    time: Duration,
    mut coordinator: Option<&mut Coordinator>,
) -> anyhow::Result<Measured> {
    let load = Load::start(address, in_flight).await?;
    load.run_for(WARM_UP).await?;
    load.reset_latency();
    let (mut writes, mut entries) = (0, 0);
    if let Some(coordinator) = &mut coordinator {
        let before = coordinator.status().await?;
        (writes, entries) = (before.forced_writes, before.log_index);
    }
    let before = load.counts();
    load.run_for(time).await?;
    let after = load.counts();
    if let Some(coordinator) = coordinator {
        let status = coordinator.status().await?;
        writes = status.forced_writes.saturating_sub(writes);
        entries = status.log_index.saturating_sub(entries);
    }
    let latency = load.latency();
    load.stop().await?;
    let seconds = (after.at - before.at).as_secs_f64();
    let transactions = (after.completed - before.completed) as f64;
    if transactions == 0.0 {
        bail!("no transaction ended within {time:?}");
    }
    let messages = (after.messages - before.messages) as f64;
    Ok(Measured {
        transactions_per_s: transactions / seconds,
        messages_per_s: messages / seconds,
        messages_each: messages / transactions,
        p50_us: latency.value_at_quantile(0.50) as f64,
        p99_us: latency.value_at_quantile(0.99) as f64,
        forced_writes_each: writes as f64 / transactions,
        log_entries_each: entries as f64 / transactions,
    })
}

fn figures(in_flight: u64, rounds: &[Round]) -> Figures {
    let of = |value: fn(&Round) -> f64| {
        median(rounds.iter().map(|round| Sample {
            value: value(round),
            noisy: round.noisy,
        }))
    };
    let transactions_per_s = of(|round| round.coordinator.transactions_per_s);
    let messages_each = of(|round| round.coordinator.messages_each);
    let echo_messages_per_s = of(|round| round.echo_messages_per_s);
    let log_entries_per_s = of(|round| round.log_entries_per_s);
    let limit = (echo_messages_per_s / messages_each)
        .min(log_entries_per_s / appends::ENTRIES_PER_TRANSACTION);
    Figures {
        in_flight,
        transactions_per_s: rounded(transactions_per_s),
        p50_us: rounded(of(|round| round.coordinator.p50_us)),
        p99_us: rounded(of(|round| round.coordinator.p99_us)),
        forced_writes_per_transaction: rounded(of(|round| round.coordinator.forced_writes_each)),
        messages_per_transaction: rounded(messages_each),
        log_entries_per_transaction: rounded(of(|round| round.coordinator.log_entries_each)),
        echo_messages_per_s: rounded(echo_messages_per_s),
        log_entries_per_s: rounded(log_entries_per_s),
        share_of_limit: rounded(transactions_per_s / limit),
    }
}

#[cfg(test)]
mod tests;
