//! Directories written by past format versions must keep opening.

use std::path::{Path, PathBuf};

use accede_log::ClusterId;

use crate::recorder::{config, open, put};

const CLUSTER: ClusterId = ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// The entries in it: some in a snapshot, some behind it, over more than one segment.
fn entries() -> Vec<Vec<u8>> {
    (0..60_usize)
        .map(|n| vec![n as u8; 10 + (n * 61) % 700])
        .collect()
}

fn settings(dir: &Path) -> accede_log::LogConfig {
    let mut config = config(dir);
    config.segment_bytes = 16 * 1024;
    config.cluster_id = Some(CLUSTER);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_1_opens() {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let (log, recorder) = open(settings(dir.path())).await;
    assert_eq!(recorder.entries(), entries());
    assert_eq!(log.stats().snapshot_index, 21);
    assert_eq!(put(&log, "new").await, 61);
    log.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the directory of the current version; only for a new version"]
async fn write_golden() {
    assert!(
        !golden().exists(),
        "a golden directory is never written again"
    );
    std::fs::create_dir_all(golden()).unwrap();
    let (log, _) = open(settings(&golden())).await;
    for (n, entry) in entries().into_iter().enumerate() {
        put(&log, entry).await;
        if n == 19 {
            log.snapshot_now().await.unwrap();
        }
    }
    log.shutdown().await.unwrap();
    std::fs::remove_file(golden().join("LOCK")).unwrap();
}
