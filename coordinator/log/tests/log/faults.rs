//! The whole log on a file system that crashes, fills up and fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use accede_log::fs::Fs;
use accede_log::sim::{Faults, SimFs};
use accede_log::{Leadership, Log, LogConfig, LogFailure, ProposeError, SnapshotEvery};

use crate::recorder::{Recorder, lead, open, put};

fn config(fs: &SimFs) -> LogConfig {
    let mut config = LogConfig::new("/data");
    config.segment_bytes = 16 * 1024;
    config.snapshot_every = SnapshotEvery {
        entries: 60,
        bytes: 1 << 30,
    };
    config.fs = Arc::new(fs.clone());
    config
}

/// What the test asked for and what it was told.
#[derive(Default)]
struct Ledger {
    seed: u64,
    proposed: Vec<Vec<u8>>,
    answered: BTreeSet<Vec<u8>>,
}

impl Ledger {
    /// Everything answered is there, nothing is there twice or was never proposed, and the order
    /// is that of the proposals.
    fn check(&self, found: &[Vec<u8>]) {
        let seed = self.seed;
        let set: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(
            set.len(),
            found.len(),
            "seed {seed}: an entry is there twice"
        );
        let lost: Vec<_> = self.answered.difference(&set).collect();
        assert!(
            lost.is_empty(),
            "seed {seed}: {} answered entries are lost",
            lost.len()
        );
        let mut asked = self.proposed.iter();
        for entry in found {
            assert!(
                asked.any(|one| one == entry),
                "seed {seed}: an entry was invented or changed its place"
            );
        }
    }
}

/// One life: proposes in bursts until the power goes or all is said. Returns what was applied.
async fn life(config: LogConfig, ledger: &mut Ledger, bursts: u32) {
    let recorder = Recorder::default();
    let Ok(log) = Log::open(config, recorder.clone()).await else {
        return;
    };
    ledger.check(&recorder.entries());
    let mut leadership = log.leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
    tokio::select! {
        _ = leads => {}
        _ = log.failed() => return,
    }
    for _ in 0..bursts {
        let mut waiting = Vec::new();
        for _ in 0..7 {
            let number = ledger.proposed.len() as u64;
            let mut entry = number.to_le_bytes().to_vec();
            entry.resize(8 + (number as usize * 37) % 700, 0x5a);
            ledger.proposed.push(entry.clone());
            match log.propose(entry.clone().into()).await {
                Ok(proposal) => waiting.push((entry, proposal)),
                Err(_) => return,
            }
        }
        for (entry, proposal) in waiting {
            if proposal.await.is_ok() {
                ledger.answered.insert(entry);
            }
        }
    }
}

/// Seeds of the crash test: `ACCEDE_TEST_LOG_SEEDS=from..to` for a longer run. A seed fixes the faults,
/// not how threads interleave.
fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("ACCEDE_TEST_LOG_SEEDS") else {
        return 0..12;
    };
    let (from, to) = range.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn answered_entries_survive_any_number_of_crashes() {
    let (mut answered, mut snapshots) = (0, 0);
    for seed in seeds() {
        let mut fs = SimFs::new(seed);
        let mut ledger = Ledger {
            seed,
            ..Ledger::default()
        };
        for round in 0..8_u64 {
            let step = (seed * 31 + round * 17) % 190;
            let faults = Faults {
                power_off_at: Some(fs.operations() + 20 + step),
                short_writes: (round % 2 == 0).then_some(5),
                ..Faults::default()
            };
            fs.set_faults(faults);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.unwrap();
            runtime.block_on(life(config(&fs), &mut ledger, 40));
            fs = match round % 3 {
                0 => fs.crash_losing_all(),
                1 => fs.kill(),
                _ => fs.crash(),
            };
            runtime.shutdown_timeout(Duration::from_secs(20));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (log, recorder) = open(config(&fs)).await;
            ledger.check(&recorder.entries());
            log.shutdown().await.unwrap();
        });
        let names = fs.list("/data".as_ref()).unwrap();
        snapshots += names.iter().filter(|name| name.ends_with(".snap")).count();
        answered += ledger.answered.len();
    }
    assert!(
        answered > 1000,
        "only {answered} entries were answered: the test tests little"
    );
    assert!(snapshots > 6, "only {snapshots} snapshots were taken");
}

