//! Takes the coordinator's orders in and answers them.
//!
//! A branch is worked on by one order at a time. A repeat meanwhile is answered
//! with "in progress"; what is finished in the end carries the numbers of the
//! newest order that asked for the same, so that the coordinator knows it.

use std::{collections::HashMap, sync::Arc};

use accede_link::session::{BranchFrames, Session};
use accede_proto::{
    Xid,
    v1::{
        Action, BranchFinished, Empty, Mode, Order, PhaseTwoFailure, StepOrder, StepRan,
        branch_finished::Result as End, branch_request::Body as Ask,
    },
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{
    database::{BranchKey, PhaseTwoError, UndoPolicy},
    limits::MAX_PAYLOAD_BYTES_IN_HAND,
    participant::Participant,
    resource::{Resource, add},
};

/// What is to be done with a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Delete its undo record, commit what it prepared, or confirm it.
    Commit,
    /// Note that its commit is decided: 3PC only.
    PreCommit,
    /// Undo it, roll back what it prepared, cancel or compensate it.
    RollBack { was_done: bool, policy: UndoPolicy },
    /// Do a step of a saga.
    Run,
    /// Prepare what is kept open: XA only.
    Prepare,
    /// Commit what is kept open in one phase: XA only.
    CommitOnePhase,
}

/// What came of work that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The branch is finished.
    Finished,
    /// It has heard that the commit is decided.
    PreCommitted,
    /// The step is done and returned this.
    Ran(Bytes),
    /// The step cannot be done, and did nothing; what was kept open is rolled back.
    Refused(String),
    /// What was kept open is prepared.
    Prepared,
}

/// The numbers that an answer must echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    attempt: u32,
    epoch: u64,
}

struct InHand {
    mode: Mode,
    job: Job,
    payload: Bytes,
    step: Option<Arc<StepOrder>>,
    numbers: Numbers,
    /// A newer order that asks for something else; runs if this one does not succeed.
    next: Option<(Job, Numbers, Option<Arc<StepOrder>>)>,
}

impl InHand {
    /// Bytes that it holds for its handler.
    fn bytes(&self) -> usize {
        let outputs = self.step.iter().flat_map(|step| &step.results);
        self.payload.len() + outputs.map(|output| output.result.len()).sum::<usize>()
    }

    fn work(&self, branch: BranchKey) -> Work {
        Work {
            branch,
            mode: self.mode,
            job: self.job,
            payload: self.payload.clone(),
            step: self.step.clone(),
        }
    }

    /// Whether a prepared transaction of the database is to be ended.
    fn ends_prepared(&self) -> bool {
        self.mode == Mode::Xa && matches!(self.job, Job::Commit | Job::RollBack { .. })
    }
}

/// A branch to work on.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) branch: BranchKey,
    pub(super) mode: Mode,
    pub(super) job: Job,
    /// What it was registered with.
    pub(super) payload: Bytes,
    /// For a step of a saga.
    pub(super) step: Option<Arc<StepOrder>>,
}

/// Branches in hand, and what their payloads take.
struct Table {
    resource: Arc<Resource>,
    branches: HashMap<BranchKey, InHand>,
    payload_bytes: usize,
}

impl Table {
    fn insert(&mut self, branch: BranchKey, new: InHand) {
        self.payload_bytes += new.bytes();
        if new.ends_prepared() {
            self.resource.behind.send_modify(|behind| *behind += 1);
        }
        self.branches.insert(branch, new);
    }

    fn remove(&mut self, branch: BranchKey) -> Option<InHand> {
        let removed = self.branches.remove(&branch)?;
        self.payload_bytes -= removed.bytes();
        if removed.ends_prepared() {
            self.resource.behind.send_modify(|behind| *behind -= 1);
        }
        Some(removed)
    }
}

/// The orders of one resource.
pub(super) struct Orders {
    resource: Arc<Resource>,
    participant: Participant,
    limit: usize,
    in_hand: Mutex<Table>,
    work: mpsc::UnboundedSender<Work>,
    session: watch::Receiver<Option<Session<BranchFrames>>>,
}

/// A branch that is being worked on. Dropped without an end it counts as failed.
pub(super) struct Task {
    orders: Arc<Orders>,
    pub(super) work: Work,
    ended: bool,
}

