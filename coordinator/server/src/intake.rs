//! The queue in front of the driver: what the doors want to have logged.

use std::collections::VecDeque;

use accede_core::{Command, LockMode, State};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    limits::{BATCH_BYTES, BATCH_COMMANDS, QUEUE_FOR_ALL, QUEUE_FOR_NEW_WORK},
    reply_to::ReplyTo,
    trouble::Trouble,
};

/// A question to the state, asked after everything that was queued before it is applied.
pub(crate) type Read = Box<dyn FnOnce(Result<&State, Trouble>) + Send>;

/// One thing for the driver.
pub(crate) enum Job {
    /// To be logged.
    Command(Command, ReplyTo),
    /// To be answered from the state.
    Read(Read),
}

/// One drain of the queue.
#[derive(Default)]
pub(crate) struct Drained {
    pub(crate) commands: Vec<Command>,
    /// One for each command.
    pub(crate) callers: Vec<ReplyTo>,
    pub(crate) reads: Vec<Read>,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gate {
    /// Everything is taken.
    Open,
    /// Only what finishes transactions.
    Finishing,
    /// Nothing.
    Shut,
}

/// The queue. Bounded: begins and registrations are refused first, the rest of the room is for
/// what finishes transactions, and a full queue holds the sessions' readers back.
pub(crate) struct Intake {
    queue: Mutex<Queue>,
    filled: Notify,
    room: Notify,
}

struct Queue {
    jobs: VecDeque<Job>,
    gate: Gate,
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                gate: Gate::Open,
            }),
            filled: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Queues jobs in order. Those that are shed are answered at once.
    pub(crate) fn submit(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut shed = Vec::new();
        {
            let mut queue = self.queue.lock();
            for job in jobs {
                match queue.refuses(&job) {
                    None => queue.jobs.push_back(job),
                    Some(trouble) => shed.push((job, trouble)),
                }
            }
        }
        self.filled.notify_one();
        for (job, trouble) in shed {
            match job {
                Job::Command(_, to) => to.answer(Err(trouble)),
                Job::Read(read) => read(Err(trouble)),
            }
        }
    }

    /// Waits until the queue has room. Readers of sessions call it before they read on.
    pub(crate) async fn room(&self) {
        loop {
            let told = self.room.notified();
            if self.len() < QUEUE_FOR_ALL {
                return;
            }
            told.await;
        }
    }

    /// Waits until there may be something to take.
    pub(crate) async fn filled(&self) {
        if self.len() == 0 {
            self.filled.notified().await;
        }
    }

    /// Takes what fits one entry.
    pub(crate) fn take(&self) -> Drained {
        let mut drained = Drained::default();
        let mut bytes = 0;
        let mut queue = self.queue.lock();
        while drained.commands.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
            match queue.jobs.pop_front() {
                Some(Job::Command(command, to)) => {
                    bytes += size(&command);
                    drained.commands.push(command);
                    drained.callers.push(to);
                }
                Some(Job::Read(read)) => drained.reads.push(read),
                None => break,
            }
        }
        let has_room = queue.jobs.len() < QUEUE_FOR_ALL;
        drop(queue);
        if has_room {
            self.room.notify_waiters();
        }
        drained
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.lock().jobs.len()
    }

    /// From now on takes less. Never opens again.
    pub(crate) fn narrow(&self, to: Gate) {
        let mut queue = self.queue.lock();
        queue.gate = queue.gate.max(to);
        let left = if to == Gate::Shut {
            std::mem::take(&mut queue.jobs)
        } else {
            VecDeque::new()
        };
        drop(queue);
        self.room.notify_waiters();
        for job in left {
            match job {
                Job::Command(_, to) => to.answer(Err(Trouble::ShuttingDown)),
                Job::Read(read) => read(Err(Trouble::ShuttingDown)),
            }
        }
    }

    pub(crate) fn gate(&self) -> Gate {
        self.queue.lock().gate
    }
}

impl Queue {
    fn refuses(&self, job: &Job) -> Option<Trouble> {
        let new = matches!(job, Job::Command(command, _) if is_new_work(command));
        if self.gate == Gate::Shut || (new && self.gate == Gate::Finishing) {
            return Some(Trouble::ShuttingDown);
        }
        (new && self.jobs.len() >= QUEUE_FOR_NEW_WORK).then_some(Trouble::Overloaded)
    }
}

/// What may be shed. A renewed lease may not: its transactions would roll back.
fn is_new_work(command: &Command) -> bool {
    match command {
        Command::Begin(_)
        | Command::RegisterBranch(_)
        | Command::CheckLocks(_)
        | Command::StartSaga(_) => true,
        Command::LeaseWorker(lease) => lease.worker.is_none(),
        Command::TakeOffice(_)
        | Command::EndLease(_)
        | Command::BindResource(_)
        | Command::NameAction(_)
        | Command::BranchDone(_)
        | Command::WithdrawBranch(_)
        | Command::DoomBranch(_)
        | Command::Blocked(_)
        | Command::Commit(_)
        | Command::RollBack(_)
        | Command::FinishBranch(_)
        | Command::Expire
        | Command::Repair(_) => false,
    }
}