#[tokio::test]
async fn a_full_disk_answers_nothing_and_says_so() {
    let fs = SimFs::new(1);
    let (log, _) = open(config(&fs)).await;
    put(&log, "before").await;
    let used = u64::MAX - fs.available_bytes("/data".as_ref()).unwrap();
    fs.set_faults(Faults {
        capacity: Some(used + 100),
        ..Faults::default()
    });
    let error = loop {
        let proposed = match log.propose(vec![1; 1000].into()).await {
            Ok(proposal) => proposal.await,
            Err(error) => Err(error),
        };
        if let Err(error) = proposed {
            break error;
        }
    };
    assert!(matches!(error, ProposeError::Unknown { .. }), "{error}");
    let failure = log.failed().await;
    assert!(matches!(failure, LogFailure::DiskFull { .. }), "{failure}");
    assert!(failure.to_string().contains("/data"), "{failure}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(matches!(
        log.propose("x".into()).await,
        Err(ProposeError::Stopped { .. })
    ));
    assert_eq!(log.shutdown().await, Err(failure));
}

#[tokio::test]
async fn a_failed_forced_write_ends_the_log() {
    let fs = SimFs::new(2);
    let (log, _) = open(config(&fs)).await;
    put(&log, "before").await;
    fs.set_faults(Faults {
        fail_sync: Some(fs.syncs()),
        ..Faults::default()
    });
    let answer = log.propose("during".into()).await.unwrap().await;
    assert!(
        matches!(answer, Err(ProposeError::Unknown { .. })),
        "{answer:?}"
    );
    let failure = log.failed().await;
    assert!(matches!(failure, LogFailure::Io { .. }), "{failure}");
    assert!(failure.to_string().contains("EIO"), "{failure}");
    assert_eq!(log.failure(), Some(failure));
    log.shutdown().await.unwrap_err();
    let fs = fs.crash_losing_all();
    let (log, recorder) = open(config(&fs)).await;
    assert_eq!(recorder.entries(), [b"before"]);
    log.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_idle_log_forces_nothing() {
    let fs = SimFs::new(3);
    let (log, _) = open(config(&fs)).await;
    put(&log, "one").await;
    // The identity, the segment in use, and the next one, which is made ready beside.
    while log.stats().forced_writes_aside < 7 {
        tokio::task::yield_now().await;
    }
    let syncs = fs.syncs();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    assert_eq!(fs.syncs(), syncs);
    lead(&log).await;
    log.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_does_not_fit_ends_the_log() {
    let fs = SimFs::new(4);
    let (log, _) = open(config(&fs)).await;
    for _ in 0..8 {
        put(&log, vec![3; 1000]).await;
    }
    let used = u64::MAX - fs.available_bytes("/data".as_ref()).unwrap();
    fs.set_faults(Faults {
        capacity: Some(used + 500),
        ..Faults::default()
    });
    assert!(matches!(
        log.snapshot_now().await,
        Err(ProposeError::Stopped { .. })
    ));
    assert!(matches!(log.failed().await, LogFailure::DiskFull { .. }));
    log.shutdown().await.unwrap_err();
    let fs = fs.crash();
    let names = fs.list("/data".as_ref()).unwrap();
    assert!(
        !names.iter().any(|name| name.ends_with(".snap")),
        "{names:?}"
    );
    let (log, recorder) = open(config(&fs)).await;
    assert_eq!(recorder.entries().len(), 8);
    log.shutdown().await.unwrap();
}

struct Panics;

impl accede_log::StateMachine for Panics {
    type Response = ();
    fn apply(&mut self, _index: u64, _entry: &[u8]) {
        panic!("a bug in the state machine");
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _snapshot: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_in_the_state_machine_is_a_failure() {
    let fs = SimFs::new(5);
    let log = Log::open(config(&fs), Panics).await.unwrap();
    let mut leadership = log.leadership();
    leadership
        .wait_for(|now| matches!(now, Leadership::Leader { .. }))
        .await
        .unwrap();
    let answer = log.propose("x".into()).await.unwrap().await;
    assert!(
        matches!(answer, Err(ProposeError::Unknown { .. })),
        "{answer:?}"
    );
    assert!(matches!(log.failed().await, LogFailure::Core { .. }));
}
