//! The limit that the log sets: what transactions log, appended with group commit and nothing else.

use std::{sync::Arc, time::Duration};

use accede_core::{
    Attempt, Begin, BranchDone, BranchId, Command, Commit, Epoch, FinishBranch, LockKey, Mode,
    Outcome, Payload, ProcessId, RegisterBranch, RequestId, Timestamp, WallTime, Xid,
    codec::encode_batch,
};
use accede_log::{LogConfig, raw::Appender};
use anyhow::Context as _;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::clock;

/// Entries that one transaction appends, each awaited before the next: its caller waits for two
/// registers and the commit, its agent for the branches' finish.
pub(super) const ENTRIES_PER_TRANSACTION: f64 = 4.0;

/// How often segments are given back for reuse, as snapshots would do it.
const FORGET_EVERY: Duration = Duration::from_millis(250);

/// Entries per second that `in_flight` transactions append, in a folder of their own on the disk
/// of the system's temporary files.
///
/// # Errors
/// When the disk cannot be written.
pub(super) async fn measure(in_flight: usize, time: Duration) -> anyhow::Result<f64> {
    let folder = TempDir::with_prefix("accede-bench-")?;
    let config = LogConfig::new(folder.path());
    let open = tokio::task::spawn_blocking(move || Appender::open(&config));
    let appender = Arc::new(open.await?.context("cannot open a log")?);
    let entries = Arc::new(entries());
    let start = clock::now();
    let until = start + time;
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (appender, entries) = (Arc::clone(&appender), Arc::clone(&entries));
        tasks.spawn(async move {
            while clock::now() < until {
                for entry in &*entries {
                    appender.append(entry.clone()).await?;
                }
            }
            std::io::Result::Ok(())
        });
    }
    let recycling = Arc::clone(&appender);
    let recycle = tokio::spawn(async move {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            // What fails here fails the appends too, which report it.
            let _ = recycling.forget().await;
        }
    });
    while let Some(ended) = tasks.join_next().await {
        ended?.context("the log failed")?;
    }
    let took = (clock::now() - start).as_secs_f64();
    recycle.abort();
    // The task holds the appender until it has ended.
    let _ = recycle.await;
    let rate = appender.stats().entries as f64 / took;
    let close = tokio::task::spawn_blocking(move || appender.close());
    close.await?;
    Ok(rate)
}

/// The four entries of one transaction, as the coordinator would write them for it alone.
fn entries() -> Vec<Bytes> {
    let process = ProcessId(0x1234_5678_9abc_def0);
    let xid = Xid::new(0x0123_4567_89ab_cdef).expect("positive and not zero");
    let begin = Command::Begin(Begin {
        process,
        xid,
        name: "bench".into(),
        timeout_ms: 60_000,
        parent: None,
    });
    let register = |sequence| {
        Command::RegisterBranch(RegisterBranch {
            xid,
            request: RequestId { process, sequence },
            agent: process,
            resource: super::load::RESOURCE.into(),
            mode: Mode::At,
            locks: vec![LockKey::from([7; 30]).into()],
            payload: Payload::default(),
            wait_limit_ms: 5_000,
            holds_local_locks: true,
            can_keep_open: false,
        })
    };
    let done = |branch| {
        let branch = BranchId(branch);
        Command::BranchDone(BranchDone { xid, branch })
    };
    let finish = |branch| {
        Command::FinishBranch(FinishBranch {
            xid,
            branch: BranchId(branch),
            attempt: Attempt(1),
            epoch: Epoch(1_000),
            outcome: Outcome::Finished,
        })
    };
    [
        vec![begin, register(1_000_000)],
        vec![done(1), register(1_000_001)],
        vec![done(2), Command::Commit(Commit { xid })],
        vec![finish(1), finish(2)],
    ]
    .iter()
    .map(|commands| {
        let wall = WallTime(WallTime::XID_EPOCH.0 + 1_000_000_000);
        Bytes::from(encode_batch(Timestamp(1_000_000_000), wall, commands))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_appends_what_is_counted_for_it() {
        assert_eq!(entries().len() as f64, ENTRIES_PER_TRANSACTION);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn appends_are_counted() {
        let rate = measure(2, Duration::from_millis(200)).await.unwrap();
        assert!(rate > 1.0, "{rate}");
    }
}
