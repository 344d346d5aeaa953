//! A state machine that remembers everything it was given.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use accede_log::{Leadership, Log, LogConfig, StateMachine};

/// Entries in the order they were applied; shared with the test.
#[derive(Clone, Default)]
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Vec<Vec<u8>>>>);

impl Recorder {
    pub(crate) fn entries(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl StateMachine for Recorder {
    type Response = usize;

    fn apply(&mut self, _index: u64, entry: &[u8]) -> usize {
        let mut entries = self.0.lock().unwrap();
        entries.push(entry.to_vec());
        entries.len()
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut out = vec![1];
        for entry in self.0.lock().unwrap().iter() {
            out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            out.extend_from_slice(entry);
        }
        out
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let Some((&1, mut rest)) = snapshot.split_first() else {
            return Err("state of version 2, this build reads version 1".to_owned());
        };
        let mut entries = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (entry, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            entries.push(entry.to_vec());
            rest = tail;
        }
        *self.0.lock().unwrap() = entries;
        Ok(())
    }
}

/// Small segments, so that tests turn many of them over.
pub(crate) fn config(dir: &std::path::Path) -> LogConfig {
    let mut config = LogConfig::new(dir);
    config.segment_bytes = 64 * 1024;
    config
}

/// Opens and waits until this replica leads.
pub(crate) async fn open(config: LogConfig) -> (Log<Recorder>, Recorder) {
    let recorder = Recorder::default();
    let log = Log::open(config, recorder.clone()).await.unwrap();
    lead(&log).await;
    (log, recorder)
}

pub(crate) async fn lead(log: &Log<Recorder>) -> u64 {
    let mut leadership = log.leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
    let now = *tokio::time::timeout(Duration::from_secs(20), leads)
        .await
        .unwrap()
        .unwrap();
    match now {
        Leadership::Leader { term } => term,
        Leadership::Follower { .. } => unreachable!(),
    }
}

pub(crate) async fn put(log: &Log<Recorder>, entry: impl Into<bytes::Bytes>) -> usize {
    log.propose(entry.into()).await.unwrap().await.unwrap()
}
