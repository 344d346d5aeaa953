//! A log on a real disk: proposing, restarting, snapshots, refusals.

use crate::recorder::{config, lead, open, put};
use accede_log::{OpenError, ProposeError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recorder) = open(config(dir.path())).await;
    let first_term = lead(&log).await;
    let mut proposals = Vec::new();
    for n in 0..1000_u32 {
        proposals.push(log.propose(n.to_le_bytes().to_vec().into()).await.unwrap());
    }
    for (n, proposal) in proposals.into_iter().enumerate() {
        assert_eq!(proposal.await, Ok(n + 1));
    }
    let stats = log.stats();
    assert!(
        stats.entries >= 1000 && stats.forced_writes < 500,
        "{stats:?}"
    );
    log.read_barrier().await.unwrap();
    let before = recorder.entries();
    log.shutdown().await.unwrap();
    assert!(matches!(
        log.propose("x".into()).await,
        Err(ProposeError::Stopped { .. })
    ));

    let (log, recorder) = open(config(dir.path())).await;
    assert_eq!(recorder.entries(), before);
    assert!(lead(&log).await > first_term);
    assert_eq!(put(&log, "next").await, 1001);
    log.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(config(dir.path())).await;
    let second =
        accede_log::Log::open(config(dir.path()), crate::recorder::Recorder::default()).await;
    let error = second.unwrap_err();
    assert!(matches!(error, OpenError::AnotherDaemon { .. }), "{error}");
    log.shutdown().await.unwrap();
    let (log, _) = open(config(dir.path())).await;
    log.shutdown().await.unwrap();
}
