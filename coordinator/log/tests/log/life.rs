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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_refuse_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(dir.path());
    small.max_in_flight = 3;
    let (log, _) = open(small).await;
    let limit = log.max_entry_bytes();
    let error = log.propose(vec![0; limit + 1].into()).await.unwrap_err();
    assert_eq!(
        error,
        ProposeError::TooLarge {
            bytes: limit + 1,
            limit
        }
    );
    assert_eq!(put(&log, vec![1; limit]).await, 1);

    let mut waiting = Vec::new();
    let error = loop {
        match log.propose("x".into()).await {
            Ok(proposal) => waiting.push(proposal),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ProposeError::Overloaded { entries: 3 }),
        "{error}"
    );
    for proposal in waiting {
        proposal.await.unwrap();
    }
    put(&log, "there is room again").await;
    log.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_or_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(config(dir.path())).await;
    let cluster = log.cluster_id();
    log.shutdown().await.unwrap();

    let mut other = config(dir.path());
    other.cluster_id = Some(accede_log::ClusterId(cluster.0 ^ 1));
    let error = accede_log::Log::open(other, crate::recorder::Recorder::default()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, OpenError::OtherCluster { found, .. } if found == cluster),
        "{error}"
    );

    let mut node = config(dir.path());
    node.node_id = 2;
    let error = accede_log::Log::open(node, crate::recorder::Recorder::default()).await;
    assert!(matches!(error, Err(OpenError::Config { .. })));

    let mut same = config(dir.path());
    same.cluster_id = Some(cluster);
    let (log, _) = open(same).await;
    log.shutdown().await.unwrap();
}
