//! Works off the orders of one resource: in batches what is alike, all else side by side.

use std::{sync::Arc, time::Duration};

use accede_proto::v1::Mode;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    AgentLimits,
    database::{BranchKey, Database, PhaseTwoError, UndoPolicy},
    orders::{Ended, Job, Orders, Task, Work},
    participant::{DoStep, Finish, Participant},
    resource::add,
    running::Rooms,
};

/// How many orders are taken from the queue at once.
const TAKE: usize = 1024;

/// Works until the agent stops.
///
/// Commits of AT are done in batches, and so are rollbacks of AT as far as the database can. All
/// else is done branch by branch, so that a rollback which waits for a local lock delays no other
/// order; another resource has workers of its own.
pub(super) fn start(
    orders: &Arc<Orders>,
    mut queue: mpsc::UnboundedReceiver<Work>,
    limits: AgentLimits,
    rooms: &Rooms,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    let one_by_one = OneByOne {
        limit: limits.phase_two,
        tracker: tracker.clone(),
        stop: stop.clone(),
    };
    let (commits, commit_queue) = mpsc::unbounded_channel();
    tracker.spawn(commit_in_batches(commit_queue, Arc::clone(orders), limits));
    let (rollbacks, rollback_queue) = mpsc::unbounded_channel();
    let undoing = Arc::clone(&rooms.finish);
    let undo = undo_in_batches(rollback_queue, limits, one_by_one.clone(), undoing);
    tracker.spawn(undo);
    let rooms = rooms.clone();
    // They wait for no lock, nor for those that do.
    let commit_room = Arc::new(Semaphore::new(limits.commits.max(1)));
    // Mostly on the connections that the branches have, and somebody waits for the answer.
    let open_room = Arc::new(Semaphore::new(limits.kept_open.max(1)));
    let orders = Arc::clone(orders);
    let stop = stop.clone();
    tracker.spawn(async move {
        let mut taken = Vec::with_capacity(TAKE);
        loop {
            tokio::select! {
                count = queue.recv_many(&mut taken, TAKE) => if count == 0 { return },
                // What is queued is left to other agents or a successor.
                () = stop.cancelled() => return,
            }
            for work in taken.drain(..) {
                let task = orders.task(work);
                let at_once = match (task.participant(), task.work.job) {
                    (Participant::Database(database), _) if task.work.mode == Mode::Xa => {
                        AtOnce::End(Arc::clone(database))
                    }
                    // Only actions are pre-committed. The receivers live as long as these senders.
                    (
                        Participant::Database(_),
                        Job::Commit
                        | Job::PreCommit
                        | Job::Run
                        | Job::Prepare
                        | Job::CommitOnePhase,
                    ) => {
                        drop(commits.send(task));
                        continue;
                    }
                    (Participant::Database(database), Job::RollBack { was_done, policy }) => {
                        let undo = Undo {
                            database: Arc::clone(database),
                            was_done,
                            policy,
                        };
                        if policy == UndoPolicy::Check {
                            drop(rollbacks.send((task, undo)));
                            continue;
                        }
                        AtOnce::Undo(undo)
                    }
                    (Participant::Step { step, .. }, job) => AtOnce::Step(Arc::clone(step), job),
                    (Participant::Action { finish, .. }, _) => AtOnce::Finish(Arc::clone(finish)),
                };
                let room = match (&at_once, task.work.job) {
                    (AtOnce::End(_), Job::Commit) => &commit_room,
                    (AtOnce::End(_), Job::Prepare | Job::CommitOnePhase) => &open_room,
                    // It may take long, and whoever rolls back must not wait for it.
                    (AtOnce::Step(..), Job::Run) => &rooms.steps,
                    _ => &rooms.finish,
                };
                one_by_one.spawn(task, at_once, Arc::clone(room));
            }
        }
    });
}

