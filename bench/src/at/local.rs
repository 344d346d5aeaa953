//! A registrar that answers at once, in this process: AT without what the coordinator costs.

use std::{sync::Arc, time::Duration};

use accede_proto::Xid;
use accede_rm_agent::{AgentLimits, Refused, Registered, Registrar, Registration, RowCheck};
use futures_util::future::{BoxFuture, ready};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::report::progress;

/// Longer than any round.
const GIVE_UP: Duration = Duration::from_secs(600);

/// Grants everything and finishes branches as soon as they are done.
pub(super) struct LocalRegistrar {
    done: mpsc::UnboundedSender<(Xid, u32)>,
}

/// Deletes the undo rows of these branches.
pub(super) type Finisher =
    Box<dyn Fn(Vec<(Xid, u32)>) -> BoxFuture<'static, sqlx::Result<()>> + Send + Sync>;

impl LocalRegistrar {
    /// The registrar, and the task that deletes undo rows until the registrar is gone.
    pub(super) fn start(finisher: Finisher) -> (Arc<Self>, JoinHandle<()>) {
        let (done, queue) = mpsc::unbounded_channel();
        (
            Arc::new(Self { done }),
            tokio::spawn(commit(queue, finisher)),
        )
    }
}

/// In batches, and after as long a wait for company as an agent's.
async fn commit(mut queue: mpsc::UnboundedReceiver<(Xid, u32)>, finisher: Finisher) {
    let limits = AgentLimits::default();
    let mut branches = Vec::new();
    while queue.recv_many(&mut branches, limits.commit_batch).await > 0 {
        let more = async {
            while branches.len() < limits.commit_batch {
                let room = limits.commit_batch - branches.len();
                if queue.recv_many(&mut branches, room).await == 0 {
                    return;
                }
            }
        };
        let _ = timeout(limits.commit_gather, more).await;
        if let Err(error) = finisher(std::mem::take(&mut branches)).await {
            // The rows stay, which the wait for an empty table reports.
            progress(format!("cannot delete undo rows: {error}"));
        }
    }
}

impl Registrar for LocalRegistrar {
    fn register(&self, _: Registration) -> BoxFuture<'_, Result<Registered, Refused>> {
        let registered = Registered {
            branch: 1,
            give_up: GIVE_UP,
            keep_open: false,
        };
        Box::pin(ready(Ok(registered)))
    }

    fn check_locks(&self, _: RowCheck) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(ready(Ok(())))
    }

    fn done(&self, xid: Xid, branch: u32) {
        // Only fails when the task has ended, with the benchmark.
        let _ = self.done.send((xid, branch));
    }

    fn blocked(&self, _: Xid) {}

    fn withdrawn(&self, _: Xid, _: u32) {}

    fn doomed(&self, _: Xid, _: u32, _: String) {}
}