impl Orders {
    /// The orders and the queue from which they are worked off. The queue has no
    /// bound of its own: the table of orders in hand has.
    pub(super) fn new(
        resource: Arc<Resource>,
        participant: Participant,
        limit: usize,
        session: watch::Receiver<Option<Session<BranchFrames>>>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Work>) {
        let (work, queue) = mpsc::unbounded_channel();
        let in_hand = Table {
            resource: Arc::clone(&resource),
            branches: HashMap::new(),
            payload_bytes: 0,
        };
        let orders = Self {
            resource,
            participant,
            limit,
            in_hand: Mutex::new(in_hand),
            work,
            session,
        };
        (Arc::new(orders), queue)
    }

    pub(super) fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    pub(super) fn participant(&self) -> &Participant {
        &self.participant
    }

    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.lock().branches.len()
    }

    /// Takes an order; never waits.
    pub(super) fn accept(&self, order: &Order) {
        let numbers = Numbers {
            attempt: order.attempt,
            epoch: order.epoch,
        };
        let Some(xid) = Xid::from_u64(order.xid) else {
            return self.answer_now(order, failed("the order's XID is not one"));
        };
        let mode = order.mode();
        if !self.participant.takes(mode) {
            let reason = "this agent finishes the resource's branches in another mode; update it";
            return self.answer_now(order, failed(reason));
        }
        let job = match job(order) {
            Ok(job) => job,
            Err(reason) => return self.answer_now(order, failed(reason)),
        };
        let branch = BranchKey {
            xid,
            branch: order.branch,
        };
        let mut in_hand = self.in_hand.lock();
        if let Some(running) = in_hand.branches.get_mut(&branch) {
            if running.job == job {
                running.numbers = numbers;
                running.next = None;
            } else {
                running.next = Some((job, numbers, order.step.clone().map(Arc::new)));
            }
            drop(in_hand);
            return self.answer_now(order, End::InProgress(Empty {}));
        }
        let new = InHand {
            mode,
            job,
            payload: order.payload.clone(),
            step: order.step.clone().map(Arc::new),
            numbers,
            next: None,
        };
        let payload_bytes = in_hand.payload_bytes + new.bytes();
        if in_hand.branches.len() >= self.limit || payload_bytes > MAX_PAYLOAD_BYTES_IN_HAND {
            let count = in_hand.branches.len();
            drop(in_hand);
            let full = PhaseTwoFailure {
                reason: format!("the agent has {count} orders in hand already"),
                ..PhaseTwoFailure::default()
            };
            return self.answer_now(order, End::Unavailable(full));
        }
        let work = new.work(branch);
        in_hand.insert(branch, new);
        drop(in_hand);
        if self.work.send(work).is_err() {
            // The agent is shutting down; another agent or its successor will get it.
            self.in_hand.lock().remove(branch);
        }
    }

    pub(super) fn task(self: &Arc<Self>, work: Work) -> Task {
        Task {
            orders: Arc::clone(self),
            work,
            ended: false,
        }
    }

    /// Answers without waiting. When there is no room the answer is dropped: the
    /// coordinator repeats its order.
    fn answer_now(&self, order: &Order, end: End) {
        let body = self.finished(
            order.xid,
            order.branch,
            Numbers {
                attempt: order.attempt,
                epoch: order.epoch,
            },
            end,
        );
        let session = self.session.borrow();
        let sent = session
            .as_ref()
            .map(|session| session.try_send_slot().and_then(|slot| slot.send(body)));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, "an answer to an order was dropped");
        }
    }

    async fn answer(&self, body: Ask) {
        let session = self.session.borrow().clone();
        if let Some(session) = session
            && let Err(error) = session.send(body).await
        {
            tracing::debug!(%error, "an answer to an order was dropped");
        }
    }

    fn finished(&self, xid: u64, branch: u32, numbers: Numbers, end: End) -> Ask {
        Ask::Finished(BranchFinished {
            xid,
            branch,
            attempt: numbers.attempt,
            epoch: numbers.epoch,
            result: Some(end),
            resource: self.resource.name.as_ref().to_owned(),
        })
    }

    /// Takes a branch out of hand, or starts its next job: answers the numbers
    /// that belong to the result, if it is to be told.
    fn end(&self, branch: BranchKey, finished: bool) -> Option<Numbers> {
        let mut in_hand = self.in_hand.lock();
        let mut running = in_hand.remove(branch)?;
        match running.next.take() {
            // Success is final, whoever asked; that of a step or of a pre-commit is no end.
            Some((_, numbers, _)) if finished => Some(numbers),
            Some((job, numbers, step)) => {
                running.job = job;
                running.numbers = numbers;
                running.step = step;
                if self.work.send(running.work(branch)).is_ok() {
                    in_hand.insert(branch, running);
                }
                None
            }
            None => Some(running.numbers),
        }
    }

    fn count(&self, job: Job, result: &Result<Ended, PhaseTwoError>) {
        let counters = &self.resource.counters;
        let counter = match (result, job) {
            (Ok(Ended::PreCommitted | Ended::Prepared), _) => return,
            (Ok(Ended::Refused(_)), _) => &counters.failed,
            (
                Ok(_),
                Job::Commit | Job::PreCommit | Job::Run | Job::Prepare | Job::CommitOnePhase,
            ) => &counters.committed,
            (Ok(_), Job::RollBack { .. }) => &counters.rolled_back,
            (Err(PhaseTwoError::Unavailable { .. }), _) => &counters.unavailable,
            (Err(PhaseTwoError::Stuck { .. }), _) => &counters.stuck,
            (Err(_), _) => &counters.failed,
        };
        add(counter, 1);
    }
}

