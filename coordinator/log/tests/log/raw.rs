//! The segment writer alone.

use accede_log::raw::Appender;

use crate::recorder::config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_share_forced_writes_and_segments_are_reused() {
    let dir = tempfile::tempdir().unwrap();
    let appender = Appender::open(&config(dir.path())).unwrap();
    for _ in 0..20 {
        let waiting: Vec<_> = (0..100)
            .map(|_| appender.append(vec![1; 200].into()))
            .collect();
        for entry in waiting {
            entry.await.unwrap();
        }
        appender.forget().await.unwrap();
    }
    let stats = appender.stats();
    assert_eq!(stats.entries, 2000);
    assert!(stats.forced_writes < 1000, "{stats:?}");
    assert_eq!(stats.segments, 1);
    appender.close();
    let error = appender.append("late".into()).await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    drop(Appender::open(&config(dir.path())).unwrap());
}
