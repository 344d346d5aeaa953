//! The log as the replication core uses it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};

use super::types::{self, Entry, LogId, RaftVote, Types};
use crate::wal::queue::Wal;

/// A cheap handle; all clones are the same log.
#[derive(Clone)]
pub(crate) struct LogStore(pub(crate) Arc<Wal>);

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<R: Send + Sync + 'static> RaftLogReader<Types<R>> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.0
            .read(half_open(&range))?
            .into_iter()
            .map(types::from_log)
            .collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.0.shared.memory.lock().vote.map(types::raft_vote))
    }
}

impl<R: Send + Sync + 'static> RaftLogStorage<Types<R>> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let memory = self.0.shared.memory.lock();
        Ok(LogState {
            last_purged_log_id: memory.purged.map(types::log_id),
            last_log_id: memory.last().map(types::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.0.save_vote(types::vote(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.0.save_committed(committed.as_ref().map(types::mark));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.0.shared.memory.lock().committed.map(types::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = <Types<R> as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(types::to_log).collect();
        self.0.append(
            entries,
            Box::new(move |result| callback.io_completed(result)),
        )
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.0.truncate(last.as_ref().map(types::mark)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.0.purge(types::mark(&upto)).await
    }
}