impl Task {
    pub(super) fn participant(&self) -> &Participant {
        &self.orders.participant
    }

    /// The work on the branch ended: answers its order. A success must be durable.
    pub(super) async fn end(mut self, result: Result<Ended, PhaseTwoError>) {
        self.ended = true;
        let (branch, job) = (self.work.branch, self.work.job);
        let BranchKey {
            xid,
            branch: number,
        } = branch;
        let resource = &self.orders.resource.name;
        self.orders.count(job, &result);
        match &result {
            Ok(Ended::PreCommitted) => {
                tracing::debug!(%xid, branch = number, %resource, "branch pre-committed");
            }
            Ok(Ended::Refused(reason)) => {
                tracing::info!(%xid, branch = number, %resource, ?job, reason, "refused");
            }
            Ok(_) => tracing::debug!(%xid, branch = number, %resource, ?job, "branch finished"),
            Err(error) => {
                tracing::warn!(%xid, branch = number, %resource, ?job, %error, "branch not finished");
            }
        }
        if let Some(numbers) = self.orders.end(branch, result == Ok(Ended::Finished)) {
            let end = wire(result);
            let body = self.orders.finished(xid.as_u64(), number, numbers, end);
            self.orders.answer(body).await;
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            // Its future was dropped or panicked. No answer: the coordinator repeats the order.
            self.orders.end(self.work.branch, false);
        }
    }
}

/// Reads what an order asks for.
fn job(order: &Order) -> Result<Job, &'static str> {
    let policy = match order.action() {
        Action::Commit => return Ok(Job::Commit),
        Action::Run if order.mode() == Mode::Saga && order.step.is_some() => return Ok(Job::Run),
        Action::Run => return Err("the order is to run what is no step of a saga"),
        Action::Prepare if order.mode() == Mode::Xa => return Ok(Job::Prepare),
        Action::CommitOnePhase if order.mode() == Mode::Xa => return Ok(Job::CommitOnePhase),
        Action::RollBack => UndoPolicy::Check,
        Action::RollBackForced => UndoPolicy::Forced,
        Action::Accept => UndoPolicy::AcceptCurrent,
        Action::PreCommit if order.mode() == Mode::ThreePhase => return Ok(Job::PreCommit),
        Action::Unspecified | Action::PreCommit | Action::Prepare | Action::CommitOnePhase => {
            return Err("the order names no action that this agent knows in that mode");
        }
    };
    Ok(Job::RollBack {
        was_done: order.was_done,
        policy,
    })
}

fn failed(reason: &str) -> End {
    End::Failed(PhaseTwoFailure {
        reason: reason.to_owned(),
        ..PhaseTwoFailure::default()
    })
}

fn wire(result: Result<Ended, PhaseTwoError>) -> End {
    match result {
        Ok(Ended::Finished) => End::Finished(Empty {}),
        Ok(Ended::PreCommitted) => End::PreCommitted(Empty {}),
        Ok(Ended::Prepared) => End::Prepared(Empty {}),
        Ok(Ended::Ran(result)) => End::Ran(StepRan { result }),
        Ok(Ended::Refused(reason)) => End::Refused(PhaseTwoFailure {
            reason,
            ..PhaseTwoFailure::default()
        }),
        Err(PhaseTwoError::Unavailable { reason }) => End::Unavailable(PhaseTwoFailure {
            reason,
            ..PhaseTwoFailure::default()
        }),
        Err(PhaseTwoError::Failed { reason }) => failed(&reason),
        Err(PhaseTwoError::Stuck {
            reason,
            difference,
            repair_statement,
        }) => End::Stuck(PhaseTwoFailure {
            reason,
            difference,
            repair_statement,
        }),
    }
}
