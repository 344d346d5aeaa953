//! The log driven by its caller's thread: no runtime, no threads, nothing that is not repeatable.
//!
//! It opens, writes, snapshots, purges and recovers with the code that [`crate::Log`] uses, as a
//! cluster of one voter; only the replication core is left out. Simulations that must do the same
//! for the same seed drive it, over [`crate::sim::SimFs`].
//!
//! Each start leads in a term of its own. An error of the disk is final: drop the log, then open
//! the directory again, as a process that ended and was started anew would.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::EntryPayload;
use openraft::impls::BasicNode;
use parking_lot::Mutex;

use crate::StateMachine;
use crate::config::{ClusterId, LogConfig};
use crate::error::{LogFailure, OpenError};
use crate::raft::machine::{Around, Machine};
use crate::raft::types::{self, Command, Entry, Members};
use crate::start::{self, Recovered};
use crate::stats::LogStats;
use crate::wal::format::Kind;
use crate::wal::queue::Wal;
use crate::wal::recover::Drive;
use crate::wal::{LogEntry, Mark, Vote};

/// A log of one voter that does all its work inside the calls.
pub struct InlineLog<S: StateMachine> {
    config: LogConfig,
    cluster: ClusterId,
    wal: Arc<Wal>,
    machine: Machine<S>,
    around: Around,
    term: u64,
    next: u64,
    found: Option<u64>,
}

impl<S: StateMachine> fmt::Debug for InlineLog<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineLog")
            .field("data_dir", &self.config.data_dir)
            .finish_non_exhaustive()
    }
}

impl<S: StateMachine> InlineLog<S> {
    /// Opens the directory, restores the newest snapshot into `machine`, applies everything that
    /// was decided before and leads from then on.
    ///
    /// # Errors
    /// As [`crate::Log::open`].
    pub fn open(config: &LogConfig, machine: S) -> Result<Self, OpenError> {
        let recovered = start::recover(config, machine, Drive::Inline)?;
        let Recovered {
            wal,
            machine,
            around,
            cluster,
            fresh,
        } = recovered;
        // A log that lost its tail below the snapshot goes on behind the snapshot, as the
        // replication core does it: an entry that the snapshot covers would not be applied.
        let applied = machine.applied().as_ref().map(types::mark);
        if let Some(mark) = applied.filter(|_| wal.shared.memory.lock().last() < applied) {
            at_once(wal.purge(mark)).map_err(OpenError::io("write", &config.data_dir))?;
        }
        let (last, vote) = {
            let memory = wal.shared.memory.lock();
            (memory.last(), memory.vote)
        };
        let terms = [last.map(|mark| mark.term), vote.map(|vote| vote.term)];
        let mut log = Self {
            config: config.clone(),
            cluster,
            wal,
            machine,
            around,
            term: terms.into_iter().flatten().max().unwrap_or(0) + 1,
            next: last.map_or(0, |mark| mark.index + 1),
            found: last.map(|mark| mark.index),
        };
        log.lead(fresh)
            .map_err(OpenError::io("write", &config.data_dir))?;
        Ok(log)
    }

    /// What a new leader writes: the members if there are none yet, its vote, a blank entry.
    fn lead(&mut self, fresh: bool) -> io::Result<()> {
        let node = self.config.node_id;
        if fresh {
            let voters = vec![BTreeSet::from([node])];
            let nodes = BTreeMap::from([(node, BasicNode::new(""))]);
            let members = Members::new(voters, nodes).map_err(io::Error::other)?;
            self.decide(0, EntryPayload::Membership(members))?;
        }
        let vote = Vote {
            term: self.term,
            node,
            committed: true,
        };
        at_once(self.wal.save_vote(vote))?;
        self.decide(self.term, EntryPayload::Blank).map(drop)
    }

