//! Snapshots: taken by themselves, two kept, log and snapshot equal log.

use std::path::{Path, PathBuf};

use accede_log::{Log, LogConfig, OpenError, SnapshotEvery};

use crate::recorder::{Recorder, config, open, put};

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names
        .filter(|path| path.extension() == Some("snap".as_ref()))
        .collect();
    found.sort();
    found
}

fn often(dir: &Path) -> LogConfig {
    let mut config = config(dir);
    config.snapshot_every = SnapshotEvery {
        entries: 100,
        bytes: u64::MAX,
    };
    config
}

/// A directory with two snapshots and entries behind them, and what was applied.
async fn two_snapshots() -> (tempfile::TempDir, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = open(config(dir.path())).await;
    for round in 0..3_u8 {
        for n in 0..50_u8 {
            put(&log, vec![round, n]).await;
        }
        if round < 2 {
            log.snapshot_now().await.unwrap();
        }
    }
    let entries = recorder.entries();
    log.shutdown().await.unwrap();
    assert_eq!(snapshots(dir.path()).len(), 2);
    (dir, entries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_and_segments_stay_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = open(often(dir.path())).await;
    for n in 0..2000_u32 {
        let mut entry = n.to_le_bytes().to_vec();
        entry.resize(1000, 0);
        put(&log, entry).await;
    }
    log.snapshot_now().await.unwrap();
    let stats = log.stats();
    assert!(
        stats.snapshots >= 5 && stats.snapshot_index > 1900,
        "{stats:?}"
    );
    let entries = recorder.entries();
    log.shutdown().await.unwrap();
    assert!(snapshots(dir.path()).len() <= 2);
    // 2 MB were written into segments of 64 KiB.
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 20, "{files} files");
    let (log, recorder) = open(often(dir.path())).await;
    assert_eq!(recorder.entries(), entries);
    log.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_falls_back_to_the_one_before() {
    let (dir, entries) = two_snapshots().await;
    let newest = snapshots(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let (log, recorder) = open(config(dir.path())).await;
    assert_eq!(recorder.entries(), entries);
    log.shutdown().await.unwrap();

    for file in snapshots(dir.path()) {
        std::fs::write(file, "rubbish").unwrap();
    }
    let error = Log::open(config(dir.path()), Recorder::default())
        .await
        .unwrap_err();
    assert!(matches!(&error, OpenError::DamagedSnapshot { file, .. } if *file == newest));
    assert!(error.to_string().contains("backup"), "{error}");
    for file in snapshots(dir.path()) {
        std::fs::remove_file(file).unwrap();
    }
    let error = Log::open(config(dir.path()), Recorder::default())
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

/// Under a newer one's name an old snapshot would seem to need less of the log than it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_the_name_of_another_does_not_count() {
    let (dir, entries) = two_snapshots().await;
    let found = snapshots(dir.path());
    std::fs::copy(&found[0], &found[1]).unwrap();
    let (log, recorder) = open(config(dir.path())).await;
    assert_eq!(recorder.entries(), entries);
    log.shutdown().await.unwrap();

    std::fs::remove_file(&found[0]).unwrap();
    let error = Log::open(config(dir.path()), Recorder::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, OpenError::DamagedSnapshot { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("renamed"), "{error}");
}

/// The identity tells a first start from a directory that was copied in part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_without_an_identity_are_no_first_start() {
    let (dir, entries) = two_snapshots().await;
    let (identity, kept) = (dir.path().join("IDENTITY"), dir.path().join("kept"));
    std::fs::rename(&identity, &kept).unwrap();
    let mut segments = Vec::new();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension() == Some("seg".as_ref()) {
            segments.push((path.clone(), std::fs::read(&path).unwrap()));
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = Log::open(config(dir.path()), Recorder::default())
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("IDENTITY"), "{error}");
    // Nothing was changed: with what was missing it opens.
    for (path, content) in segments {
        std::fs::write(path, content).unwrap();
    }
    std::fs::rename(kept, identity).unwrap();
    let (log, recorder) = open(config(dir.path())).await;
    assert_eq!(recorder.entries(), entries);
    log.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_newer_version_is_refused() {
    let (dir, _) = two_snapshots().await;
    let newest = snapshots(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[8] = 2;
    std::fs::write(&newest, bytes).unwrap();
    let error = Log::open(config(dir.path()), Recorder::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, OpenError::NewerVersion { found: 2, .. }),
        "{error}"
    );
}

/// Refuses every snapshot, as an old build refuses a new build's.
struct Old;

impl accede_log::StateMachine for Old {
    type Response = ();
    fn apply(&mut self, _index: u64, _entry: &[u8]) {}
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _snapshot: &[u8]) -> Result<(), String> {
        Err("state of version 2".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_read_is_refused() {
    let (dir, _) = two_snapshots().await;
    let error = Log::open(config(dir.path()), Old).await.unwrap_err();
    assert!(matches!(&error, OpenError::Restore { .. }), "{error}");
    assert!(error.to_string().contains("state of version 2"), "{error}");
}
