//! The queue in front of the driver: what the doors want to have logged.

use std::collections::VecDeque;

use accede_core::{Command, LockMode, State};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    clock,
    limits::{ANNOUNCED_WAIT, BATCH_BYTES, BATCH_COMMANDS, QUEUE_FOR_ALL, QUEUE_FOR_NEW_WORK},
    reply_to::ReplyTo,
    trouble::Trouble,
};

/// A question to the state, asked after everything that was queued before it is applied.
pub(crate) type Read = Box<dyn FnOnce(Result<&State, Trouble>) + Send>;

/// One thing for the driver.
pub(crate) enum Job {
    /// To be logged.
    Command(Command, ReplyTo),
    /// The same, but nobody waits for it: it shares the entry, and the forced write, of the next
    /// thing that somebody waits for, or goes after [`ANNOUNCED_WAIT`].
    Announced(Command, ReplyTo),
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
    /// When they are to be taken: at once if somebody waits for one of them.
    due: Due,
    gate: Gate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// There is nothing.
    Never,
    /// All of it was announced.
    At(Instant),
    Now,
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                due: Due::Never,
                gate: Gate::Open,
            }),
            filled: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Queues jobs in order. Those that are shed are answered at once.
    pub(crate) fn submit(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut shed = Vec::new();
        let sooner = {
            let mut queue = self.queue.lock();
            let before = queue.due;
            for job in jobs {
                match queue.refuses(&job) {
                    None => queue.push(job),
                    Some(trouble) => shed.push((job, trouble)),
                }
            }
            queue.due != before
        };
        if sooner {
            self.filled.notify_one();
        }
        for (job, trouble) in shed {
            job.refuse(trouble);
        }
    }

    /// Somebody began to wait: what was announced may be what for.
    pub(crate) fn hurry(&self) {
        let mut queue = self.queue.lock();
        if matches!(queue.due, Due::At(_)) {
            queue.due = Due::Now;
            drop(queue);
            self.filled.notify_one();
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

    /// Waits until there is something to take and it is time to.
    pub(crate) async fn filled(&self) {
        loop {
            let told = self.filled.notified();
            let due = self.queue.lock().due;
            match due {
                Due::Now => return,
                Due::At(at) if at <= clock::now() => return,
                // Told or not, the queue says what is next.
                Due::At(at) => drop(timeout_at(at, told).await),
                Due::Never => told.await,
            }
        }
    }

    /// Takes what fits one entry.
    pub(crate) fn take(&self) -> Drained {
        let mut drained = Drained::default();
        let mut bytes = 0;
        let mut queue = self.queue.lock();
        while drained.commands.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
            match queue.jobs.pop_front() {
                Some(Job::Command(command, to) | Job::Announced(command, to)) => {
                    bytes += size(&command);
                    drained.commands.push(command);
                    drained.callers.push(to);
                }
                Some(Job::Read(read)) => drained.reads.push(read),
                None => break,
            }
        }
        queue.due = match queue.jobs.is_empty() {
            true => Due::Never,
            false => Due::Now,
        };
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
            queue.due = Due::Never;
            std::mem::take(&mut queue.jobs)
        } else {
            VecDeque::new()
        };
        drop(queue);
        self.room.notify_waiters();
        for job in left {
            job.refuse(Trouble::ShuttingDown);
        }
    }

    pub(crate) fn gate(&self) -> Gate {
        self.queue.lock().gate
    }
}

impl Job {
    fn refuse(self, trouble: Trouble) {
        match self {
            Self::Command(_, to) | Self::Announced(_, to) => to.answer(Err(trouble)),
            Self::Read(read) => read(Err(trouble)),
        }
    }
}

impl Queue {
    fn push(&mut self, job: Job) {
        let alone = matches!(job, Job::Announced(..)) && self.jobs.len() + 1 < BATCH_COMMANDS;
        self.jobs.push_back(job);
        self.due = match self.due {
            Due::Never if alone => Due::At(clock::now() + ANNOUNCED_WAIT),
            Due::At(at) if alone => Due::At(at),
            _ => Due::Now,
        };
    }

    fn refuses(&self, job: &Job) -> Option<Trouble> {
        let new = match job {
            Job::Command(command, _) | Job::Announced(command, _) => is_new_work(command),
            Job::Read(_) => false,
        };
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
            accede_core::Outcome::Finished
            | accede_core::Outcome::PreCommitted
            | accede_core::Outcome::Prepared => 0,
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

    fn announce(intake: &Intake) {
        intake.submit([Job::Announced(begin(), ReplyTo::Nobody)]);
    }

    async fn waited(intake: &Intake) -> std::time::Duration {
        let start = clock::now();
        intake.filled().await;
        clock::now() - start
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_announced_goes_with_what_is_waited_for() {
        let intake = Intake::new();
        announce(&intake);
        let (once, _answer) = oneshot::channel();
        intake.submit([Job::Command(commit(), ReplyTo::Once(once))]);
        assert!(waited(&intake).await.is_zero());
        let commands = intake.take().commands;
        assert_eq!(commands, [begin(), commit()]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_announced_goes_alone_after_a_while() {
        let intake = Intake::new();
        announce(&intake);
        let start = clock::now();
        tokio::time::advance(ANNOUNCED_WAIT / 2).await;
        announce(&intake);
        intake.filled().await;
        assert!(clock::now() - start >= ANNOUNCED_WAIT);
        assert!(clock::now() - start < ANNOUNCED_WAIT * 2);
        assert_eq!(intake.take().commands.len(), 2);
        announce(&intake);
        assert!(!waited(&intake).await.is_zero(), "it is a new one's turn");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_announced_goes_at_once_when_somebody_waits_for_it() {
        let intake = Intake::new();
        intake.hurry();
        announce(&intake);
        intake.hurry();
        assert!(waited(&intake).await.is_zero());
        intake.take();
        for _ in 0..BATCH_COMMANDS {
            announce(&intake);
        }
        assert!(waited(&intake).await.is_zero(), "an entry's worth");
        announce(&intake);
        intake.take();
        assert!(waited(&intake).await.is_zero(), "left by a full entry");
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