    /// Writes an entry, forces it to disk and applies it; its index and the answer.
    ///
    /// # Errors
    /// The log has failed for good. Whether the entry is found again is unknown.
    pub fn propose(&mut self, entry: Bytes) -> Result<(u64, S::Response), LogFailure> {
        let index = self.next;
        let payload = EntryPayload::Normal(Command(entry));
        match self.decide(self.term, payload) {
            Ok(Some(response)) => Ok((index, response)),
            Ok(None) => Err(LogFailure::Core {
                what: "an entry was applied without an answer".to_owned(),
            }),
            Err(error) => Err(self.failed("appending an entry", &error)),
        }
    }

    fn decide(&mut self, term: u64, payload: types::Payload) -> io::Result<Option<S::Response>> {
        let mark = Mark {
            term,
            index: self.next,
        };
        let entry = Entry {
            log_id: types::log_id(mark),
            payload,
        };
        self.append(types::to_log(entry.clone()))?;
        self.next += 1;
        self.wal.save_committed(Some(mark));
        Ok(self.machine.apply_entry(entry))
    }

    fn append(&self, entry: LogEntry) -> io::Result<()> {
        let written = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&written);
        let done = move |result: io::Result<()>| *slot.lock() = Some(result);
        self.wal.append(vec![entry], Box::new(done))?;
        written.lock().take().unwrap_or_else(unfinished)
    }

    /// Whether as much was applied since the last snapshot as [`LogConfig::snapshot_every`] says.
    /// Says so once.
    pub fn snapshot_wanted(&self) -> bool {
        self.around.wanted.notified().now_or_never().is_some()
    }

    /// Writes a snapshot of everything applied, then gives up the log before the older of the two
    /// snapshots that are kept.
    ///
    /// # Errors
    /// The log has failed for good.
    pub fn snapshot(&mut self) -> Result<(), LogFailure> {
        let written = self.machine.write_snapshot();
        written.map_err(|error| self.failed("writing a snapshot", &error))?;
        let needed = self.around.snapshots.log_needed_from();
        if let Some(mark) = needed.map_err(|error| self.failed("listing snapshots", &error))? {
            let purged = at_once(self.wal.purge(mark));
            purged.map_err(|error| self.failed("purging the log", &error))?;
        }
        Ok(())
    }

    /// The entries from `from` on that were proposed here or in earlier lives and are still in
    /// the log, in order, each with its index.
    ///
    /// # Errors
    /// The segments cannot be read.
    pub fn entries(&self, from: u64) -> io::Result<Vec<(u64, Bytes)>> {
        let entries = self.wal.read(from..self.next)?;
        let proposed = entries.into_iter().filter(|e| e.kind == Kind::Command);
        Ok(proposed.map(|e| (e.index, e.payload)).collect())
    }

    /// The index of the last entry that was found when the log was opened.
    pub fn found_through(&self) -> Option<u64> {
        self.found
    }

    /// The state machine.
    pub fn machine(&mut self) -> &mut S {
        self.machine.state_machine()
    }

    /// The cluster this log belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// What the log has done since it was opened.
    pub fn stats(&self) -> LogStats {
        self.around.counters.read()
    }

    /// Notes the orderly end and gives up the directory.
    pub fn close(self) {
        self.wal.close();
    }

    fn failed(&self, action: &str, error: &io::Error) -> LogFailure {
        let first = self.around.failure.get();
        first.unwrap_or_else(|| {
            let dir = self.config.data_dir.clone();
            LogFailure::of_io(self.config.fs.as_ref(), dir, action, error)
        })
    }
}

impl<S: StateMachine> Drop for InlineLog<S> {
    fn drop(&mut self) {
        self.around.stopping.store(true, Relaxed);
    }
}

/// The result of an operation that ends inside its call.
fn at_once(operation: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    operation.now_or_never().unwrap_or_else(unfinished)
}

