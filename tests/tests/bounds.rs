//! Memory, disk and the time of a restart stay below bounds that follow from the settings.

use std::{fs, path::Path, time::Duration};

use accede_core::limits::{
    MAX_OPEN_TRANSACTIONS, MIN_RETENTION_TRANSACTIONS, RETENTION_TRANSACTIONS,
};
use accede_log::{DEFAULT_CACHE_BYTES, SNAPSHOTS_KEPT, SPARE_SEGMENTS};
use accede_proto::v1::{CoordinatorStatus, GetStatusRequest, operator_client::OperatorClient};
use accede_tests::{
    bulk::{Bulk, Until},
    clock,
    daemon::{Daemon, binary, free_port, release_binary},
    eventually, setting,
};

/// Small, so that many snapshots are taken and segments come round.
const SNAPSHOT_BYTES: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 8 << 20;

/// Bytes of memory of one known transaction of one branch with one row lock, rounded up.
const TRANSACTION: u64 = 1_024;
/// Its bytes in a snapshot, rounded up.
const IN_SNAPSHOT: u64 = 256;
/// Program, threads, connections and requests under way.
const BASE: u64 = 96 << 20;

/// More than this are measured with optimizations.
const MOST_UNOPTIMIZED: u64 = 100_000;

/// A daemon for so many transactions that knows at most `known` ended ones.
fn start(data: &Path, port: u16, transactions: u64, known: u64) -> anyhow::Result<Daemon> {
    let binary = match transactions > MOST_UNOPTIMIZED {
        true => release_binary(),
        false => binary(),
    };
    let (snapshot, segment) = (SNAPSHOT_BYTES.to_string(), SEGMENT_BYTES.to_string());
    let known = known.to_string();
    let mut arguments = vec!["--snapshot-bytes", &snapshot, "--segment-bytes", &segment];
    arguments.extend(["--retention-transactions", &known]);
    Daemon::spawn_as(binary, data, port, &arguments)
}

async fn status(url: &str) -> anyhow::Result<CoordinatorStatus> {
    let mut client = OperatorClient::connect(url.to_owned()).await?;
    Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
}

/// A number of kilobytes from what Linux says of a process, in bytes.
fn memory(daemon: &Daemon, what: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(1024 * number.unwrap_or_default().parse::<u64>()?)
}

/// Bytes of all files, as they are allocated or as long as they are, whichever is more.
fn disk(data: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(data)? {
        // A file that goes away meanwhile takes nothing.
        bytes += file?.metadata().map_or(0, |file| file.len());
    }
    Ok(bytes)
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_transactions_leave_bounded_memory_and_disk() -> anyhow::Result<()> {
    let count = setting("ACCEDE_TEST_FINISHED", 20_000);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    // Fewer than there will be, so that the bound is one.
    let known = (count / 2).clamp(MIN_RETENTION_TRANSACTIONS, RETENTION_TRANSACTIONS);
    let daemon = start(&data, free_port(), count, known)?;
    let daemon = daemon.serving(Duration::from_secs(30)).await?;
    let snapshot = known * IN_SNAPSHOT;
    // The state, the entries that the log remembers, and a snapshot while it is written.
    let memory_bound = BASE + known * TRANSACTION + DEFAULT_CACHE_BYTES as u64 + 2 * snapshot;
    // Two snapshots and one that is written; the log since the older one, and what comes while a
    // snapshot is written; the segments that are not full.
    let log = (SNAPSHOTS_KEPT as u64 + 2) * SNAPSHOT_BYTES;
    let segments = (SPARE_SEGMENTS as u64 + 3) * SEGMENT_BYTES;
    let disk_bound = (SNAPSHOTS_KEPT as u64 + 1) * snapshot + log + segments;

    let mut bulk = Bulk::connect(&daemon.url()).await?;
    let mut disk_peak = 0;
    let parts = 20;
    for _ in 0..parts {
        bulk.run(count / parts, Until::Finished).await?;
        disk_peak = disk_peak.max(disk(&data)?);
    }
    let url = daemon.url();
    let settled = eventually("everything ends", Duration::from_secs(60), async || {
        let status = status(&url).await.ok()?;
        let open = ["active", "committing"];
        let open: u64 = open
            .iter()
            .filter_map(|s| status.transactions.get(*s))
            .sum();
        (open == 0).then_some(status)
    });
    let settled = settled.await?;
    let peak = memory(&daemon, "VmHWM")?;
    println!(
        "{count} finished: memory {} MiB at most ({} now, {} allowed), data directory {} MiB ({} allowed), {:?}",
        megabytes(peak),
        megabytes(memory(&daemon, "VmRSS")?),
        megabytes(memory_bound),
        megabytes(disk_peak),
        megabytes(disk_bound),
        settled.transactions,
    );
    assert!(settled.snapshot_index > 0, "snapshots were taken");
    assert!(
        settled
            .transactions
            .get("committed")
            .is_none_or(|n| *n <= known)
    );
    assert!(
        peak <= memory_bound,
        "{peak} bytes of memory, {memory_bound} allowed"
    );
    assert!(
        disk_peak <= disk_bound,
        "{disk_peak} bytes on disk, {disk_bound} allowed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_many_open_transactions_is_quick() -> anyhow::Result<()> {
    let count = setting("ACCEDE_TEST_OPEN", 50_000).min(MAX_OPEN_TRANSACTIONS as u64);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let port = free_port();
    let daemon = start(&data, port, count, RETENTION_TRANSACTIONS)?;
    let daemon = daemon.serving(Duration::from_secs(30)).await?;
    Bulk::connect(&daemon.url())
        .await?
        .run(count, Until::Open)
        .await?;
    let before = status(&daemon.url()).await?;
    daemon.kill()?;

    // 30 seconds for a million, with optimizations. Without them, and with other tests at the same
    // time, only that it does not grow without measure.
    let mut limit = Duration::from_secs(1) + Duration::from_micros(30) * u32::try_from(count)?;
    if count <= MOST_UNOPTIMIZED {
        limit *= 10;
    }
    let daemon = start(&data, port, count, RETENTION_TRANSACTIONS)?;
    let began = clock::now();
    let daemon = daemon.serving(4 * limit).await?;
    let took = began.elapsed();
    let after = status(&daemon.url()).await?;
    println!(
        "{count} open: restart took {:.2} s ({:.2} allowed), memory {} MiB at most, data directory {} MiB",
        took.as_secs_f64(),
        limit.as_secs_f64(),
        megabytes(memory(&daemon, "VmHWM")?),
        megabytes(disk(&data)?),
    );
    assert_eq!(after.transactions.get("active"), Some(&count));
    assert_eq!(after.row_locks, before.row_locks);
    assert!(took < limit, "{took:?}, {limit:?} allowed");
    Ok(())
}