/// Does one branch beside the other, as far as there is room.
#[derive(Clone)]
struct OneByOne {
    limit: Duration,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl OneByOne {
    fn spawn(&self, task: Task, at_once: AtOnce, room: Arc<Semaphore>) {
        let (limit, stop) = (self.limit, self.stop.clone());
        self.tracker.spawn(async move {
            let Ok(_permit) = room.acquire().await else {
                return;
            };
            if !stop.is_cancelled() {
                at_once.run(task, limit).await;
            }
        });
    }
}

/// A rollback of AT.
struct Undo {
    database: Arc<dyn Database>,
    was_done: bool,
    policy: UndoPolicy,
}

/// What is done branch by branch.
enum AtOnce {
    Undo(Undo),
    /// Ends what was prepared.
    End(Arc<dyn Database>),
    Finish(Arc<dyn Finish>),
    /// Does a step of a saga or compensates it.
    Step(Arc<dyn DoStep>, Job),
}

impl AtOnce {
    async fn run(self, task: Task, limit: Duration) {
        let branch = task.work.branch;
        let result = match self {
            Self::Undo(undo) => {
                let (was_done, policy) = (undo.was_done, undo.policy);
                let undone = undo.database.roll_back(branch, was_done, policy);
                within(limit, undone).await.map(|()| Ended::Finished)
            }
            Self::End(database) => {
                let payload = &task.work.payload;
                match task.work.job {
                    // No step has a database as its resource, and only actions are pre-committed.
                    Job::Commit | Job::PreCommit | Job::Run => {
                        let end = database.commit_prepared(branch, payload);
                        within(limit, end).await.map(|()| Ended::Finished)
                    }
                    Job::RollBack { policy, .. } => {
                        let end = database.roll_back_prepared(branch, payload, policy);
                        within(limit, end).await.map(|()| Ended::Finished)
                    }
                    Job::Prepare => within(limit, database.prepare_open(branch, payload)).await,
                    Job::CommitOnePhase => {
                        within(limit, database.commit_open(branch, payload)).await
                    }
                }
            }
            Self::Finish(finish) => {
                let work = finish.finish(branch, task.work.job, &task.work.payload);
                handled_within(limit, work).await
            }
            Self::Step(step, job) => {
                let order = task.work.step.clone().unwrap_or_default();
                let input = &task.work.payload[..];
                match job {
                    Job::RollBack { was_done, policy } => {
                        let undo = (was_done, policy);
                        let work = step.compensate(branch, undo, input, &order);
                        handled_within(limit, work).await.map(|()| Ended::Finished)
                    }
                    // A commit leaves nothing to do.
                    Job::Commit | Job::PreCommit | Job::Prepare | Job::CommitOnePhase => {
                        Ok(Ended::Finished)
                    }
                    Job::Run => {
                        let limit = Duration::from_millis(order.attempt_timeout_ms.into());
                        handled_within(limit, step.run(branch, input, &order)).await
                    }
                }
            }
        };
        task.end(result).await;
    }
}

async fn handled_within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, PhaseTwoError>>,
) -> Result<T, PhaseTwoError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(PhaseTwoError::Failed {
            reason: format!("the handler did not end within {limit:?}"),
        })
    })
}

async fn commit_in_batches(
    mut queue: mpsc::UnboundedReceiver<Task>,
    orders: Arc<Orders>,
    limits: AgentLimits,
) {
    let mut tasks = Vec::new();
    while queue.recv_many(&mut tasks, limits.commit_batch).await > 0 {
        // One order at a time would cost the database as much as the branch itself did.
        let more = async {
            while tasks.len() < limits.commit_batch {
                let room = limits.commit_batch - tasks.len();
                if queue.recv_many(&mut tasks, room).await == 0 {
                    return;
                }
            }
        };
        let _ = timeout(limits.commit_gather, more).await;
        let branches: Vec<BranchKey> = tasks.iter().map(|task| task.work.branch).collect();
        add(&orders.resource().counters.deletes, 1);
        let Participant::Database(database) = orders.participant() else {
            return;
        };
        let delete = database.delete_undo(&branches);
        let result = within(limits.phase_two, delete).await;
        for task in tasks.drain(..) {
            task.end(result.clone().map(|()| Ended::Finished)).await;
        }
    }
}

async fn undo_in_batches(
    mut queue: mpsc::UnboundedReceiver<(Task, Undo)>,
    limits: AgentLimits,
    one_by_one: OneByOne,
    room: Arc<Semaphore>,
) {
    let mut taken = Vec::new();
    while queue.recv_many(&mut taken, limits.rollback_batch).await > 0 {
        let branches: Vec<BranchKey> = taken.iter().map(|(task, _)| task.work.branch).collect();
        let Some((_, Undo { database, .. })) = taken.first() else {
            continue;
        };
        let undo = database.roll_back_together(&branches);
        // Whatever went wrong is found and told by those that are rolled back alone.
        let undone = within(limits.phase_two, undo)
            .await
            .unwrap_or_else(|error| {
                tracing::debug!(%error, branches = branches.len(), "not undone together");
                Vec::new()
            });
        for (task, undo) in taken.drain(..) {
            if undone.contains(&task.work.branch) {
                task.end(Ok(Ended::Finished)).await;
            } else {
                one_by_one.spawn(task, AtOnce::Undo(undo), Arc::clone(&room));
            }
        }
    }
}

/// A database that does not answer at all counts as unavailable.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, PhaseTwoError>>,
) -> Result<T, PhaseTwoError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(PhaseTwoError::Unavailable {
            reason: format!("the database did not answer within {limit:?}"),
        })
    })
}