fn unfinished() -> io::Result<()> {
    Err(io::Error::other("the writer left an operation unanswered"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Faults, SimFs};

    /// Counts bytes.
    struct Sum(u64);

    impl StateMachine for Sum {
        type Response = u64;
        fn apply(&mut self, _index: u64, entry: &[u8]) -> u64 {
            self.0 += entry.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            self.0
        }
        fn snapshot(&self) -> Vec<u8> {
            self.0.to_le_bytes().to_vec()
        }
        fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
            let bytes = snapshot.try_into().map_err(|_| "not a sum".to_owned())?;
            self.0 = u64::from_le_bytes(bytes);
            Ok(())
        }
    }

    fn config(fs: &SimFs) -> LogConfig {
        let mut config = LogConfig::new("/data");
        config.segment_bytes = 16 * 1024;
        config.cluster_id = Some(ClusterId(7));
        config.snapshot_every.entries = 10;
        config.fs = Arc::new(fs.clone());
        config
    }

    fn open(fs: &SimFs) -> InlineLog<Sum> {
        InlineLog::open(&config(fs), Sum(0)).expect("the directory is sound")
    }

    fn bytes(value: u8) -> Bytes {
        Bytes::copy_from_slice(&[value; 500])
    }

    #[test]
    fn lives_through_power_losses_with_snapshots() {
        let mut fs = SimFs::new(1);
        let mut sum = 0;
        for life in 0..8_u64 {
            let mut log = open(&fs);
            assert_eq!((log.term, log.machine().0), (life + 1, sum));
            for _ in 0..25 {
                let (_, answer) = log.propose(bytes(1)).expect("the disk works");
                sum += 500;
                assert_eq!(answer, sum);
                if log.snapshot_wanted() {
                    log.snapshot().expect("the disk works");
                    assert!(!log.snapshot_wanted());
                }
            }
            let stats = log.stats();
            // Entries that were read at the start count too.
            assert!((2..=3).contains(&stats.snapshots), "{stats:?}");
            assert!(stats.segments < 6, "{stats:?}");
            if life % 2 == 0 {
                drop(log);
                fs = fs.crash();
            } else {
                log.close();
                fs = fs.kill();
            }
        }
    }

    #[test]
    fn a_log_that_ends_below_its_snapshot_goes_on_behind_it() {
        let fs = SimFs::new(4);
        let mut log = open(&fs);
        for _ in 0..12 {
            log.propose(bytes(1)).expect("the disk works");
        }
        log.snapshot().expect("the disk works");
        log.close();
        let segment = config(&fs).data_dir.join("log-0000000000000001.seg");
        let header = crate::wal::format::HEADER_BYTES as usize;
        let lost = fs.damage(&segment, |content| content[header..].fill(0));
        lost.expect("the segment is there");
        for more in 1..3 {
            let mut log = open(&fs);
            let (_, sum) = log.propose(bytes(1)).expect("the disk works");
            assert_eq!(sum, (12 + more) * 500);
        }
    }

    #[test]
    fn an_entry_that_failed_is_found_again_or_not() {
        let mut found = BTreeSet::new();
        for seed in 0..40 {
            let fs = SimFs::new(seed);
            let mut log = open(&fs);
            let (first, _) = log.propose(bytes(1)).expect("the disk works");
            fs.set_faults(Faults {
                power_off_at: Some(fs.operations() + 1),
                ..Faults::default()
            });
            assert!(log.propose(bytes(2)).is_err());
            let again = log.propose(bytes(3)).expect_err("the failure is final");
            assert!(again.to_string().contains("/data"), "{again}");
            drop(log);
            let mut log = open(&fs.crash());
            let entries = log.entries(0).expect("can be read");
            assert_eq!(entries[0], (first, bytes(1)));
            assert_eq!(log.found_through(), entries.last().map(|(index, _)| *index));
            let sum: u64 = entries.iter().map(|(_, e)| 500 * u64::from(e[0])).sum();
            assert_eq!(log.machine().0, sum);
            found.insert(entries.len());
        }
        assert_eq!(found, BTreeSet::from([1, 2]), "both happen");
    }

    #[test]
    fn a_second_user_of_the_directory_is_refused() {
        let fs = SimFs::new(3);
        let log = open(&fs);
        let error = InlineLog::open(&config(&fs), Sum(0)).expect_err("it is in use");
        assert!(matches!(error, OpenError::AnotherDaemon { .. }), "{error}");
        assert_eq!(log.cluster_id(), ClusterId(7));
        drop(log);
        drop(open(&fs));
    }
}