/// About how many bytes a command takes in an entry; exact where it can be much.
fn size(command: &Command) -> usize {
    const FIXED: usize = 48;
    let variable: usize = match command {
        Command::Begin(begin) => begin.name.len(),
        Command::NameAction(name) => name.action.len(),
        Command::LeaseWorker(lease) => lease.name.len(),
        Command::RegisterBranch(branch) => {
            let locks = branch.locks.iter().map(row_lock_size).sum::<usize>();
            locks + branch.resource.len() + branch.payload.len()
        }
        Command::CheckLocks(check) => {
            check.locks.iter().map(|key| key.len() + 4).sum::<usize>() + check.resource.len()
        }
        Command::FinishBranch(finish) => match &finish.outcome {
            accede_core::Outcome::Finished | accede_core::Outcome::PreCommitted => 0,
            accede_core::Outcome::Ran(result) => result.len(),
            accede_core::Outcome::Failed(problem)
            | accede_core::Outcome::Unavailable(problem)
            | accede_core::Outcome::Stuck(problem)
            | accede_core::Outcome::Refused(problem)
            | accede_core::Outcome::Later(problem, _) => {
                problem.reason.len() + problem.difference.len() + problem.repair_statement.len()
            }
        },
        Command::StartSaga(start) => start.steps.iter().map(step_size).sum(),
        Command::DoomBranch(doom) => doom.detail.len(),
        Command::RollBack(roll_back) => roll_back.detail.len(),
        Command::Repair(repair) => repair.by.len() + repair.reason.len(),
        _ => 0,
    };
    FIXED + variable
}

fn step_size(step: &accede_core::StepPlan) -> usize {
    let texts = step.name.len() + step.resource.len() + step.input.len();
    texts + 3 * step.after.len() + 24
}

fn row_lock_size(lock: &accede_core::RowLock) -> usize {
    let deltas = match &lock.mode {
        LockMode::Exclusive | LockMode::Shared => 1,
        LockMode::Escrow(deltas) => deltas.iter().map(|change| change.column.len() + 36).sum(),
    };
    lock.key.len() + 4 + deltas
}

#[cfg(test)]
mod tests {
    use super::*;
    use accede_core::{Commit, RollBack, Xid};
    use tokio::sync::oneshot;

    fn xid() -> Xid {
        Xid::new(1 << 22).expect("an id")
    }

    fn begin() -> Command {
        Command::Begin(accede_core::Begin {
            process: accede_core::ProcessId(1),
            xid: xid(),
            name: "".into(),
            timeout_ms: 1,
            parent: None,
        })
    }

    fn commit() -> Command {
        Command::Commit(Commit { xid: xid() })
    }

    fn fill(intake: &Intake, count: usize) {
        intake.submit((0..count).map(|_| Job::Command(commit(), ReplyTo::Nobody)));
    }

    async fn answer(intake: &Intake, command: Command) -> Option<Trouble> {
        let (once, answer) = oneshot::channel();
        intake.submit([Job::Command(command, ReplyTo::Once(once))]);
        tokio::select! {
            biased;
            answer = answer => answer.expect("answered").err(),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn new_work_is_shed_first_and_decisions_never() {
        let intake = Intake::new();
        fill(&intake, QUEUE_FOR_NEW_WORK - 1);
        assert_eq!(answer(&intake, begin()).await, None);
        assert_eq!(answer(&intake, begin()).await, Some(Trouble::Overloaded));
        assert_eq!(answer(&intake, commit()).await, None);
        assert_eq!(intake.len(), QUEUE_FOR_NEW_WORK + 1);
    }

    #[tokio::test]
    async fn a_full_queue_holds_readers_back_until_something_is_taken() {
        let intake = Intake::new();
        fill(&intake, QUEUE_FOR_ALL);
        let mut room = std::pin::pin!(intake.room());
        tokio::select! {
            biased;
            () = &mut room => panic!("there is none"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(intake.take().commands.len(), BATCH_COMMANDS);
        room.await;
    }

    #[test]
    fn an_entry_has_a_size() {
        let intake = Intake::new();
        let big = Command::RollBack(RollBack {
            xid: xid(),
            detail: "x".repeat(BATCH_BYTES / 4),
        });
        intake.submit((0..9).map(|_| Job::Command(big.clone(), ReplyTo::Nobody)));
        assert_eq!(intake.take().commands.len(), 4);
    }

    #[tokio::test]
    async fn a_shutdown_finishes_before_it_refuses_all() {
        let intake = Intake::new();
        intake.narrow(Gate::Finishing);
        assert_eq!(answer(&intake, begin()).await, Some(Trouble::ShuttingDown));
        assert_eq!(answer(&intake, commit()).await, None);
        let (once, left) = oneshot::channel();
        intake.submit([Job::Command(commit(), ReplyTo::Once(once))]);
        intake.narrow(Gate::Shut);
        assert_eq!(left.await, Ok(Err(Trouble::ShuttingDown)));
        assert_eq!(answer(&intake, commit()).await, Some(Trouble::ShuttingDown));
        intake.narrow(Gate::Open);
        assert_eq!(intake.gate(), Gate::Shut);
    }
}
