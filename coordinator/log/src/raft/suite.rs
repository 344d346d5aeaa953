//! The replication library's own test suite, run against our store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::{Notify, watch};

use super::machine::{Around, Machine};
use super::store::LogStore;
use super::types::Types;
use crate::config::LogConfig;
use crate::snapshot::Snapshots;
use crate::wal::queue::Wal;
use crate::wal::recover::{self, Drive};

/// Counts bytes.
struct Bytes(u64);

impl crate::StateMachine for Bytes {
    type Response = u64;
    fn apply(&mut self, _index: u64, entry: &[u8]) -> u64 {
        self.0 += entry.len() as u64;
        self.0
    }
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = u64::from_le_bytes(snapshot.try_into().map_err(|_| "length".to_owned())?);
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<Types<u64>, LogStore, Machine<Bytes>, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, Machine<Bytes>), StorageError<Types<u64>>> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LogConfig::new(dir.path());
        config.segment_bytes = 16 * 1024;
        let opened = recover::open(&config, Drive::Threads).unwrap();
        let wal = Wal::threaded(opened.writer).unwrap();
        let counters = Arc::clone(&wal.shared.counters);
        let snapshots = Snapshots::new(
            Arc::clone(&config.fs),
            config.data_dir.clone(),
            opened.cluster,
            Arc::clone(&counters),
        );
        let around = Around {
            snapshots: Arc::new(snapshots),
            counters,
            failure: wal.shared.failure.clone(),
            wanted: Arc::new(Notify::new()),
            written: watch::Sender::new(0),
            stopping: Arc::new(AtomicBool::new(true)),
        };
        let machine = Machine::new(Bytes(0), around, config.snapshot_every);
        Ok((dir, LogStore(Arc::new(wal)), machine))
    }
}

#[test]
fn the_store_passes_the_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}
